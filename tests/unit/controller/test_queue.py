"""The queue: each key at most once, to one worker, in a fair order, and never lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.api import until
from valetkey.controller.queue import Key, Queue

A, B, C = Key("shop", "a"), Key("shop", "b"), Key("web", "c")
SOON = 0.03


async def ready(queue: Queue) -> list[Key]:
    """What is handed out now, each done at once, until nothing is ready."""
    keys: list[Key] = []
    while True:
        try:
            async with asyncio.timeout(0):
                key = await queue.get()
        except TimeoutError:
            return keys
        keys.append(key)
        queue.done(key)


async def waits(queue: Queue, within: float = 10) -> float:
    """After how long the next key comes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within):
        queue.done(await queue.get())
    return loop.time() - began


def at(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def add(queue: Queue, keys: Iterable[Key], *, ending: bool = False) -> None:
    for key in keys:
        queue.add(key, ending=ending)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


async def test_a_key_that_is_added_many_times_is_handed_out_once() -> None:
    queue = Queue()
    add(queue, [A, A, A, B, A])
    assert await ready(queue) == [A, B]


async def test_a_key_that_is_added_while_it_is_worked_on_comes_again_once() -> None:
    queue = Queue()
    add(queue, [A])
    key = await queue.get()
    add(queue, [A, A])
    queue.done(key)
    assert await ready(queue) == [A]


async def test_a_key_that_nobody_added_again_does_not_come_again() -> None:
    queue = Queue()
    add(queue, [A])
    queue.done(await queue.get())
    assert await ready(queue) == []


async def test_a_key_is_not_handed_to_two_workers() -> None:
    queue, at_work, most = Queue(), dict.fromkeys((A, B, C), 0), 0

    async def work() -> None:
        nonlocal most
        while True:
            key = await queue.get()
            at_work[key] += 1
            most = max(most, at_work[key])
            queue.add(key, ending=False)
            await asyncio.sleep(0)
            at_work[key] -= 1
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for _ in range(200):
        add(queue, [A, B, C])
        await asyncio.sleep(0)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert most == 1


async def test_endings_come_before_beginnings() -> None:
    queue = Queue()
    add(queue, [A, B])
    add(queue, [C], ending=True)
    assert await ready(queue) == [C, A, B]


async def test_a_key_that_turned_into_an_ending_while_worked_on_comes_again_as_one() -> None:
    queue = Queue()
    add(queue, [A])
    key = await queue.get()
    queue.add(A, ending=True)
    queue.add(A, ending=False)
    add(queue, [B, C])
    queue.done(key)
    assert await ready(queue) == [A, B, C]


async def test_a_waiting_beginning_that_becomes_an_ending_goes_before_beginnings_and_comes_once() -> None:
    queue = Queue()
    add(queue, [A, B])
    queue.add(B, ending=True)
    assert await ready(queue) == [B, A]
    add(queue, [B, A])
    assert await ready(queue) == [B, A]


async def test_namespaces_take_turns() -> None:
    queue = Queue()
    add(queue, [Key("noisy", str(n)) for n in range(5)])
    add(queue, [C, Key("quiet", "q")])
    assert await ready(queue) == [
        Key("noisy", "0"),
        C,
        Key("quiet", "q"),
        Key("noisy", "1"),
        Key("noisy", "2"),
        Key("noisy", "3"),
        Key("noisy", "4"),
    ]


@pytest.mark.usefixtures("steady")
async def test_each_retry_waits_about_twice_as_long_as_the_one_before() -> None:
    queue, waited = Queue(), []
    for _ in range(3):
        queue.retry(A, ending=False)
        waited.append(await waits(queue))
    assert all(took >= least for took, least in zip(waited, (0.04, 0.09, 0.19), strict=True)), waited


async def test_a_key_is_retried_for_ever() -> None:
    queue = Queue()
    for _ in range(2000):
        queue.retry(A, ending=True)
    queue.forget(A)


@pytest.mark.usefixtures("steady")
async def test_a_retry_waits_for_as_long_as_it_was_asked_to() -> None:
    queue = Queue()
    queue.retry(A, timedelta(seconds=0.3), ending=False)
    assert await waits(queue) >= 0.29


@pytest.mark.usefixtures("steady")
async def test_a_retry_that_was_asked_for_sooner_than_its_back_off_backs_off_all_the_same() -> None:
    queue = Queue()
    queue.retry(A, ending=False)
    await waits(queue)
    queue.retry(A, timedelta(seconds=0.01), ending=False)
    assert await waits(queue) >= 0.09


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("how", ["succeeded", "forget"])
async def test_what_has_succeeded_or_was_forgotten_begins_to_back_off_anew(how: str) -> None:
    queue = Queue()
    for _ in range(6):
        queue.retry(A, ending=False)
    getattr(queue, how)(A)
    queue.retry(A, ending=False)
    assert await waits(queue) < 1


async def test_what_is_retried_as_an_ending_comes_as_an_ending() -> None:
    queue = Queue()
    queue.retry(A, ending=True)
    await asyncio.sleep(0.1)
    add(queue, [B])
    key = await queue.get()
    queue.done(key)
    assert key == A


async def test_a_key_comes_at_its_time_and_not_before() -> None:
    queue = Queue()
    queue.add_at(A, at(0.1), ending=False)
    assert await ready(queue) == []
    assert await waits(queue) >= 0.09


async def test_a_time_that_is_over_is_now() -> None:
    queue = Queue()
    queue.add_at(A, at(-60), ending=False)
    assert await waits(queue) < 0.5


async def test_keys_come_in_the_order_of_their_times() -> None:
    queue = Queue()
    queue.add_at(A, at(0.09), ending=False)
    queue.add_at(B, at(0.03), ending=False)
    queue.add_at(C, at(0.06), ending=False)
    assert [await queue.get() for _ in range(3)] == [B, C, A]


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.2), (0.2, 0.05)])
async def test_a_later_call_takes_the_place_of_an_earlier_one(first: float, second: float) -> None:
    queue = Queue()
    queue.add_at(B, at(0.01), ending=False)
    queue.add_at(A, at(first), ending=False)
    queue.add_at(A, at(second), ending=False)
    await waits(queue)
    await waits(queue)
    await asyncio.sleep(max(first, second) - second + SOON)
    assert await ready(queue) == []


async def test_the_later_time_is_the_one_that_holds() -> None:
    queue = Queue()
    queue.add_at(A, at(0.03), ending=False)
    queue.add_at(A, at(0.2), ending=False)
    assert await waits(queue) >= 0.19


async def test_a_time_whose_place_was_taken_does_not_ring_with_the_times_of_others() -> None:
    queue = Queue()
    queue.add_at(B, at(-2), ending=False)
    queue.add_at(A, at(-1), ending=False)
    queue.add_at(A, at(60), ending=False)
    await asyncio.sleep(SOON)
    assert await ready(queue) == [B]


async def test_a_key_that_is_forgotten_does_not_come_at_its_time() -> None:
    queue = Queue()
    queue.add_at(A, at(0.02), ending=False)
    queue.add_at(B, at(0.04), ending=False)
    queue.forget(A)
    await asyncio.sleep(0.08)
    assert await ready(queue) == [B]


async def test_a_key_that_is_forgotten_can_be_added_again() -> None:
    queue = Queue()
    queue.add_at(A, at(0.02), ending=False)
    queue.forget(A)
    queue.add(A, ending=False)
    assert await ready(queue) == [A]


async def test_a_worker_that_is_cancelled_while_it_waits_takes_no_key_with_it() -> None:
    queue = Queue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    add(queue, [A])
    assert await ready(queue) == [A]


async def test_a_worker_for_endings_alone_takes_no_beginning() -> None:
    queue = Queue()
    queue.add(A, ending=False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(endings_alone=True), 0.05)
    queue.add(B, ending=True)
    assert await asyncio.wait_for(queue.get(endings_alone=True), 0.05) == B
    assert await asyncio.wait_for(queue.get(), 0.05) == A


async def test_a_beginning_that_became_an_ending_is_taken_once_by_whoever_comes_first() -> None:
    queue = Queue()
    queue.add(A, ending=False)
    queue.add(A, ending=True)
    assert await asyncio.wait_for(queue.get(endings_alone=True), 0.05) == A
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.05)
    queue.add(B, ending=False)
    assert await asyncio.wait_for(queue.get(), 0.05) == B


async def _all_are_served(steps: list[tuple[int, bool, bool]]) -> None:
    queue = Queue()
    waiting: dict[Key, bool] = {}
    for number, ending, alone in steps:
        key = Key("shop", str(number))
        queue.add(key, ending=ending)
        waiting[key] = waiting.get(key, False) or ending
        if alone and any(waiting.values()):
            taken = await asyncio.wait_for(queue.get(endings_alone=True), 1)
            assert waiting.pop(taken), "an ending"
            queue.done(taken)
    while waiting:
        taken = await asyncio.wait_for(queue.get(), 1)
        assert waiting.pop(taken) or not any(waiting.values()), "endings come first"
        queue.done(taken)


async def test_every_key_that_is_ready_is_taken_whoever_takes() -> None:
    for seed in range(300):
        chosen = random.Random(seed)
        steps = [(chosen.randrange(6), chosen.random() < 0.4, chosen.random() < 0.3) for _ in range(60)]
        await _all_are_served(steps)


async def test_a_namespace_has_no_more_beginnings_worked_on_at_once_than_its_share_and_endings_without_limit() -> None:
    queue = Queue(share=2)
    noisy = [Key("noisy", str(n)) for n in range(4)]
    add(queue, [*noisy, C])
    assert [await asyncio.wait_for(queue.get(), 1) for _ in range(3)] == [noisy[0], C, noisy[1]]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.05)
    queue.add(noisy[2], ending=True)
    assert await asyncio.wait_for(queue.get(), 1) == noisy[2]
    queue.done(noisy[2])
    queue.done(noisy[0])
    assert await asyncio.wait_for(queue.get(), 1) == noisy[3]
    queue.done(noisy[1])
    queue.done(noisy[3])
    assert await ready(queue) == []


async def _shares_hold(chosen: random.Random) -> None:
    queue = Queue(share=2)
    keys = [Key(namespace, str(n)) for namespace in ("noisy", "quiet", "other") for n in range(12)]
    held: dict[Key, bool] = {}
    taken: set[Key] = set()

    async def work() -> None:
        while True:
            key = await queue.get()
            held[key] = key in beginnings
            taken.add(key)
            for namespace in {key.namespace for key in keys}:
                assert sum(begun for key, begun in held.items() if key.namespace == namespace) <= 2
            for _ in range(chosen.randrange(4)):
                await asyncio.sleep(0)
            del held[key]
            queue.done(key)

    beginnings = {key for key in keys if chosen.random() < 0.7}
    chosen.shuffle(keys)
    workers = [asyncio.create_task(work()) for _ in range(8)]
    for key in keys:
        queue.add(key, ending=key not in beginnings)
        if chosen.random() < 0.3:
            await asyncio.sleep(0)

    async def all_are_taken() -> bool:
        return taken == set(keys) or any(worker.done() for worker in workers)

    await until(all_are_taken, "every key to be taken", seconds=5)
    for worker in workers:
        worker.cancel()
    ends = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def test_with_shares_every_key_is_taken_and_no_share_is_exceeded() -> None:
    for seed in range(50):
        await _shares_hold(random.Random(seed))
