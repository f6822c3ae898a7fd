"""What runs under our containerd, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tests.cluster.local.places import SOCKET
from tests.cluster.local.processes import started_at, wait


def ctr(*arguments: str) -> str | None:
    """What ctr says of our containerd; None if it fails or hangs."""
    try:
        done = subprocess.run(
            ["ctr", "--connect-timeout", "2s", "-a", str(SOCKET), "-n", "k8s.io", *arguments],
            capture_output=True,
            check=False,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode() if done.returncode == 0 else None


def clear() -> None:
    """Ends and removes every container."""
    for task in (ctr("tasks", "ls", "-q") or "").split():
        ctr("tasks", "kill", "-s", "SIGKILL", task)
    for container in (ctr("containers", "ls", "-q") or "").split():
        ctr("tasks", "rm", "-f", container)
        ctr("containers", "rm", container)
    if not wait(lambda: not _shims(), 5.0):
        for pid, started in _shims().items():
            # A shim that containerd has lost; it was started for our socket, so it is ours.
            if started_at(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _shims() -> dict[int, str]:
    """Shims of our containerd, by id, with their start times."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        started = started_at(pid)
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if started and Path(os.fsdecode(words[0])).name.startswith("containerd-shim") and os.fsencode(SOCKET) in words:
            found[pid] = started
    return found
