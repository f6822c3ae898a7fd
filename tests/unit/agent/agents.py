"""What an agent does in these tests, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import valetkey
from tests.unit.agent.apiserver import Apiserver

ACCESS = "shop: get,patch deployments.apps/checkout"


def access(server: Apiserver, **options: Any) -> Any:
    """Access for the one task that most tests are about."""
    said = {"purpose": "remediation", "objective": "restart checkout", "access": ACCESS} | options
    return valetkey.access(**{"account_directory": server.account, "timeout": 10, **said})


def undisturbed() -> None:
    """Signals end a process as they do in a terminal, however these tests were started: what runs in the background
    has some of them ignored, and hands that on."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def process(server: Apiserver, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of the agent; `opened` in its code is that access."""
    begin = f"""
import asyncio, os, signal, subprocess, sys, time, valetkey
from pathlib import Path
def opened(**options):
    said = dict(account_directory={str(server.account)!r}, timeout=10) | options
    return valetkey.access("remediation", "restart checkout", {ACCESS!r}, **said)
"""
    return subprocess.Popen(
        [sys.executable, "-c", begin + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        preexec_fn=undisturbed,
    )


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """What became of a process."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def soon(condition: Callable[[], Any], what: str, seconds: float = 10) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)


def entries() -> list[Path]:
    """What is left in the state directory."""
    return sorted(p for pod in Path(os.environ["VALETKEY_STATE_DIRECTORY"]).glob("*") for p in pod.iterdir())


def shown(directory: Path) -> set[str]:
    """The names of the files that a program sees."""
    return {path.name for path in directory.iterdir() if not path.name.startswith("..")}


def command(server: Apiserver, *arguments: str) -> subprocess.Popen[str]:
    """`valetkey run` or `valetkey sidecar`, asking for that access."""
    name, *rest = arguments
    said = ["--purpose", "remediation", "--access", ACCESS, "--account-directory", str(server.account), *rest]
    return subprocess.Popen(
        [sys.executable, "-m", "valetkey", name, *said],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        preexec_fn=undisturbed,
    )
