"""The story: a thousand lives, and what is done to the operator, its clock, its network and its cluster meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from tests.chaos.lives import Ending
from tests.chaos.proxy import Fault
from tests.chaos.world import ChaosWorld
from tests.cluster.api import until

GRANTS: Final = 1000
EACH_SECOND: Final = 7.0
KILL_EVERY: Final = 10.0
BEFORE_RESTORE: Final = 100
"""Revocations that the snapshot does not know of."""
LATE: Final = 10.0
"""Seconds from a grant's end to its refusal, those not counted in which the API server was away."""
_HOUR: Final = 3600
_SHARES: Final = {
    Fault.TOO_MANY: 0.03,
    Fault.BROKEN: 0.03,
    Fault.CUT: 0.01,
    Fault.CUT_AFTER: 0.02,
    Fault.DELAYED: 0.01,
    Fault.LATE: 0.005,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the grants that were due to end during one phase."""

    phase: str
    grants: int
    late: int
    worst: float
    away: float
    cut_short: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the auditor found."""

    rows: list[Row]
    kills: int
    faults: int
    ungranted: int
    leaked: list[str]
    """Credentials that still work, and whatever is left of a grant."""

    @property
    def grants(self) -> int:
        """How many there were."""
        return sum(row.grants for row in self.rows)

    @property
    def late(self) -> int:
        """How many were refused late."""
        return sum(row.late for row in self.rows)


async def tell(world: ChaosWorld, *, grants: int = GRANTS, outage: float = 12.0) -> Outcome:
    """Plays it; the API server is away from the operator for `outage` seconds once."""
    arrivals = asyncio.create_task(_arrive(world, grants))
    killer = asyncio.create_task(_kill(world))
    faults = 0
    try:
        for phase, play in _phases(world, outage):
            world.say(f"{phase} ({len(world.lives.all)} grants asked for)")
            faults += 1
            await play
        await arrivals
    finally:
        for task in (arrivals, killer):
            task.cancel()
        await asyncio.gather(arrivals, killer, return_exceptions=True)
    world.say("no more faults: waiting for the end of every grant")
    unfinished = await world.lives.over(seconds=60)
    leaked = [f"{name} was not refused" for name in unfinished] + await _leaked(world)
    return Outcome(
        rows=_rows(world),
        kills=world.kills,
        faults=faults + world.proxy.done.total(),
        ungranted=sum(not life.granted for life in world.lives.all),
        leaked=leaked,
    )


def _phases(world: ChaosWorld, outage: float) -> list[tuple[str, Awaitable[None]]]:
    plays: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("operator killed every 10 s", lambda: asyncio.sleep(15)),
        ("requests cut, delayed, answered 429 and 500", lambda: _requests_fail(world)),
        ("clock one hour ahead, then one behind", lambda: _clock(world)),
        ("etcd stopped, copied and started", lambda: _snapshot(world)),
        ("API server killed, watches expired (410)", lambda: _api_server(world)),
        ("connections half open", lambda: _half_open(world)),
        ("API server away from the operator", lambda: _outage(world, outage)),
        ("etcd restored from the older copy", lambda: _restore(world)),
    ]
    return [(phase, _named(world, phase, play)) for phase, play in plays]


async def _named(world: ChaosWorld, phase: str, play: Callable[[], Awaitable[None]]) -> None:
    with world.weather.storm(phase):
        await play()


async def _arrive(world: ChaosWorld, grants: int) -> None:
    """Agents, one after the other; those whose end the snapshot must not know of live beyond it."""
    began = monotonic()
    for number in range(grants):
        await asyncio.sleep(max(0.0, began + number / EACH_SECOND - monotonic()))
        world.lives.begin(lasts=(2, 12))


async def _kill(world: ChaosWorld) -> None:
    while True:
        await asyncio.sleep(KILL_EVERY)
        try:
            await world.kill_leader()
        except (RuntimeError, OSError, TimeoutError):
            continue  # the API server is away, and nobody leads


async def _requests_fail(world: ChaosWorld) -> None:
    world.proxy.shares = _SHARES
    try:
        for _ in range(4):
            await asyncio.sleep(5)
            world.proxy.cut()
    finally:
        world.proxy.shares = {}


async def _clock(world: ChaosWorld) -> None:
    for seconds in (_HOUR, -_HOUR, 0):
        for replica in world.replicas:
            replica.set_clock(seconds)
        await asyncio.sleep(5)


async def _snapshot(world: ChaosWorld) -> None:
    for _ in range(BEFORE_RESTORE + 20):
        # Granted before the copy is made, ended after it, and far from their TTL when it is restored.
        world.lives.begin(lasts=(14, 20), ending=Ending.OUTCOME)
    await asyncio.sleep(12)
    with world.weather.storm("etcd stopped, copied and started", away=True):
        await world.plane.snapshot()
    world.revoked_before = world.records("CredentialRevoked")


async def _api_server(world: ChaosWorld) -> None:
    with world.weather.storm("API server killed, watches expired (410)", away=True):
        await world.plane.restart("apiserver")
    await asyncio.sleep(5)


async def _half_open(world: ChaosWorld) -> None:
    with world.weather.storm("connections half open", away=True):
        world.proxy.freeze()
        await asyncio.sleep(8)
        world.proxy.thaw()
    await asyncio.sleep(3)


async def _outage(world: ChaosWorld, outage: float) -> None:
    with world.weather.storm("API server away from the operator", away=True):
        await world.proxy.down()
        await asyncio.sleep(outage)
        await world.proxy.up()
    await asyncio.sleep(5)


async def _restore(world: ChaosWorld) -> None:
    async def enough() -> bool:
        return world.records("CredentialRevoked") >= world.revoked_before + BEFORE_RESTORE

    await until(enough, f"{BEFORE_RESTORE} revocations after the copy was made", seconds=60)
    with world.weather.storm("etcd restored from the older copy", away=True):
        await world.plane.restore()
    await asyncio.sleep(10)


async def _leaked(world: ChaosWorld) -> list[str]:
    """What is left when everything has ended and the sweep and the garbage collector have been by."""
    left: list[str] = []

    async def nothing_left() -> bool:
        left[:] = await world.auditor.left()
        return not left

    try:
        await until(nothing_left, "nothing to be left", seconds=60, pause=1)
    except TimeoutError:
        world.say(f"{len(left)} objects are left")
    world.say(f"trying {sum(map(len, world.auditor.tokens.values()))} tokens")
    return [*left, *(f"the token of {secret} still works" for secret in await world.auditor.accepted())]


def _rows(world: ChaosWorld) -> list[Row]:
    rows = []
    for phase in dict.fromkeys(life.phase for life in world.lives.all if life.due is not None):
        there = [life for life in world.lives.all if life.phase == phase]
        worst = max(there, key=lambda life: life.lateness - life.excused)
        rows.append(
            Row(
                phase=phase,
                grants=len(there),
                late=sum(life.lateness - life.excused > LATE for life in there),
                worst=worst.lateness - worst.excused,
                away=max(life.excused for life in there),
                cut_short=sum(life.cut_short for life in there),
            )
        )
    return rows
