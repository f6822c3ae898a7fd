"""Many grants that end at once: from the first outcome to the refusal of the last credential."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.many import Agents
from tests.bench.one import GRANTS, SECRETS, added, removed
from tests.bench.requests import copied, grant, request
from tests.bench.rig import OURS, RBAC, Rig, spread
from tests.bench.server import AGENTS, SHOP, Watcher

BINDINGS = f"{RBAC}/namespaces/{SHOP}/rolebindings"
WORKERS = 32
_OF_A_GRANT = re.compile(r"valetkey-[0-9a-f]{8}-")
_AT_A_TIME = 20
"""Grants that are asked for together, so that all live before any ends."""


@dataclass(frozen=True)
class Ended:
    """Seconds until the last binding was gone."""

    ours: float
    bare: float
    bindings: float
    """Of a bare client that deletes the bindings and does nothing else."""


async def measure(rig: Rig, of: Agents, round_: int) -> Ended:
    """Ends all of both sides' grants at once, one side after the other, and tries every token afterwards."""
    number = len(of)
    rig.say(f"{number} ended at once: valetkey")
    ours = await _ours(rig, of, round_)
    rig.say(f"{number} ended at once: all are refused after {ours:.2f} s; the bare client")
    bare, bindings = await _bare(rig, of, round_)
    rig.say(
        f"{number} ended at once: all of the bare client's after {bare:.2f} s; by their bindings alone {bindings:.2f} s"
    )
    return Ended(ours, bare, bindings)


async def _ours(rig: Rig, of: Agents, round_: int) -> float:
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    names = [f"ends-{len(of)}-{round_}-{i}" for i in range(len(of))]
    async with Watcher(rig.server, BINDINGS, removed) as bindings, Watcher(rig.server, GRANTS, removed) as gone:
        tokens = await begin(rig, of, names, "50m")
        made = await bound(rig)
        if len(made) < len(of):
            raise RuntimeError(f"{len(made)} of {len(of)} are alive")
        await asyncio.sleep(3)  # what their beginning left to do is done
        began = time.perf_counter()
        outcome = {"spec": {"outcome": "Succeeded"}}
        asked = zip(names, of, strict=True)
        await spread(WORKERS, [rig.server.send("PATCH", f"{path}/{n}", outcome, token=t) for n, (_, t) in asked])
        last = max([(await bindings.when(name, seconds=300))[0] for name in made])
        await _all_refused(rig, tokens)
        for name in names:
            await gone.when(name, seconds=300)
        await asyncio.sleep(2)
    return last - began


async def begin(rig: Rig, of: Agents, names: Sequence[str], ttl: str) -> list[str]:
    """Asks for a grant for each agent, a few at a time, and waits for all; gives their credentials."""
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    tokens = []
    async with Watcher(rig.server, SECRETS, added) as secrets:
        for first in range(0, len(of), _AT_A_TIME):
            some = list(zip(names, of, strict=True))[first : first + _AT_A_TIME]
            for name, (pod, token) in some:
                await rig.server.send("POST", path, request(name, pod, token, ttl), token=token)
            for _, (pod, _) in some:
                _, secret = await secrets.when(f"valetkey-{pod['metadata']['name']}")
                tokens.append(base64.b64decode(secret["data"]["token"]).decode())
    return tokens


async def bound(rig: Rig) -> list[str]:
    """The bindings of grants that there are."""
    listed = await rig.server.send("GET", BINDINGS)
    found = [body["metadata"]["name"] for body in listed["items"]]
    return [name for name in found if _OF_A_GRANT.match(name)]


async def bare_ends(rig: Rig, of: Agents, prefix: str) -> float:
    """Seconds until the last binding of so many chains of the bare client is gone, with all that goes with it."""
    names, made = await _bare_made(rig, of, prefix)
    async with Watcher(rig.server, BINDINGS, removed) as bindings:
        began = time.perf_counter()
        ends = zip(names, made, of, strict=True)
        await spread(WORKERS, [rig.bare.end(name, uids, pod) for name, (_, uids), (pod, _) in ends])
        return max([(await bindings.when(name, seconds=300))[0] for name in names]) - began


async def bare_rate(rig: Rig, of: Agents, prefix: str) -> float:
    """How many chains the bare client ends each second, with all that goes with each."""
    names, made = await _bare_made(rig, of, prefix)
    began = time.perf_counter()
    ends = zip(names, made, of, strict=True)
    await spread(WORKERS, [rig.bare.end(name, uids, pod) for name, (_, uids), (pod, _) in ends])
    return len(of) / (time.perf_counter() - began)


async def _bare(rig: Rig, of: Agents, round_: int) -> tuple[float, float]:
    last = await bare_ends(rig, of, f"bare-ends-{len(of)}-{round_}")
    names, made = await _bare_made(rig, of, f"bare-alone-{len(of)}-{round_}")
    async with Watcher(rig.server, BINDINGS, removed) as bindings:
        began = time.perf_counter()
        await spread(WORKERS, [rig.server.send("DELETE", f"{BINDINGS}/{name}") for name in names])
        alone = max([(await bindings.when(name, seconds=300))[0] for name in names]) - began
    ends = zip(names, made, of, strict=True)
    await spread(WORKERS, [rig.bare.end(name, uids, pod) for name, (_, uids), (pod, _) in ends])
    return last, alone


async def _bare_made(rig: Rig, of: Agents, prefix: str) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    names = [f"{prefix}-{i}" for i in range(len(of))]
    jobs = [
        rig.bare.begin(name, copied(request(name, pod, token)), grant(name, pod), pod)
        for name, (pod, token) in zip(names, of, strict=True)
    ]
    made = await spread(16, jobs)
    await asyncio.sleep(2)
    return names, made


async def _all_refused(rig: Rig, tokens: list[str]) -> None:
    """The authorizer hears of a deletion when a watch does: now, or some milliseconds later."""
    await spread(16, [asyncio.wait_for(rig.server.refused(token), 5) for token in tokens])
