"""Ten thousand live grants: a cold start among them, what each weighs and costs, and how late some of them end.

Their objects are written as the operator writes them, without accounts and Secrets: to make all of them through the
whole path would take a quarter of an hour and end in the same cache.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench import ends, many
from tests.bench.many import first_writes, milliseconds, resident
from tests.bench.one import GRANTS, SECRETS, added, removed
from tests.bench.requests import grant, request
from tests.bench.rig import CROWD, OURS, Rig, spread
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import OPERATOR, SYSTEM, Caller, Json
from tests.cluster.audit_log import count
from tests.cluster.local.places import AUDIT_LOG
from tests.cluster.replicas import process
from valetkey.kinds.base import format_seconds, format_time

WRITERS = 24
LIVES = timedelta(minutes=50)
SAMPLES = 500
"""Grants of the crowd whose time is over while it is measured."""
BARE = 100
"""Chains that the bare client ends, to tell at which pace those are to end."""
_REQUESTS = f"{OURS}/namespaces/{AGENTS}/accessrequests"


@dataclass(frozen=True)
class Crowd:
    """What so many live grants cost."""

    number: int
    start: float
    """Seconds from the start of the operator's process to its first decision."""
    memory: float
    """Megabytes that the operator holds."""
    each: float
    """Kilobytes for each live grant."""
    pace: float
    """Ends each second while lateness was measured: half of what the bare client does."""
    lateness: list[float]
    """Milliseconds from the end of a grant's time to the first write of its revocation at the API server."""
    cpu: float
    """Milliseconds of the operator's CPU for one grant more, and the same at few live grants."""
    cpu_few: float
    calls: float
    """API calls of one grant more, and the same at few live grants."""
    calls_few: float


async def measure(rig: Rig, number: int, *, few: int = 100) -> Crowd:
    """Makes few live grants and measures, then as many as are asked for, and measures again."""
    rig.say(f"the bare client ends {BARE}")
    pace = await ends.bare_rate(rig, await many.agents(rig, BARE, "pace"), "bare-pace") / 2
    rig.say(f"half of its rate is {pace:.1f} each second")
    await _begin(rig, few, first=0)
    base = resident(process("valetkey-0"))
    cpu_few, calls_few = await _cost(rig, "few")
    rig.say(f"{few} live grants: {cpu_few:.1f} ms of CPU and {calls_few:.1f} calls for one more")
    await rig.replicas(0)
    samples = min(SAMPLES, number // 4)
    soonest = datetime.now(UTC) + timedelta(seconds=number / 25 + 150)
    due = [soonest + timedelta(seconds=place / pace) for place in range(samples)]
    await _begin(rig, number - few, first=few, due=due, running=False)
    start = await _cold(rig)
    await asyncio.sleep(5)
    memory = resident(process("valetkey-0"))
    rig.say(f"{number} live grants: first decision after {start:.2f} s, {memory:.0f} MB")
    cpu, calls = await _cost(rig, "many")
    rig.say(f"{number} live grants: {cpu:.1f} ms of CPU and {calls:.1f} calls for one more")
    lateness = await _late(rig, due)
    await _take_away(rig, number)
    return Crowd(
        number=number,
        start=start,
        memory=memory,
        each=(memory - base) * 1024 / (number - few),
        pace=pace,
        lateness=lateness,
        cpu=cpu,
        cpu_few=cpu_few,
        calls=calls,
        calls_few=calls_few,
    )


async def _begin(rig: Rig, number: int, *, first: int, due: Sequence[datetime] = (), running: bool = True) -> None:
    """Writes so many requests and grants of them; the first of them end by their time when they are `due`."""
    policy = await rig.server.send("GET", f"{OURS}/agentpolicies/bench")
    if running:
        await rig.replicas(0)
    # With nobody leading and no Leader the fence is open to whoever has the operator's name.
    await rig.server.send("DELETE", f"{OURS}/namespaces/{SYSTEM}/leaders/valetkey", missing=True)
    began = time.perf_counter()

    async def one(index: int) -> None:
        if index % 1000 == 0:
            rig.say(f"writing live grants: {index}, after {time.perf_counter() - began:.0f} s")
        pod = await rig.pod(f"crowd-{index}", account=CROWD)
        place = index - first
        await _grant(rig, f"crowd-{index}", pod, policy, due[place] if place < len(due) else None)

    await spread(WRITERS, [one(index) for index in range(first, first + number)])
    if running:
        await rig.replicas(1)
        await asyncio.sleep(5)


async def _grant(rig: Rig, name: str, pod: Json, policy: Json, due: datetime | None) -> None:
    meta, now = pod["metadata"], datetime.now(UTC)
    token = str(uuid.uuid4())
    body = request(name, pod, "", "50m", credential=token)
    asked = await rig.server.send("POST", _REQUESTS, body, by=_agent(meta, token))
    uid = asked["metadata"]["uid"]
    until = due or now + LIVES
    live = grant(name, pod)
    live["apiVersion"] = "valetkey.dev/v1alpha1"
    live["metadata"] |= {"finalizers": ["valetkey.dev/revoke"], "labels": {"valetkey.dev/request": uid}}
    spec = live["spec"]
    spec["request"]["uid"] = spec["order"]["requestUID"] = uid
    spec["order"] |= {"openedAt": format_time(now), "notAfter": format_time(until)}
    spec["order"]["policy"] |= {"uid": policy["metadata"]["uid"], "generation": policy["metadata"]["generation"]}
    plan = spec["plan"]["kubernetes"]
    plan["account"]["name"] = f"valetkey-{uid}"
    for entry in plan["objects"]:
        entry["name"] = f"valetkey-{uid}-0"
    await rig.server.send("POST", GRANTS, live, by=_OPERATOR)
    condition = {"status": "True", "message": "", "lastTransitionTime": format_seconds(now)}
    issued, delivered = condition | {"type": "Issued", "reason": "CredentialIssued"}, condition | {"type": "Delivered"}
    status = {
        "conditions": [issued, delivered | {"reason": "CredentialDelivered"}],
        "credential": {
            "id": f"JTI={token}",
            "username": f"system:serviceaccount:valetkey-grants:valetkey-{uid}",
            "issuedAt": format_time(now),
            "expiresAt": format_time(until + timedelta(minutes=1)),
        },
    }
    await rig.server.send("PATCH", f"{GRANTS}/{name}/status", {"status": status}, by=_OPERATOR)


_OPERATOR = Caller(user=OPERATOR, groups=("system:masters",))


def _agent(meta: Json, token: str) -> Caller:
    key = "authentication.kubernetes.io"
    extra = {
        f"{key}/pod-name": (meta["name"],),
        f"{key}/pod-uid": (meta["uid"],),
        f"{key}/node-name": ("bench-node",),
        f"{key}/credential-id": (f"JTI={token}",),
    }
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{AGENTS}")
    return Caller(user=f"system:serviceaccount:{AGENTS}:{CROWD}", groups=groups, extra=extra)


async def _cold(rig: Rig) -> float:
    """Starts the operator while somebody waits for access; seconds from the start of its process to the decision."""
    pod = await rig.pod("cold")
    token = await rig.token(pod)
    await rig.server.send("POST", _REQUESTS, request("cold", pod, token), token=token)
    async with Watcher(rig.server, GRANTS, added) as grants:
        starting = asyncio.create_task(rig.replicas(1))
        await grants.when("cold", seconds=180)
        decided = time.clock_gettime(time.CLOCK_BOOTTIME)
        await starting
    return decided - _started(process("valetkey-0"))


async def _cost(rig: Rig, prefix: str, number: int = 240) -> tuple[float, float]:
    """CPU milliseconds and API calls for one grant, beginning and end, of a pod that asks again and again."""
    agents = [(pod := await rig.pod(f"{prefix}-{i}"), await rig.token(pod)) for i in range(8)]
    await _settled(rig)
    since, cpu = datetime.now(UTC), _cpu(process("valetkey-0"))
    async with Watcher(rig.server, SECRETS, added) as secrets, Watcher(rig.server, GRANTS, removed) as gone:
        for index in range(number):
            pod, token = agents[index % len(agents)]
            name, secret = f"{prefix}-{index}", f"valetkey-{pod['metadata']['name']}"
            secrets.forget(secret)
            await rig.server.send("POST", _REQUESTS, request(name, pod, token), token=token)
            await secrets.when(secret)
            path = f"{_REQUESTS}/{name}"
            await rig.server.send("PATCH", path, {"spec": {"outcome": "Succeeded"}}, token=token)
            await gone.when(name)
    await asyncio.sleep(1)
    spent = (_cpu(process("valetkey-0")) - cpu) * 1000 / number
    return spent, sum(count(AUDIT_LOG, since, datetime.now(UTC)).values()) / number


async def _settled(rig: Rig) -> None:
    """Waits until the operator has done what its start gave it to do: that is no grant's cost."""
    pid = process("valetkey-0")
    for _ in range(40):
        before = _cpu(pid)
        await asyncio.sleep(3)
        if _cpu(pid) - before < 0.3:
            return
    raise RuntimeError("after two minutes the operator still has much to do")


async def _late(rig: Rig, times: Sequence[datetime]) -> list[float]:
    listed = (await rig.server.send("GET", GRANTS))["items"]
    last = times[-1] + timedelta(seconds=1)
    due = {
        body["metadata"]["name"]: body["spec"]["order"]["notAfter"]
        for body in listed
        if datetime.fromisoformat(body["spec"]["order"]["notAfter"]) < last
    }
    if len(due) < len(times):
        raise RuntimeError(f"{len(times) - len(due)} ended before they were measured: the machine is too slow")
    rig.say(f"waiting for {len(due)} of {len(listed)} live grants to end by their time")
    async with Watcher(rig.server, GRANTS, removed) as gone:
        for name in due:
            await gone.when(name, seconds=600)
    written = first_writes(AUDIT_LOG, due)
    return [milliseconds(at, written[name]) for name, at in due.items()]


async def _take_away(rig: Rig, number: int) -> None:
    """Lets the grants go without the operator: there is nothing behind them to revoke."""
    rig.say(f"taking {number} away")
    await rig.replicas(0)
    await rig.server.send("DELETE", f"{OURS}/namespaces/{SYSTEM}/leaders/valetkey", missing=True)

    async def one(index: int) -> None:
        path = f"{GRANTS}/crowd-{index}"
        await rig.server.send("DELETE", path, missing=True)
        await rig.server.send("PATCH", path, {"metadata": {"finalizers": None}}, by=_OPERATOR, missing=True)

    await spread(WRITERS, [one(index) for index in range(number)])
    await rig.replicas(1)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used: user and system, proc(5)."""
    return _stat(pid, 14) + _stat(pid, 15)


def _started(pid: int) -> float:
    """When a process began, in seconds since the machine's start, proc(5)."""
    return _stat(pid, 22)


def _stat(pid: int, number: int) -> float:
    """Seconds that stand in a field of a process's stat; the first after its name is the third."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[number - 3]) / os.sysconf("SC_CLK_TCK")
