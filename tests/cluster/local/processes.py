"""Starts processes and ends them again: those that it started, and no others."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.local.places import LOGS, STATE, LocalClusterError

_PIDS = STATE / "pid"


def start(name: str, command: Sequence[str | Path], environment: Mapping[str, str] = os.environ) -> None:
    """Starts a process of its own session, unless it runs; its output is appended to `<name>.log`."""
    if running(name) is not None:
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    _PIDS.mkdir(parents=True, exist_ok=True)
    words = [str(part) for part in command]
    log = str(LOGS / f"{name}.log")
    # Not subprocess: its object warns when it is let go of while the process runs on, as it should here.
    pid = os.posix_spawnp(
        words[0],
        words,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE],  # which Python ignores, and its children would too
    )
    (_PIDS / name).write_text(f"{pid} {started_at(pid)}")


def running(name: str) -> int | None:
    """The id of a process that was started here and lives; the id's start time tells it from a later process."""
    try:
        pid, started = (_PIDS / name).read_text().split()
        return int(pid) if started_at(int(pid)) == started else None
    except (FileNotFoundError, ValueError):  # never started, or cut off while it was written down
        return None


def stop(name: str, *, patience: float = 10.0) -> None:
    """Ends a process, at last by force."""
    pid = running(name)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        if not wait(lambda: running(name) is None, patience):
            _signal(pid, signal.SIGKILL)
            wait(lambda: running(name) is None, 5.0)
    (_PIDS / name).unlink(missing_ok=True)


def kill(name: str) -> None:
    """Ends a process by force, at once, and waits until it is gone."""
    pid = running(name)
    if pid is not None:
        _signal(pid, signal.SIGKILL)
        # Its first thread may be gone while others still hold its ports.
        wait(lambda: _gone(pid), 10.0)


def started_at(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot; None for one that is gone or only not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def until(name: str, ready: Callable[[], bool], *, seconds: float) -> None:
    """Waits until a process serves; raises LocalClusterError with the end of its log where it does not."""
    if not wait(lambda: running(name) is None or ready(), seconds) or running(name) is None:
        tail = "\n".join((LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-20:])
        state = f"was not ready after {seconds:.0f} s" if running(name) is not None else "ended"
        raise LocalClusterError(f"{name} {state}; the end of its log:\n{tail}")


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return done()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    _reap(pid)


def _gone(pid: int) -> bool:
    _reap(pid)
    return not Path(f"/proc/{pid}").exists()


def _reap(pid: int) -> None:
    """Takes note of the end of a child of this very process, so that no trace of it is left."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
