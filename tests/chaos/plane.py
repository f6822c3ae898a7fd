"""A control plane of its own, to be killed, and to be given back the store of an earlier moment."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.local import pki, ports, processes
from tests.cluster.local.controlplane import Plane
from tests.cluster.local.places import LOGS, STATE, LocalClusterError

FOLDER: Final = STATE / "chaos"
PLANE: Final = Plane(
    state=FOLDER,
    audit_log=FOLDER / "audit.log",
    address="127.0.0.1",
    port=26443,
    etcd=26790,
    peer=26800,
    controllers=26357,
)
PARTS: Final = ("etcd", "apiserver", "controller-manager")
_PATIENCE: Final = 90.0


class ThrowawayPlane:
    """etcd, API server and controller-manager; without a node, for pods are paper."""

    async def __aenter__(self) -> ThrowawayPlane:
        await self.kill(*reversed(PARTS))  # what a run that was cut off has left
        for port in (PLANE.port, PLANE.etcd, PLANE.peer, PLANE.controllers):
            if holder := ports.holder("127.0.0.1", port):
                raise LocalClusterError(f"127.0.0.1:{port} is held by {holder}: end it first")
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True, mode=0o700)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(pki.kubeconfig("admin").read_text().replace(_server_of("admin"), PLANE.server))
        try:
            await self.start(*PARTS)
        except BaseException:
            await self.kill(*reversed(PARTS))
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill(*reversed(PARTS))

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return FOLDER / "admin.kubeconfig"

    async def start(self, *parts: str) -> None:
        """Starts parts, one after the other, each when the one before it serves; raises LocalClusterError."""
        commands = {
            "etcd": PLANE.etcd_command,
            "apiserver": PLANE.apiserver_command,
            "controller-manager": PLANE.controllers_command,
        }
        for part in parts:
            (LOGS / f"chaos-{part}.log").unlink(missing_ok=True)
            processes.start(f"chaos-{part}", commands[part]())
            ready = partial(PLANE.ready, part)
            await asyncio.to_thread(processes.until, f"chaos-{part}", ready, seconds=_PATIENCE)

    async def kill(self, *parts: str) -> None:
        """Ends parts with SIGKILL."""
        for part in parts:
            await asyncio.to_thread(processes.kill, f"chaos-{part}")

    async def restart(self, part: str) -> None:
        """Kills a part and starts it again."""
        await self.kill(part)
        await self.start(part)

    async def snapshot(self) -> None:
        """Stops etcd, copies its data, and starts it again."""
        await asyncio.to_thread(processes.stop, "chaos-etcd")
        await asyncio.to_thread(shutil.copytree, FOLDER / "etcd", FOLDER / "snapshot")
        await self.start("etcd")

    async def restore(self) -> None:
        """Kills everything, and starts it with the data of the snapshot."""
        await self.kill(*reversed(PARTS))
        await asyncio.to_thread(shutil.rmtree, FOLDER / "etcd")
        (FOLDER / "snapshot").rename(FOLDER / "etcd")
        await self.start(*PARTS)


def _server_of(name: str) -> str:
    text = pki.kubeconfig(name).read_text()
    return text.partition('server: "')[2].partition('"')[0]
