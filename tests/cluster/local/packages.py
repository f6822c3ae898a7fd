"""Debian's part: container runtime, network plugins, a static busybox, openssl, a clock to move; Node for a client."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local.places import LocalClusterError, Say

BUSYBOX: Final = Path("/bin/busybox")
_TOOLS: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "openssl": "openssl",
    "node": "nodejs",
}
_PLUGINS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


def install(say: Say) -> None:
    """Installs what is missing, and only that."""
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if not loopback().exists():
        missing.add("containernetworking-plugins")
    if not _static(BUSYBOX):
        missing.add("busybox-static")
    if faketime() is None:
        missing.add("libfaketime")
    if not missing:
        return
    names = sorted(missing)
    if shutil.which("apt-get") is None:
        raise LocalClusterError(f"install {', '.join(names)}: pods need them")
    say(f"installing {', '.join(names)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *names]):
        done = subprocess.run(command, capture_output=True, env=quiet, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")


def loopback() -> Path:
    """The CNI plugin that every node needs."""
    return next((folder for folder in _PLUGINS if (folder / "loopback").exists()), _PLUGINS[0]) / "loopback"


def faketime() -> Path | None:
    """The library that gives a process a clock of its own."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def _static(program: Path) -> bool:
    """Whether it runs in an image that holds nothing else."""
    if not program.exists():
        return False
    with program.open("rb") as content:
        return b"/ld-" not in content.read(4096)
