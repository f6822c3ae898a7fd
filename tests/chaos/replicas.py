"""The operator's replicas as processes of this machine, started again whenever they end, as a kubelet would."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Final

from tests.chaos.plane import FOLDER
from tests.cluster.api import Json
from tests.cluster.local import pki, processes
from tests.cluster.local.packages import faketime
from tests.cluster.local.places import LOGS

NAMES: Final = ("valetkey-0", "valetkey-1")
HOUR: Final = 3600
"""Seconds by which their clocks are set wrong."""
_AGAIN_AFTER: Final = (0.5, 6.0)
"""Seconds: now sooner than the other replica can take over, now later; by the next kill both are there again."""


class Replica:
    """One of them, with the token of its pod and a clock that can be wrong."""

    def __init__(self, pod: Json, token: str, settings: Json, guards: str, port: int) -> None:
        self.name: str = pod["metadata"]["name"]
        self._uid: str = pod["metadata"]["uid"]
        self._folder: Path = FOLDER / self.name
        self._port = port
        self._process = f"chaos-{self.name}"
        self._keeper: asyncio.Task[None] | None = None
        account = self._folder / "account"
        account.mkdir(parents=True)
        (self._folder / "run").mkdir()
        (account / "token").write_text(token)
        (account / "ca.crt").write_bytes((pki.PKI / "ca.crt").read_bytes())
        (account / "namespace").write_text("valetkey-system")
        (self._folder / "guards.json").write_text(guards)
        own = {
            "accountDirectory": str(account),
            "logDirectory": str(self.log),
            "guards": str(self._folder / "guards.json"),
            "runDirectory": str(self._folder / "run"),
        }
        (self._folder / "settings.json").write_text(json.dumps(settings | own))
        self.set_clock(0)

    @property
    def log(self) -> Path:
        """Where its records are."""
        return self._folder / "log"

    def said(self) -> dict[str, bytes]:
        """All that it has written down, by file: its records and its output."""
        paths = (*self.log.glob("*.jsonl"), LOGS / f"{self._process}.log")
        return {f"{self.name}'s {path.name}": path.read_bytes() for path in paths if path.exists()}

    @property
    def identity(self) -> str:
        """How the Leader names it."""
        return f"{self.name}_{self._uid}"

    async def try_clock(self) -> None:
        """Lets a process of the same environment tell the time; raises RuntimeError where its clock cannot be moved."""
        self.set_clock(HOUR)
        command = (sys.executable, "-c", "import time; print(time.time())")
        asked = await asyncio.create_subprocess_exec(*command, env=self._environment(), stdout=asyncio.subprocess.PIPE)
        told, _ = await asked.communicate()
        ahead = float(told) - time.time()
        self.set_clock(0)
        if abs(ahead - HOUR) > 60:
            raise RuntimeError(f"a replica's clock was to be an hour ahead and is {ahead:.0f} s: see {faketime()}")

    def set_clock(self, seconds: int) -> None:
        """Moves its clock that far from the machine's; within a second or two it sees that."""
        draft = self._folder / "clock.draft"
        draft.write_text(f"{seconds:+d}\n")
        draft.rename(self._folder / "clock")

    def keep_running(self) -> None:
        """Starts it, again and again."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def kill(self) -> None:
        """Ends it with SIGKILL; it comes again."""
        await asyncio.to_thread(processes.kill, self._process)

    async def stop(self) -> None:
        """Tells it to stop; it stays away."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.to_thread(processes.stop, self._process, patience=15)

    async def _keep(self) -> None:
        settings = self._folder / "settings.json"
        while True:
            if processes.running(self._process) is None:
                await asyncio.sleep(random.uniform(*_AGAIN_AFTER))
                command = (sys.executable, "-m", "valetkey", "operator", "--settings", settings)
                processes.start(self._process, command, self._environment())
            await asyncio.sleep(0.2)

    def _environment(self) -> dict[str, str]:
        if (library := faketime()) is None:
            raise RuntimeError("clocks cannot be moved without libfaketime: apt-get install libfaketime")
        return os.environ | {
            "POD_NAME": self.name,
            "POD_UID": self._uid,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._port),
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / "clock"),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }
