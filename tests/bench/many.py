"""Rows 2, 5, 7 and 8: many grants at once, and a thousand that live and end by their time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.bench.one import GRANTS, SECRETS, added, removed
from tests.bench.requests import copied, grant, request
from tests.bench.rig import OURS, Rig, spread
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import Json
from tests.cluster.audit_log import operators
from tests.cluster.local.places import AUDIT_LOG
from tests.cluster.replicas import process

PACE = 8
"""Grants asked for each second where a thousand are to live: their ends come at the same pace."""


Agents = Sequence[tuple[Json, str]]
"""Pods and their tokens."""


async def agents(rig: Rig, number: int, prefix: str = "burst") -> Agents:
    """So many pods that may ask."""
    rig.say(f"{number} at once: pods and tokens")
    pods = await rig.pods(prefix, number)
    return list(zip(pods, await spread(16, [rig.token(pod) for pod in pods]), strict=True))


async def burst(rig: Rig, of: Agents, round_: int) -> float:
    """Grants per second where all ask at once; all are over when it returns.

    Raises RuntimeError where one is lost or made twice.
    """
    rig.say(f"{len(of)} at once: valetkey")
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    names = [f"burst-{round_}-{i}" for i in range(len(of))]
    bodies = [request(name, pod, token) for name, (pod, token) in zip(names, of, strict=True)]
    async with Watcher(rig.server, SECRETS, added) as secrets, Watcher(rig.server, GRANTS, removed) as gone:
        began = time.perf_counter()
        asked = zip(bodies, of, strict=True)
        await asyncio.gather(*(rig.server.send("POST", path, body, token=token) for body, (_, token) in asked))
        seen = [await secrets.when(f"valetkey-{pod['metadata']['name']}") for pod, _ in of]
        pace = len(of) / (max(at for at, _ in seen) - began)
        rig.say(f"{len(of)} at once: all are readable, {pace:.1f} each second")
        await asyncio.sleep(3)
        await _each_once(rig, names)
        for name, (_, token) in zip(names, of, strict=True):
            await rig.server.send("PATCH", f"{path}/{name}", {"spec": {"outcome": "Succeeded"}}, token=token)
        for name in names:
            await gone.when(name)
        await asyncio.sleep(2)  # the last Events are on their way
    return pace


async def bare_burst(rig: Rig, of: Agents, round_: int) -> float:
    """The same of the bare client with 32 workers."""
    rig.say(f"{len(of)} at once: bare client")
    names = [f"bare-burst-{round_}-{i}" for i in range(len(of))]
    async with Watcher(rig.server, SECRETS, added) as secrets:
        jobs = [
            rig.bare.begin(name, copied(request(name, pod, token)), grant(name, pod), pod)
            for name, (pod, token) in zip(names, of, strict=True)
        ]
        began = time.perf_counter()
        made = await spread(32, jobs)
        pace = len(of) / (max([(await secrets.when(name))[0] for name in names]) - began)
    rig.say(f"{len(of)} at once: all of the bare client's are readable, {pace:.1f} each second")
    ends = zip(names, made, of, strict=True)
    await spread(16, [rig.bare.end(name, uids, pod) for name, (_, uids), (pod, _) in ends])
    return pace


@dataclass(frozen=True)
class Thousand:
    """What a thousand live grants cost, and how late they end."""

    handed: list[float]
    """Milliseconds from the end of a grant's time to its key in a worker's hands."""
    written: list[float]
    """Milliseconds from the end of a grant's time to the first write of its revocation at the API server."""
    memory: float
    """Megabytes that the operator holds while all live."""
    syncs: list[float]
    """Milliseconds that a bare client's log record took to be on disk, while the grants ended."""


async def thousand(rig: Rig, number: int) -> Thousand:
    """Grants made at a pace that their revocations can keep, all live at once, each ended by its own time."""
    rig.say(f"{number} live grants: pods and tokens")
    pods = await rig.pods("live", number)
    tokens = await spread(16, [rig.token(pod) for pod in pods])
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    names = [f"live-{i}" for i in range(number)]
    ttl = f"{number // PACE + 45}s"
    async with Watcher(rig.server, SECRETS, added) as secrets, Watcher(rig.server, GRANTS, removed) as gone:
        for i, (pod, token) in enumerate(zip(pods, tokens, strict=True)):
            if i % 200 == 0:
                rig.say(f"{number} live grants: {i} asked for, {PACE} each second")
            began = time.perf_counter()
            await rig.server.send("POST", path, request(names[i], pod, token, ttl), token=token)
            await asyncio.sleep(max(0, 1 / PACE - (time.perf_counter() - began)))
        for name in names:
            await secrets.when(f"valetkey-{name}")
        await asyncio.sleep(3)
        listed = await rig.server.send("GET", GRANTS)
        if len(listed["items"]) != number:
            raise RuntimeError(f"{len(listed['items'])} of {number} live at once: the machine is too slow for {PACE}/s")
        due = {grant["metadata"]["name"]: grant["spec"]["order"]["notAfter"] for grant in listed["items"]}
        memory = resident(process("valetkey-0"))
        rig.say(f"{number} live grants: waiting for their time")
        syncs: list[float] = []
        syncing = asyncio.create_task(_syncs(rig, syncs))
        for name in names:
            await gone.when(name, seconds=300)
        syncing.cancel()
    said = {record["request"]: record["at"] for record in rig.records() if record["reason"] == "TTLReached"}
    ended = {name: said[f"{AGENTS}/{name}"] for name in names}
    written = first_writes(AUDIT_LOG, due)
    return Thousand(
        handed=[milliseconds(due[name], ended[name]) for name in names],
        written=[milliseconds(due[name], written[name]) for name in names],
        memory=memory,
        syncs=syncs,
    )


async def _syncs(rig: Rig, took: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await rig.bare.sync()
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.05)


def first_writes(audit_log: Path, due: dict[str, str]) -> dict[str, str]:
    """When the first status of each grant's end came in at the API server."""
    found: dict[str, str] = {}
    for event in operators(audit_log):
        reference = event["objectRef"]
        name, at = reference.get("name", ""), event["requestReceivedTimestamp"]
        if reference["resource"] == "taskgrants" and event["verb"] == "patch" and name in due and at >= due[name]:
            found.setdefault(name, at)
    return found


async def _each_once(rig: Rig, names: list[str]) -> None:
    listed = await rig.server.send("GET", GRANTS)
    ids = [body["status"]["credential"]["id"] for body in listed["items"] if body["metadata"]["name"] in names]
    issued = Counter(record["request"] for record in rig.records() if record["reason"] == "CredentialIssued")
    twice = [name for name in names if issued[f"{AGENTS}/{name}"] != 1]
    if len(set(ids)) != len(names) or twice:
        raise RuntimeError(f"{len(set(ids))} credentials for {len(names)} requests; not once: {twice[:5]}")


def resident(pid: int) -> float:
    """Megabytes that a process holds."""
    status: Json = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def milliseconds(earlier: str, later: str) -> float:
    """From one time to another, both as RFC 3339 has them."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds() * 1000
