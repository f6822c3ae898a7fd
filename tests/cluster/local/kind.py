"""A cluster by kind, where docker runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local.binaries import Say
from tests.cluster.local.places import BIN, ROOT, STATE, LocalClusterError

NAME: Final = "valetkey"
NODE: Final = f"{NAME}-control-plane"
KUBECONFIG: Final = STATE / "kind.kubeconfig"


def possible() -> bool:
    """Whether docker answers and kind is there."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def up(say: Say) -> None:
    """Makes the cluster, unless it is there."""
    if NAME not in _kind("get", "clusters").split():
        say("making a cluster with kind")
        _kind("create", "cluster", "--name", NAME, "--config", str(ROOT / "kind-config.yaml"), "--wait", "120s")
    STATE.mkdir(parents=True, exist_ok=True)
    KUBECONFIG.write_text(_kind("get", "kubeconfig", "--name", NAME))
    KUBECONFIG.chmod(0o600)


def down() -> None:
    """Deletes the cluster, if it is there."""
    if NAME in _kind("get", "clusters").split():
        _kind("delete", "cluster", "--name", NAME)


def load_image(name: str, wheel: Path) -> None:
    """Builds an image by operator/Dockerfile and gives it to the node."""
    kubectl = shutil.which("kubectl") or str(BIN / "kubectl")
    shutil.copy(kubectl, ROOT / "build" / "kubectl")
    _run(
        "docker", "build", "-f", str(ROOT / "operator" / "Dockerfile"), "--build-arg", f"IMAGE={name}",
        "--build-arg", f"WHEEL=build/wheel/{wheel.name}", "-t", f"{name}:dev", str(ROOT),
    )  # fmt: skip
    _kind("load", "docker-image", f"{name}:dev", "--name", NAME)


def _kind(*arguments: str) -> str:
    return _run("kind", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command[:3])} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode()
