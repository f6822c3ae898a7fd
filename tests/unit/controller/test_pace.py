"""Whoever is refused again and again waits for its turn, and nobody else does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tests.cluster.api import until
from tests.properties.life import Process, a_world, pod, request
from tests.properties.world import World
from valetkey.controller.pace import AT_ONCE, EACH, Agent, Pace
from valetkey.controller.queue import Key, Queue

LOUD, QUIET = Agent("shop", "loud"), Agent("shop", "quiet")


def keys(number: int) -> list[Key]:
    return [Key("shop", str(index)) for index in range(number)]


def test_an_account_that_is_refused_now_and_then_is_not_slowed_down() -> None:
    world, pace = World(), Pace()
    for key in keys(10 * AT_ONCE):
        assert pace.turn(key, LOUD, world.now) is None
        pace.refused(LOUD, world.now)
        world.now += EACH


def test_an_account_that_is_refused_in_a_loop_has_one_turn_after_the_other_and_others_have_no_wait() -> None:
    world, pace = World(), Pace()
    for _ in range(AT_ONCE + 1):
        assert pace.turn(Key("shop", "first"), LOUD, world.now) is None
        pace.refused(LOUD, world.now)
    turns = [pace.turn(key, LOUD, world.now) for key in keys(5)]
    assert turns == [world.now + EACH * (place + 1) for place in range(5)]
    assert [pace.turn(key, LOUD, world.now) for key in keys(5)] == turns, "and keeps it"
    assert pace.turn(Key("shop", "other"), QUIET, world.now) is None


def test_what_has_had_its_turn_or_is_gone_waits_no_more() -> None:
    world, pace = World(), Pace()
    for _ in range(2 * AT_ONCE):
        pace.refused(LOUD, world.now)
    first, second = keys(2)
    at = pace.turn(first, LOUD, world.now)
    assert at is not None
    pace.turn(second, LOUD, world.now)
    pace.forget(second)
    world.now = at
    assert pace.turn(first, LOUD, world.now) is None
    assert pace.turn(second, LOUD, world.now) == at + EACH * 2


def test_refusals_are_forgotten() -> None:
    world, pace = World(), Pace()
    for _ in range(AT_ONCE + 10):
        pace.refused(LOUD, world.now)
    assert pace.turn(Key("shop", "a"), LOUD, world.now) is not None
    world.now += EACH * 10
    assert pace.turn(Key("shop", "a"), LOUD, world.now) is None


async def test_a_loop_of_denied_requests_is_answered_at_its_pace_while_another_account_there_is_granted() -> None:
    world = a_world()
    owner = world.add("Pod", pod("one"))
    for number in range(AT_ONCE + 30):
        body = request(f"denied-{number:03}", owner, "5m", "valetkey-one-a", world.now)
        body["spec"]["task"]["purpose"] = "unknown"
        body["spec"]["requester"]["serviceAccount"] = "loud"
        world.add("AccessRequest", body)
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    await process.watch()
    for key in sorted(process.cache.requests):
        queue.add(key, ending=False)
    workers = [asyncio.create_task(process.worker.work()) for _ in range(4)]

    async def answered() -> bool:
        return queue.waiting(ending=False).keys == 0 and len(world.records) > AT_ONCE

    await until(answered, "the first to be refused", seconds=5)
    assert len(world.records) <= AT_ONCE + 2, "and what was refused beyond is counted"
    refused = len([body for body in world.of("AccessRequest") if body.get("status", {}).get("conditions")])
    assert AT_ONCE < refused < AT_ONCE + 10
    world.add("AccessRequest", request("granted", world.add("Pod", pod("two")), "5m", "valetkey-two-a", world.now))
    await process.watch()
    queue.add(Key("shop", "granted"), ending=False)

    async def granted() -> bool:
        return bool(world.of("TaskGrant"))

    await until(granted, "the other to be granted", seconds=2)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_what_one_account_asks_fills_no_more_of_the_log_than_it_may_in_a_day_and_others_are_granted() -> None:
    world = a_world()
    process = Process(world)
    loud = Agent("shop", "loud")
    process.backends.daily_log.spend(loud, world.now, (64 << 10) + 1)
    for name, account in (("a", "loud"), ("b", "fixer")):
        body = request(name, world.add("Pod", pod(f"pod-{name}")), "5m", f"valetkey-pod-{name}-a", world.now)
        user = f"system:serviceaccount:shop:{account}"
        body["spec"]["requester"] |= {"serviceAccount": account, "username": user}
        world.add("AccessRequest", body)
        (there,) = (entry for entry in world.of("Pod") if entry["metadata"]["name"] == f"pod-{name}")
        there["spec"]["serviceAccountName"] = account
    await process.watch()
    await process.work()
    assert [grant["metadata"]["name"] for grant in world.of("TaskGrant")] == ["b"]
    (refused,) = (body for body in world.of("AccessRequest") if body["metadata"]["name"] == "a")
    approved = next(c for c in refused["status"]["conditions"] if c["type"] == "Approved")
    assert approved["reason"] == "LimitReached"
    assert "ask again in 2s" in approved["message"]
    assert all("facts" not in record for record in world.records if record["request"] == "shop/a")
    world.now += timedelta(seconds=3)
    assert not process.backends.daily_log.short_for(loud, world.now)


async def test_a_decision_takes_its_part_of_the_days_log() -> None:
    world = a_world()
    world.add("AccessRequest", request("a", world.add("Pod", pod("one")), "5m", "valetkey-one-a", world.now))
    process = Process(world)
    process.backends.daily_log.spend(Agent("shop", "fixer"), world.now, 64 << 10)
    await process.watch()
    await process.work()
    assert process.backends.daily_log.short_for(Agent("shop", "fixer"), world.now) >= timedelta(seconds=4)
