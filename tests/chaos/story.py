"""The story: a thousand lives, and what is done to the operator, its clock, its network and its cluster meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from tests.chaos.lives import Ending
from tests.chaos.proxy import Fault
from tests.chaos.replicas import HOUR
from tests.chaos.world import ChaosWorld
from tests.cluster.api import until
from tests.e2e.witness import found

GRANTS: Final = 1000
AT_ONCE: Final = 12
"""Agents that wait for access at any time: the next one comes when one of them has got it."""
KILL_EVERY: Final = 10.0
BEFORE_RESTORE: Final = 100
"""Revocations that the snapshot does not know of."""
THROUGH_OUTAGE: Final = 20
"""Grants that live when the API server goes for longer than any credential does; their time is over soon after."""
KILLED: Final = "operator killed every 10 s"
FAILING: Final = "requests cut, delayed, answered 429 and 500"
CLOCK: Final = "clock one hour ahead, then one behind"
RESTORE: Final = "etcd restored from an older copy"
LATE: Final = 13.0
"""Seconds from a grant's end to its refusal, those not counted in which the API server was away: two takeovers of 6.5 s
each, for whoever takes over is killed soon after."""
TOKENS_LIVE: Final = 670.0
"""Seconds: what Kubernetes gives them at least, its leeway and its cache."""
_THROUGH: Final = (90.0, 240.0)
"""Seconds that those live which meet the outage: longer than all of them take to begin, and less than a renewal."""
_SPREAD: Final = 20.0
"""Seconds over which those end that the restored store brings back."""
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
    interrupted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the auditor found."""

    rows: list[Row]
    seconds: float
    """How long the story took, until the last token was tried; the making of its control plane is not counted."""
    kills: int
    faults: int
    expired: int
    """Watches that the API server would not go on with (410), for it had started after what they had seen last."""
    ungranted: int
    alive: int
    """Credentials that worked when the API server had gone for longer than a token lives; 0 where it never did."""
    died: int
    """Those of them that were refused at the end of that, though nobody could revoke them."""
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


async def tell(world: ChaosWorld, *, grants: int, outage: float = 12.0) -> Outcome:
    """Plays all faults, again and again until there were so many grants, and at last restores an old store.

    The API server is away from the operator for `outage` seconds each time.
    """
    began = monotonic()
    arrivals = asyncio.create_task(_arrive(world))
    killer = asyncio.create_task(_kill(world))
    faults = 0
    try:
        while not faults or world.lives.granted < grants:
            for phase, play in _phases(outage).items():
                faults += await _played(world, phase, play)
        # A hundred revocations are to be made in seconds: the operator is spared until the older store is back.
        for task in (arrivals, killer):
            task.cancel()
        faults += await _played(world, RESTORE, _restore)
    finally:
        for task in (arrivals, killer):
            task.cancel()
        await asyncio.gather(arrivals, killer, return_exceptions=True)
    world.say("no more faults: waiting for the end of every grant")
    unfinished = await world.lives.over(seconds=60)
    outlived = [f"the token of {secret} outlived its time" for secret in world.outlived.values()]
    leaked = [*outlived, *(f"{name} was not refused" for name in unfinished), *await _leaked(world)]
    return Outcome(
        rows=_rows(world),
        seconds=monotonic() - began,
        kills=world.kills,
        faults=faults + world.proxy.done.total(),
        expired=world.proxy.expired,
        ungranted=sum(not life.granted for life in world.lives.all),
        alive=len(world.alive),
        died=len(world.alive.keys() - world.outlived.keys()),
        leaked=leaked,
    )


Play = Callable[[ChaosWorld], Awaitable[None]]


def _phases(outage: float) -> dict[str, Play]:
    return {
        KILLED: lambda _: asyncio.sleep(15),
        FAILING: _requests_fail,
        CLOCK: _clock,
        "etcd stopped and started": _etcd,
        "API server killed, watches expired (410)": _api_server,
        "connections half open": _half_open,
        "API server away from the operator": partial(_outage, seconds=outage),
    }


async def _played(world: ChaosWorld, phase: str, play: Play) -> int:
    world.say(f"{phase} ({world.lives.granted} grants so far)")
    with world.weather.storm(phase):
        await play(world)
    return 1


async def _arrive(world: ChaosWorld) -> None:
    """Agents come, for as long as this runs."""
    while True:
        await world.lives.room(AT_ONCE)
        world.lives.begin(lasts=(2, 12))


async def _kill(world: ChaosWorld) -> None:
    while True:
        await asyncio.sleep(KILL_EVERY)
        await _strike(world)


async def _strike(world: ChaosWorld) -> None:
    # The API server may be away, and then nobody leads.
    with contextlib.suppress(RuntimeError, OSError, TimeoutError):
        await world.kill_leader()


async def _requests_fail(world: ChaosWorld) -> None:
    world.proxy.shares = _SHARES
    try:
        for _ in range(4):
            await asyncio.sleep(5)
            world.proxy.cut()
    finally:
        world.proxy.shares = {}


async def _clock(world: ChaosWorld) -> None:
    for seconds in (HOUR, -HOUR, 0):
        for replica in world.replicas:
            replica.set_clock(seconds)
        await asyncio.sleep(5)


async def _etcd(world: ChaosWorld) -> None:
    with world.weather.storm("etcd stopped and started", away=True):
        await world.plane.restart("etcd")
    await asyncio.sleep(8)


async def _api_server(world: ChaosWorld) -> None:
    """One that has just started knows no change before that: a watch that goes on from an earlier one has expired."""
    with world.weather.storm("API server killed, watches expired (410)", away=True):
        await world.plane.restart("apiserver")
    await asyncio.sleep(5)


async def _half_open(world: ChaosWorld) -> None:
    with world.weather.storm("connections half open", away=True):
        world.proxy.freeze()
        await asyncio.sleep(8)
        world.proxy.thaw()
    await asyncio.sleep(3)


async def _outage(world: ChaosWorld, *, seconds: float) -> None:
    long = seconds > TOKENS_LIVE
    if long:
        await _some_that_live(world)
    with world.weather.storm("API server away from the operator", away=True):
        await world.proxy.down()
        if long:
            # Now, for nobody can revoke any more: what works has its grant, and dies by itself alone.
            world.alive = await world.auditor.accepted()
        await asyncio.sleep(seconds)
        if long:
            world.outlived = await world.auditor.accepted()
            died = len(world.alive.keys() - world.outlived.keys())
            world.say(f"{len(world.alive)} tokens worked when the API server had gone, {died} of them are refused now")
        await world.proxy.up()
    await asyncio.sleep(5)


async def _some_that_live(world: ChaosWorld) -> None:
    """Most agents are done within seconds: these have their access when the API server goes."""
    living = [world.lives.begin(lasts=_THROUGH, ending=Ending.TTL) for _ in range(THROUGH_OUTAGE)]
    await until(lambda: _all(life.granted for life in living), "the access that an outage meets", seconds=_THROUGH[0])


async def _restore(world: ChaosWorld) -> None:
    """What ends after the copy was made had far to go to its TTL: it is alive again when the copy is restored."""
    chosen = [world.lives.begin(lasts=(0, _SPREAD), ending=Ending.OUTCOME, held=True) for _ in range(BEFORE_RESTORE)]
    await until(lambda: _all(life.granted for life in chosen), "the access that the copy will have", seconds=150)
    with world.weather.storm(RESTORE, away=True):
        await world.plane.snapshot()
    world.lives.release()
    await until(lambda: _all(life.refused for life in chosen), "what ended after the copy", seconds=150)
    with world.weather.storm(RESTORE, away=True):
        await world.plane.restore()
    await asyncio.sleep(3)
    await _strike(world)
    await asyncio.sleep(7)


async def _all(conditions: Iterable[object]) -> bool:
    return all(conditions)


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
    accepted = [f"the token of {secret} still works" for secret in (await world.auditor.accepted()).values()]
    return [*left, *accepted, *await asyncio.to_thread(_written_down, world)]


def _written_down(world: ChaosWorld) -> list[str]:
    tokens = set[str]().union(*world.auditor.tokens.values())
    texts = {name: text for replica in world.replicas for name, text in replica.said().items()}
    return [f"a token is in {name}" for name in found(tokens, texts)]


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
                interrupted=sum(life.interrupted for life in there),
            )
        )
    return rows
