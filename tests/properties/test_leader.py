"""Leadership under Hypothesis, in simulated time: whatever fails, stalls or stops, two replicas never lead at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.world import World
from valetkey.kube.api import ApiError, Json
from valetkey.kube.leader import TTL, Leadership, LostError

SETTLED = TTL.total_seconds() + 1.5


class Timeless(selectors.SelectSelector):
    """Waits for nothing: the loop's time goes on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += max(timeout or 0.0, 0.0) + 1e-6
        return super().select(0)


class Simulated(asyncio.SelectorEventLoop):
    """A loop in which an hour takes no longer than what happens in it."""

    def __init__(self) -> None:
        self._timeless = Timeless()
        super().__init__(self._timeless)

    def time(self) -> float:
        return self._timeless.now


def simulated(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        runner.run(work)


class Slow:
    """One replica's way to the API server: answers are late, lost, or errors; while it is stopped nothing comes in."""

    def __init__(self, world: World, chance: random.Random, *, faults: bool) -> None:
        self.world, self.chance, self.faults = world, chance, faults
        self.slowest = chance.choice([0.02, 2.0]) if faults else 0.02
        self.stopped_until = 0.0

    async def get(self, path: str) -> Json:
        return await self._through(self.world.get, path)

    async def create(self, path: str, body: Json) -> Json:
        return await self._through(self.world.create, path, body)

    async def replace(self, path: str, body: Json) -> Json:
        return await self._through(self.world.replace, path, body)

    async def patch(self, path: str, body: Json) -> Json:
        raise AssertionError(path)

    async def delete(self, path: str, *, uid: str) -> Json:
        raise AssertionError(path)

    def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        raise AssertionError(path)

    async def watch(self, path: str, *, name: str, version: str | None = None) -> AsyncGenerator[Json, None]:
        async for event in self.world.watch(path, name=name, version=version):
            await self._pause(self.slowest / 4)
            if self.faults and self.chance.random() < 0.05:
                raise ApiError(0, "NoAnswer", "cut off")
            yield event

    async def _through(self, call: Any, *arguments: Any) -> Json:
        await self._pause(self.slowest)
        if self.faults and self.chance.random() < 0.15:
            raise ApiError(500, "InternalError", "before")
        answer: Json = await call(*arguments)
        await self._pause(self.slowest)
        if self.faults and self.chance.random() < 0.15:
            raise ApiError(0, "NoAnswer", "after")
        return answer

    async def _pause(self, most: float) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(self.chance.uniform(0, most), self.stopped_until - now))


def replica(api: Slow, number: int) -> Leadership:
    time = asyncio.get_running_loop().time
    # Each has a clock of its own: they count alike and agree on nothing else.
    return Leadership(
        api,
        namespace="valetkey-system",
        name="valetkey",
        identity=f"pod-{number}_uid",
        clock=lambda: time() + number * 1e6,
    )


async def lives(leadership: Leadership, chance: random.Random) -> None:
    """Leads whenever it can; a process that lost begins anew, one that is told to stop releases."""
    while True:
        await leadership.acquire()
        with contextlib.suppress(LostError, TimeoutError):
            async with asyncio.timeout(chance.uniform(1, 40)):
                await leadership.keep()
        if chance.random() < 0.5:
            await leadership.release()
        await asyncio.sleep(chance.uniform(0, 3))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), replicas=st.integers(2, 4), stops=st.lists(st.floats(0.5, 30), max_size=6))
def test_two_replicas_never_lead_at_once_and_in_the_end_one_does(seed: int, replicas: int, stops: list[float]) -> None:
    async def story() -> None:
        chance, world, loop = random.Random(seed), World(), asyncio.get_running_loop()
        ways = [Slow(world, chance, faults=True) for _ in range(replicas)]
        all_of = [replica(way, number) for number, way in enumerate(ways)]
        tasks = [asyncio.create_task(lives(one, chance)) for one in all_of]
        pauses = iter(stops)
        for moment in range(4000):
            await asyncio.sleep(0.02)
            assert sum(one.held for one in all_of) <= 1, [one.identity for one in all_of if one.held]
            if moment % 700 == 350:
                chance.choice(ways).stopped_until = loop.time() + next(pauses, 0.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = replica(Slow(world, chance, faults=False), 9)
        began = loop.time()
        await last.acquire()
        assert last.held
        assert loop.time() - began <= SETTLED

    simulated(story())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_leader_that_dies_is_followed_when_its_time_is_over_and_no_sooner(seed: int) -> None:
    async def story() -> None:
        chance, world, loop = random.Random(seed), World(), asyncio.get_running_loop()
        first, second = (replica(Slow(world, chance, faults=False), number) for number in (1, 2))
        await first.acquire()
        keeps, waits = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        await asyncio.sleep(chance.uniform(0.1, 20))
        assert not waits.done()
        keeps.cancel()
        died = loop.time()
        await waits
        assert not first.held
        assert 3 <= loop.time() - died <= TTL.total_seconds() + 0.3

    simulated(story())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_leader_that_lets_go_is_followed_at_once(seed: int) -> None:
    async def story() -> None:
        chance, world, loop = random.Random(seed), World(), asyncio.get_running_loop()
        first, second = (replica(Slow(world, chance, faults=False), number) for number in (1, 2))
        await first.acquire()
        keeps, waits = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        await asyncio.sleep(chance.uniform(0.1, 20))
        keeps.cancel()
        began = loop.time()
        await first.release()
        assert not first.held
        await waits
        assert loop.time() - began <= 0.3

    simulated(story())


def test_the_same_pod_takes_up_where_its_dead_process_left_off() -> None:
    async def story() -> None:
        chance, world, loop = random.Random(1), World(), asyncio.get_running_loop()
        await replica(Slow(world, chance, faults=False), 1).acquire()
        again = replica(Slow(world, chance, faults=False), 1)
        began = loop.time()
        await again.acquire()
        assert loop.time() - began < 0.2
        (lease,) = world.of("Leader")
        assert lease["spec"]["leaseTransitions"] == 0

    simulated(story())


def test_a_leader_object_that_somebody_deletes_is_made_again_by_its_leader() -> None:
    async def story() -> None:
        chance, world = random.Random(1), World()
        first = replica(Slow(world, chance, faults=False), 1)
        await first.acquire()
        keeps = asyncio.create_task(first.keep())
        world.remove("Leader", "valetkey-system", "valetkey")
        await asyncio.sleep(3)
        assert first.held
        assert not keeps.done()
        (lease,) = world.of("Leader")
        assert lease["spec"]["holderIdentity"] == first.identity
        keeps.cancel()

    simulated(story())


def test_a_leader_whose_object_names_another_knows_at_its_next_renewal() -> None:
    async def story() -> None:
        chance, world = random.Random(1), World()
        first = replica(Slow(world, chance, faults=False), 1)
        await first.acquire()
        world.change("Leader", "valetkey-system", "valetkey", {"spec": {"holderIdentity": "pod-2_uid"}})
        with pytest.raises(LostError, match="pod-2_uid leads"):
            await first.keep()

    simulated(story())


def test_a_leader_that_gets_no_answer_stops_when_its_time_is_over() -> None:
    async def story() -> None:
        chance, world, loop = random.Random(1), World(), asyncio.get_running_loop()
        way = Slow(world, chance, faults=False)
        first = replica(way, 1)
        await first.acquire()
        way.stopped_until, began = loop.time() + 60, loop.time()
        with pytest.raises(LostError, match="not renewed for 5 s"):
            await first.keep()
        assert loop.time() - began <= TTL.total_seconds()
        assert not first.held

    simulated(story())
