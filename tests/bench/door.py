"""The same by the door: what a pod that never talks to the API server waits for."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench import sdk
from tests.bench.one import GRANTS, removed
from tests.bench.rig import VALUES, Rig
from tests.bench.server import Watcher
from tests.cluster.api import SYSTEM, merged, until
from tests.cluster.local import pki
from tests.unit.controller.test_listener import free

SECRET = "bench-door"


@asynccontextmanager
async def opened(rig: Rig) -> AsyncIterator[None]:
    """The chart with its door, and an environment that says where it is."""
    folder, port = sdk.HERE / "door", free()
    folder.mkdir(parents=True)
    pki.authority(folder)
    pki.certificate(folder, "door", "/CN=door")
    files = (("tls.crt", "door.crt"), ("tls.key", "door.key"))
    data = {name: base64.b64encode((folder / file).read_bytes()).decode() for name, file in files}
    secrets = f"/api/v1/namespaces/{SYSTEM}/secrets"
    await rig.server.send("DELETE", f"{secrets}/{SECRET}", missing=True)
    await rig.server.send("POST", secrets, {"metadata": {"name": SECRET}, "type": "kubernetes.io/tls", "data": data})
    await rig.upgrade(merged(VALUES, {"door": {"enabled": True, "tlsSecret": SECRET, "port": port}}))
    said = {"VALETKEY_DOOR": f"https://127.0.0.1:{port}", "VALETKEY_DOOR_CA": str(folder / "ca.crt")}

    async def ready() -> bool:
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/valetkey-door"
        return bool((await rig.server.send("GET", path))["status"].get("readyReplicas"))

    await until(ready, "the door to be open", seconds=60)
    _environment(said)
    try:
        yield
    finally:
        _environment(dict.fromkeys(said, ""))
        await rig.upgrade(VALUES)


async def measure(rig: Rig, number: int) -> dict[str, list[float]]:
    """Milliseconds from entering to having access, by the door and by the API server in turn."""
    times: dict[str, list[float]] = {"door": [], "straight": []}
    pod = await rig.pod("sdk-door")
    straight = await sdk.mount(rig, pod)
    there = await sdk.mount(rig, await rig.pod("sdk-door-only"), audience="valetkey")
    said = {name: os.environ[name] for name in ("VALETKEY_DOOR", "VALETKEY_DOOR_CA")}
    async with Watcher(rig.server, GRANTS, removed) as gone:
        for index in range(number):
            if index % 50 == 0:
                rig.say(f"access by the door: {index} of {number}")
            for way, where, environment in (("door", there, said), ("straight", straight, dict.fromkeys(said, ""))):
                _environment(environment)
                ready, _, name = await sdk.block(rig, sdk.straight, where, f"{way}-{index}")
                await gone.when(name)
                times[way].append(ready)
    _environment(said)
    return times


def _environment(said: dict[str, str]) -> None:
    os.environ.update(said)
