"""How soon somebody decides again: after kill -9, and after a planned handover."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.bench.one import GRANTS, added
from tests.bench.requests import request
from tests.bench.rig import OURS, Rig
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import SYSTEM, Json
from tests.cluster.replicas import process

PODS = f"/api/v1/namespaces/{SYSTEM}/pods"


async def measure(rig: Rig, runs: int) -> tuple[list[float], list[float]]:
    """Seconds from the kill of the leader, and from its being told to stop, to the next decision; so many of each."""
    await rig.replicas(2)
    try:
        killed = [await _one(rig, f"killed-{run}", kill=True) for run in range(runs)]
        told = [await _one(rig, f"told-{run}", kill=False) for run in range(runs)]
    finally:
        await rig.replicas(1)
    return killed, told


async def _one(rig: Rig, name: str, *, kill: bool) -> float:
    leader = await _leader(rig)
    rig.say(f"{'kill -9' if kill else 'handover'} of {leader}: {name}")
    pod = await rig.pod(name)
    token = await rig.token(pod)
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    async with Watcher(rig.server, GRANTS, added) as grants:
        began = time.perf_counter()
        if kill:
            os.kill(process(leader), signal.SIGKILL)
        else:
            await rig.server.send("DELETE", f"{PODS}/{leader}")
        await rig.server.send("POST", path, request(name, pod, token), token=token)
        at, _ = await grants.when(name)
    if kill:  # a fresh pod has no back-off
        await rig.server.send("DELETE", f"{PODS}/{leader}?gracePeriodSeconds=1")
    await rig.server.send("DELETE", f"{path}/{name}")
    await asyncio.sleep(2)
    await rig.replicas(2)
    await asyncio.sleep(2)
    return at - began


async def _leader(rig: Rig) -> str:
    body: Json = await rig.server.send("GET", f"{OURS}/namespaces/{SYSTEM}/leaders/valetkey")
    return str(body["spec"]["holderIdentity"]).partition("_")[0]
