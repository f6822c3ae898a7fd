"""A warm pod: started long before its tasks, it serves one after the other, and never holds the access of two."""

import json
import subprocess
import sys

import valetkey


@valetkey.tool(
    "remediation",
    "{objective}",
    "shop: get,patch deployments.apps/{deployment}",
    parameters=["deployment"],
)
def restart(objective: str, deployment: str, *, grant: valetkey.Grant) -> None:
    """One task, with access for as long as it takes."""
    command = ["kubectl", "rollout", "restart", f"deployment/{deployment}", "-n", "shop"]
    subprocess.run(command, env=grant.environ(), check=True)


for line in sys.stdin:  # one task each, as whoever claims the pod sends them
    task = json.loads(line)
    restart(task["objective"], task["deployment"])
    print(f"{task['id']} is done", flush=True)
