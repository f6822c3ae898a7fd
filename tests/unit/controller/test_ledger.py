"""The ledger: what policies that limit how often have granted; whatever is deleted or restarted, it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.properties.life import Process, a_world, pod, policy, request
from tests.properties.world import World
from valetkey.controller import ledger
from valetkey.controller.ledger import Ledger
from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_time
from valetkey.kinds.ledger import MOST_OPENED
from valetkey.kube.api import ApiError, Json

HOUR = timedelta(hours=1)


class Slow(World):
    """A world that takes its time, so that others come while one waits."""

    writes = 0

    async def create(self, path: str, body: Json) -> Json:
        self.writes += 1
        await asyncio.sleep(0)
        return await super().create(path, body)

    async def replace(self, path: str, body: Json) -> Json:
        self.writes += 1
        await asyncio.sleep(0)
        return await super().replace(path, body)


def asked(world: World, name: str) -> AccessRequest:
    owner = world.objects.get(("Pod", "shop", "p")) or world.add("Pod", pod("p"))
    return AccessRequest.model_validate(
        world.add("AccessRequest", request(name, owner, "1m", "valetkey-p-a", world.now))
    )


def a_ledger(world: World) -> Ledger:
    return Ledger(world, namespace="valetkey-system", clock=lambda: world.now)


def limited(world: World, **limits: Any) -> None:
    world.change("AgentPolicy", "", "fix", {"spec": policy(15, limits=limits)["spec"], "metadata": {"generation": 2}})


async def lives(world: World) -> Process:
    """An operator that has just started."""
    process = Process(world)
    await process.relist.read_all()
    return process


async def asks(world: World, process: Process, name: str) -> str:
    """What becomes of one request more; it is deleted at once, and its grant is over."""
    asked(world, name)
    await process.watch()
    await process.work()
    reason: str = world.objects["AccessRequest", "shop", name]["status"]["conditions"][1]["reason"]
    world.remove("AccessRequest", "shop", name)
    for _ in range(2):
        await process.watch()
        await process.work()
    assert not world.of("TaskGrant")
    return reason


def on_record(world: World) -> Sequence[Json]:
    (body,) = world.of("Ledger")
    opened: Sequence[Json] = body["spec"]["opened"]
    return opened


async def test_neither_a_restart_nor_the_deletion_of_a_request_gives_a_grant_back() -> None:
    world = a_world()
    limited(world, perHour=2)
    assert await asks(world, await lives(world), "r1") == "PolicyMatched"
    assert await asks(world, await lives(world), "r2") == "PolicyMatched"
    assert await asks(world, await lives(world), "r3") == "LimitReached"
    world.now += HOUR
    assert await asks(world, await lives(world), "r4") == "PolicyMatched"


async def test_what_grants_is_on_record_before_the_grant_is_and_what_is_refused_is_not() -> None:
    world = a_world()
    limited(world, perHour=1)
    process = await lives(world)
    first = asked(world, "r1")
    await process.watch()
    await process.work()
    places = list(world.objects)
    uid = world.objects["Namespace", "", "shop"]["metadata"]["uid"]
    assert places.index(("Ledger", "valetkey-system", uid)) < places.index(("TaskGrant", "shop", "r1"))
    assert [one["request"] for one in on_record(world)] == [first.metadata.uid]
    assert await asks_again(world, process) == "LimitReached"
    assert [one["request"] for one in on_record(world)] == [first.metadata.uid]


async def asks_again(world: World, process: Process) -> str:
    other = world.add("Pod", pod("q"))
    world.add("AccessRequest", request("r2", other, "1m", "valetkey-q-a", world.now))
    await process.watch()
    await process.work()
    reason: str = world.objects["AccessRequest", "shop", "r2"]["status"]["conditions"][1]["reason"]
    return reason


async def test_where_no_policy_limits_how_often_nothing_is_written_nor_read() -> None:
    world = a_world()
    limited(world, active=3)
    world.lists = 0
    process = await lives(world)
    before = world.lists
    assert await asks(world, process, "r1") == "PolicyMatched"
    assert not world.of("Ledger")
    assert world.lists - before == 3 * _LISTS_OF_A_REFRESH


_LISTS_OF_A_REFRESH = 4
"""Namespaces, policies and both kinds of guards."""


async def test_requests_that_are_decided_at_once_count_for_each_other_before_any_is_written() -> None:
    world = a_world()
    book = a_ledger(world)
    first, second = asked(world, "r1"), asked(world, "r2")
    writing = asyncio.create_task(book.enter(first, "fix", world.now))
    await asyncio.sleep(0)
    assert book.opened(second) == {"fix": (world.now,)}
    assert book.opened(first) == {}  # its own is no reason to refuse it, should it be decided again
    await writing


async def test_several_that_come_at_once_share_a_write() -> None:
    world = Slow()
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    book, requests = a_ledger(world), [asked(world, f"r{at}") for at in range(20)]
    await asyncio.gather(*(book.enter(one, "fix", world.now) for one in requests))
    assert len(on_record(world)) == 20
    assert world.writes == 2


async def test_what_is_older_than_an_hour_is_dropped() -> None:
    world = a_world()
    book = a_ledger(world)
    await book.enter(asked(world, "r1"), "fix", world.now)
    world.now += HOUR
    later = asked(world, "r2")
    assert book.opened(later) == {}
    await book.enter(later, "fix", world.now)
    assert [one["request"] for one in on_record(world)] == [later.metadata.uid]


async def test_another_account_and_another_policy_count_by_themselves() -> None:
    world = a_world()
    book, first, second = a_ledger(world), asked(world, "r1"), asked(world, "r2")
    await book.enter(first, "fix", world.now)
    other = second.model_copy(
        update={
            "spec": second.spec.model_copy(
                update={"requester": second.spec.requester.model_copy(update={"service_account": "other"})}
            )
        }
    )
    assert book.opened(second) == {"fix": (world.now,)}
    assert book.opened(other) == {}


async def test_a_ledger_that_another_replica_wrote_to_is_read_again_and_keeps_both() -> None:
    world = a_world()
    mine, theirs = a_ledger(world), a_ledger(world)
    first, second, third = (asked(world, f"r{at}") for at in range(3))
    await mine.read()
    await theirs.read()
    await mine.enter(first, "fix", world.now)
    await theirs.enter(second, "fix", world.now)
    assert {one["request"] for one in on_record(world)} == {first.metadata.uid, second.metadata.uid}
    await mine.enter(third, "fix", world.now)
    assert len(on_record(world)) == 3
    assert len(mine.opened(asked(world, "r9"))["fix"]) == 3


async def test_a_ledger_goes_with_its_namespace_and_the_next_one_of_that_name_has_its_own() -> None:
    world = a_world()
    book = a_ledger(world)
    await book.enter(asked(world, "r1"), "fix", world.now)
    world.remove("Namespace", "", "shop")
    assert not world.of("Ledger")
    anew = world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    await book.enter(asked(world, "r2"), "fix", world.now)
    (body,) = world.of("Ledger")
    assert body["metadata"]["name"] == anew["metadata"]["uid"]
    assert body["metadata"]["ownerReferences"][0]["uid"] == anew["metadata"]["uid"]


async def test_what_could_not_be_written_is_not_granted_and_is_written_once_it_can_be() -> None:
    world = a_world()
    book, first = a_ledger(world), asked(world, "r1")
    world.faults = [500]
    with pytest.raises(ApiError):
        await book.enter(first, "fix", world.now)
    assert not world.of("Ledger")
    await book.enter(first, "fix", world.now)
    assert [one["request"] for one in on_record(world)] == [first.metadata.uid]


async def test_a_ledger_that_is_full_grants_no_more_and_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_OPENED", 2)
    world = a_world()
    book = a_ledger(world)
    await book.enter(asked(world, "r1"), "fix", world.now)
    world.now += timedelta(minutes=10)
    await book.enter(asked(world, "r2"), "fix", world.now)
    with pytest.raises(InvalidError, match=r"granted 2 times within the last hour .* ask again in 50m"):
        await book.enter(asked(world, "r3"), "fix", world.now)
    assert len(on_record(world)) == 2


def test_a_full_ledger_fits_into_what_the_api_server_stores() -> None:
    world = World()
    uid, longest = "x" * 36, "n" * 253
    one = {"request": uid, "policy": longest[:63], "serviceAccount": longest[:63], "at": format_time(world.now)}
    assert len(str([one] * MOST_OPENED)) < 1_400_000
