"""A new leader looks at everything, at what needs it first, and lets nothing wait for what only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.cluster.api import until
from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from valetkey.controller import takeover
from valetkey.controller.queue import Key, Queue
from valetkey.reasons import Reason

MANY = 17


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "AT_A_TIME", 5)


async def granted(number: int) -> tuple[World, Process]:
    """So many live grants, and the operator that opened them."""
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    for index in range(number):
        ask(world, f"agent-{index}")
    process = Process(world)
    await process.watch()
    await process.work()
    assert len(world.of("TaskGrant")) == number
    return world, process


def ask(world: World, name: str) -> None:
    owner = world.add("Pod", pod(name))
    world.add("AccessRequest", request(name, owner, "15m", f"valetkey-{name}-a", world.now))


async def taken(queue: Queue, number: int) -> list[str]:
    names = []
    for _ in range(number):
        key = await asyncio.wait_for(queue.get(), 5)
        names.append(key.name)
        queue.done(key)
    return names


def changes(kind: str, change: dict[str, object]) -> Callable[[World], None]:
    return lambda world: world.change(kind, "shop", "agent-7", change)


def removed(kind: str) -> Callable[[World], None]:
    def remove(world: World) -> None:
        world.objects.pop(next(entry for entry in world.objects if entry[0] == kind and entry[2] == "agent-7"))

    return remove


async def test_every_grant_and_every_request_is_looked_at_once() -> None:
    world, process = await granted(MANY)
    ask(world, "new")
    await process.watch()
    queue = Queue(clock=lambda: world.now)
    looking = asyncio.create_task(takeover.look_at_all(process.cache, queue, world.now))
    names = await taken(queue, MANY + 1)
    await looking
    assert sorted(names) == sorted({"new", *(f"agent-{index}" for index in range(MANY))})
    assert queue.waiting(ending=True).keys == queue.waiting(ending=False).keys == 0


async def test_a_new_request_does_not_wait_until_all_live_grants_have_been_looked_at() -> None:
    world, process = await granted(MANY)
    ask(world, "new")
    await process.watch()
    queue = Queue(clock=lambda: world.now)
    looking = asyncio.create_task(takeover.look_at_all(process.cache, queue, world.now))
    assert "new" in await taken(queue, takeover.AT_A_TIME + 1)
    looking.cancel()


@pytest.mark.parametrize(
    "change",
    [
        changes("AccessRequest", {"spec": {"outcome": "Succeeded"}}),
        changes("Pod", {"status": {"phase": "Succeeded"}}),
        changes("TaskGrant", {"status": {"conditions": []}}),
        removed("AccessRequest"),
        removed("Pod"),
    ],
    ids=["its task is over", "its pod has finished", "it is half made", "its request is gone", "its pod is gone"],
)
async def test_what_needs_something_comes_first(change: Callable[[World], None]) -> None:
    world, process = await granted(MANY)
    change(world)
    await process.watch()
    queue = Queue(clock=lambda: world.now)
    looking = asyncio.create_task(takeover.look_at_all(process.cache, queue, world.now))
    assert await taken(queue, 1) == ["agent-7"]
    looking.cancel()


async def test_a_grant_whose_time_is_up_comes_first() -> None:
    _, process = await granted(3)
    due = {note.due for _, note in process.cache.grants.notes()}
    queue = Queue(clock=lambda: max(due))
    await asyncio.wait_for(takeover.look_at_all(process.cache, queue, max(due)), 1)
    assert queue.waiting(ending=True).keys == 3


async def test_what_a_restored_store_has_brought_back_comes_first() -> None:
    world, process = await granted(3)
    process.cache.over[process.cache.grants.notes()[1][1].request] = Reason.GRANT_DELETED
    queue = Queue(clock=lambda: world.now)
    looking = asyncio.create_task(takeover.look_at_all(process.cache, queue, world.now))
    assert await taken(queue, 1) == [process.cache.grants.notes()[1][0].name]
    looking.cancel()


async def test_a_grants_time_runs_though_its_turn_has_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "TAKEN_WITHIN", timedelta(hours=1))
    world, process = await granted(1)
    [(key, grant)] = process.cache.grants.notes()
    ending = Key("another", "stuck")
    queue = Queue(clock=lambda: grant.due - timedelta(seconds=0.2))
    queue.add(ending, ending=True)
    looking = asyncio.create_task(takeover.look_at_all(process.cache, queue, world.now))

    async def both_wait() -> bool:
        return queue.waiting(ending=True).keys == 2

    assert key in process.cache.grants
    await until(both_wait, "the grant whose time is up", seconds=5)
    looking.cancel()


async def test_endings_that_nobody_takes_hold_up_no_others_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "TAKEN_WITHIN", timedelta(seconds=0.02))
    world, process = await granted(MANY)
    queue = Queue(clock=lambda: world.now)
    queue.add(Key("another", "stuck"), ending=True)
    await asyncio.wait_for(takeover.look_at_all(process.cache, queue, world.now), 5)
    assert queue.waiting(ending=True).keys == MANY + 1
