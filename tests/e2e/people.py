"""People as the tests see them: the command as they have it, with their own rights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.cluster.local.cluster import Cluster


def command(cluster: Cluster, directory: Path, user: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `valetkey` as a user."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for entry in config["users"]:
        entry["user"]["as"] = user
    file = directory / f"{user}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    valetkey = shutil.which("valetkey", path=f"{Path(sys.executable).parent}") or "valetkey"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = cluster.environment | {"KUBECONFIG": str(file), "TERM": "dumb", "COLUMNS": "200"}
        return subprocess.run([valetkey, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run
