"""A cluster by kind, where docker runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local.places import ROOT, STATE, LocalClusterError, Say

NAME: Final = "valetkey"
NODE: Final = f"{NAME}-control-plane"
KUBECONFIG: Final = STATE / "kind.kubeconfig"


def possible() -> bool:
    """Whether docker answers and kind is there."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def up(say: Say) -> None:
    """Makes the cluster, unless it is there and answers."""
    there = NAME in _run("kind", "get", "clusters").split()
    if there and not _answers():
        say("kind's cluster does not answer: making it again")
        down()
        there = False
    if not there:
        say("making a cluster with kind")
        _run("kind", "create", "cluster", "--name", NAME, "--config", str(ROOT / "kind-config.yaml"), "--wait", "120s")
    STATE.mkdir(parents=True, exist_ok=True)
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(_run("kind", "get", "kubeconfig", "--name", NAME))


def down() -> None:
    """Deletes the cluster, if it is there."""
    if NAME in _run("kind", "get", "clusters").split():
        _run("kind", "delete", "cluster", "--name", NAME)
    KUBECONFIG.unlink(missing_ok=True)


def images() -> set[str]:
    """Names of the images that the node has."""
    return set(_run("docker", "exec", NODE, "ctr", "-n", "k8s.io", "images", "ls", "-q").split())


def build_image(name: str, wheel: Path) -> None:
    """Builds an image by operator/Dockerfile and gives it to the node."""
    # The node's own kubectl: a Linux program of the cluster's version, whatever this machine is.
    _run("docker", "cp", f"{NODE}:/usr/bin/kubectl", str(ROOT / "build" / "kubectl"))
    _run(
        "docker", "build", "-f", str(ROOT / "operator" / "Dockerfile"), "--target", name,
        "--build-arg", f"IMAGE={name}", "--build-arg", f"WHEEL=build/wheel/{wheel.name}",
        "-t", f"{name}:dev", str(ROOT),
    )  # fmt: skip
    _run("kind", "load", "docker-image", f"{name}:dev", "--name", NAME)


def import_image(archive: Path) -> None:
    """Gives the node an image."""
    _run("kind", "load", "image-archive", str(archive), "--name", NAME)


def _answers() -> bool:
    command = ["docker", "exec", NODE, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "get", "--raw", "/readyz"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command[:3])} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode()
