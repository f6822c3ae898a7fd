"""A plain Python agent: it restarts one Deployment, with access that lives for that block and no longer."""

import subprocess

import valetkey


def restart(deployment: str) -> None:
    """What the agent is for."""
    with valetkey.access(
        "remediation",
        f"Restart {deployment}, its pods crash-loop",
        f"shop: get,patch deployments.apps/{deployment}",
        parameters={"deployment": deployment},
    ) as grant:
        command = ["kubectl", "rollout", "restart", f"deployment/{deployment}", "-n", "shop"]
        subprocess.run(command, env=grant.environ(), check=True)


restart("checkout")
try:
    with valetkey.access("remediation", "Tidy up", "shop: delete deployments.apps/checkout", parameters={"deployment": "checkout"}):
        pass
except valetkey.Denied as denied:
    print(denied)  # what to change, for whoever reads it: a model, too
