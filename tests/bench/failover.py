"""How soon somebody decides again: after kill -9, and after a planned handover."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from datetime import UTC, datetime

from tests.bench.one import GRANTS, added
from tests.bench.requests import request
from tests.bench.rig import OURS, Rig
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import SYSTEM, Json, until
from tests.cluster.replicas import LEADER, process, replica
from valetkey.kinds.base import format_time

PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
ACCOUNTS = "/api/v1/namespaces/valetkey-grants/serviceaccounts"


async def measure(rig: Rig, runs: int) -> tuple[list[float], list[float]]:
    """Seconds from the kill of the leader, and from its being told to stop, to the next decision; so many of each."""
    await rig.replicas(2)
    try:
        killed = [await _one(rig, f"killed-{run}", kill=True) for run in range(runs)]
        told = [await _one(rig, f"told-{run}", kill=False) for run in range(runs)]
    finally:
        await rig.replicas(1)
    return killed, told


async def lag(rig: Rig, changes: int) -> list[float]:
    """Milliseconds from a change of the Leader until `fence` refuses the replica that led before; no replica runs."""
    await rig.replicas(0)
    await rig.server.send("DELETE", LEADER, missing=True)
    at = format_time(datetime.now(UTC))
    spec = {"leaseDurationSeconds": 5, "acquireTime": at, "renewTime": at, "leaseTransitions": 0}
    body = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "Leader",
        "metadata": {"name": "valetkey"},
        "spec": spec | {"holderIdentity": "valetkey-0_uid-0"},
    }
    await rig.server.send("POST", LEADER.rpartition("/")[0], body, by=replica(0))
    lags = []
    for number in range(changes):
        before, after = number % 2, (number + 1) % 2

        async def settled(leads: int = before, follows: int = after) -> bool:
            return await _writes(rig, leads) and not await _writes(rig, follows)

        await until(settled, "the fence to know who leads")
        change = {"spec": {"holderIdentity": f"valetkey-{after}_uid-{after}"}}
        await rig.server.send("PATCH", LEADER, change, by=replica(before))
        began = time.perf_counter()
        while await _writes(rig, before):
            pass
        lags.append((time.perf_counter() - began) * 1000)
    await rig.server.send("DELETE", LEADER)
    await rig.replicas(1)
    return lags


async def _writes(rig: Rig, number: int) -> bool:
    uid = str(uuid.uuid4())
    body = {"metadata": {"name": f"valetkey-{uid}", "labels": {"valetkey.dev/request": uid}}}
    try:
        await rig.server.send("POST", f"{ACCOUNTS}?dryRun=All", body, by=replica(number))
    except RuntimeError:
        return False
    return True


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
    body: Json = await rig.server.send("GET", LEADER)
    return str(body["spec"]["holderIdentity"]).partition("_")[0]
