"""An API server that is away for longer than any credential lives, while the time of a thousand grants runs out."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from tests.bench import ends, many
from tests.bench.one import GRANTS, removed
from tests.bench.rig import Rig, spread
from tests.bench.server import Watcher
from tests.cluster.api import GRANTS as ACCOUNTS
from tests.cluster.api import until
from tests.cluster.local import controlplane, processes

BARE = 200
"""Chains that the bare client ends, to tell how long it would take for all."""
TTL = "5m"


@dataclass(frozen=True)
class Outage:
    """What became of grants that should have ended while nobody could end them."""

    number: int
    away: timedelta
    ours: float
    """Seconds from the API server's return until the last binding was gone."""
    bare: float
    """Seconds that a bare client needs for the same writes, from fewer of them before the outage."""
    taken: int
    """Of fifty tokens, those that the API server still knew at its return."""
    left: list[str]
    """What was still there five minutes later: accounts, bindings, grants."""


async def measure(rig: Rig, number: int, away: timedelta) -> Outage:
    """Makes so many grants, takes the API server away until after they should have ended, and lets it come back."""
    agents = await many.agents(rig, number, "outage")
    few = agents[:BARE]
    rig.say(f"outage: the bare client ends {len(few)}")
    bare = await ends.bare_ends(rig, few, "bare-outage") * number / len(few)
    rig.say(f"outage: {number} grants of {TTL}")
    tokens = await ends.begin(rig, agents, [f"outage-{i}" for i in range(number)], TTL)
    rig.say(f"outage: {len(await ends.bound(rig))} are alive; the API server goes for {away.total_seconds():.0f} s")
    await asyncio.to_thread(processes.stop, "apiserver")
    await asyncio.sleep(away.total_seconds())
    await asyncio.to_thread(controlplane.up)
    began = time.perf_counter()
    # Some of them: the operator is at work already.
    answers = await spread(16, [rig.server.status(_PATH, token) for token in tokens[:: number // 50]])
    taken = sum(status != 401 for status in answers)
    async with Watcher(rig.server, ends.BINDINGS, removed) as bindings:
        made = await ends.bound(rig)
        rig.say(f"outage: it is back; {taken} of {len(answers)} tokens are taken, {len(made)} bindings are left")
        last = max([(await bindings.when(name, seconds=600))[0] for name in made], default=began)
    rig.say(f"outage: the last binding went after {last - began:.1f} s")
    left: list[str] = []

    async def cleared_up() -> bool:
        left[:] = await _left(rig)
        return not left

    with suppress(TimeoutError):  # all were denied first
        await until(cleared_up, "all to be cleared up", seconds=300, pause=2)
    return Outage(number, away, last - began, bare, taken, left)


_PATH = "/api/v1/namespaces/default/configmaps/any"


async def _left(rig: Rig) -> list[str]:
    accounts = await rig.server.send("GET", f"/api/v1/namespaces/{ACCOUNTS}/serviceaccounts")
    grants = await rig.server.send("GET", GRANTS)
    found = [body["metadata"]["name"] for body in (*accounts["items"], *grants["items"])]
    return [name for name in found if name != "default"] + await ends.bound(rig)
