"""A warm pod: started long before its tasks, it serves one after the other, and never holds the access of two."""

import json
import subprocess
import sys

import valetkey

for line in sys.stdin:  # one task each, as whoever claims the pod sends them
    task = json.loads(line)
    with valetkey.access(
        "remediation",
        task["objective"],
        f"shop: get,patch deployments.apps/{task['deployment']}",
        parameters={"deployment": task["deployment"]},
        task=task["id"],
    ) as grant:
        command = ["kubectl", "rollout", "restart", f"deployment/{task['deployment']}", "-n", "shop"]
        subprocess.run(command, env=grant.environ(), check=True)
    print(f"{task['id']} is done", flush=True)
