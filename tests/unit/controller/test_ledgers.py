"""The ledgers: what policies that limit how often have granted; whatever is deleted or restarted, it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.properties.life import Process, a_world, pod, policy, request
from tests.properties.world import World
from tests.unit.policy.given import policy as allow
from tests.unit.policy.given import usable
from valetkey.controller import ledgers
from valetkey.controller.ledgers import Ledgers
from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_time
from valetkey.kinds.ledger import MOST_OPENED
from valetkey.kinds.taskgrant import PolicyReference
from valetkey.kube.api import ApiError, Json
from valetkey.policy.compile import Policies
from valetkey.policy.outcomes import Approved

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


POLICIES = Policies.of(
    [usable(allow("fix", limits={"perHour": 100})), usable(allow("other", limits={"cooldown": "1s"}))]
)


def approved(policy: str, remembers: int = 100) -> Approved:
    """A grant by a policy that limits how often it grants."""
    reference = PolicyReference(name=policy, uid="uid", generation=1)
    return Approved(reference, "e", HOUR, None, pod_templates=False, backstop=False, remembers=remembers)


async def entered(book: Ledgers, world: World, request: AccessRequest, policy: str = "fix") -> None:
    await book.enter(request, request.spec.requester.service_account, approved(policy), world.now)


async def opened(book: Ledgers, request: AccessRequest) -> Mapping[str, tuple[datetime, ...]]:
    return await book.opened(request, request.spec.requester.service_account, POLICIES)


def asked(world: World, name: str) -> AccessRequest:
    owner = world.objects.get(("Pod", "shop", "p")) or world.add("Pod", pod("p"))
    return AccessRequest.model_validate(
        world.add("AccessRequest", request(name, owner, "1m", "valetkey-p-a", world.now))
    )


def the_ledgers(world: World) -> Ledgers:
    return Ledgers(world, namespace="valetkey-system", clock=lambda: world.now)


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
    world = Slow()
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    book = the_ledgers(world)
    first, second = asked(world, "r1"), asked(world, "r2")
    await book.read()
    writing = asyncio.create_task(entered(book, world, first))
    await asyncio.sleep(0)
    assert not world.of("Ledger")
    assert (await opened(book, second)) == {"fix": (world.now,)}
    assert (await opened(book, first)) == {}  # its own is no reason to refuse it, should it be decided again
    await writing


async def test_several_that_come_at_once_share_a_write() -> None:
    world = Slow()
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    book, requests = the_ledgers(world), [asked(world, f"r{at}") for at in range(20)]
    await asyncio.gather(*(entered(book, world, one) for one in requests))
    assert len(on_record(world)) == 20
    assert world.writes == 2


async def test_what_is_older_than_an_hour_is_dropped() -> None:
    world = a_world()
    book = the_ledgers(world)
    await entered(book, world, asked(world, "r1"))
    world.now += HOUR
    later = asked(world, "r2")
    assert (await opened(book, later)) == {}
    await entered(book, world, later)
    assert [one["request"] for one in on_record(world)] == [later.metadata.uid]


async def test_another_account_and_another_policy_count_by_themselves() -> None:
    world = a_world()
    book, first, second = the_ledgers(world), asked(world, "r1"), asked(world, "r2")
    await entered(book, world, first)
    await entered(book, world, asked(world, "r3"), "other")
    await entered(book, world, asked(world, "r4"), "gone")
    requester = second.spec.requester.model_copy(update={"service_account": "other"})
    other = second.model_copy(update={"spec": second.spec.model_copy(update={"requester": requester})})
    assert await opened(book, second) == {"fix": (world.now,), "other": (world.now,)}
    assert await opened(book, other) == {}


async def test_no_more_is_kept_of_an_account_than_its_policy_looks_at() -> None:
    world = a_world()
    book = the_ledgers(world)
    for at in range(5):
        world.now += timedelta(minutes=1)
        await book.enter(asked(world, f"r{at}"), "fixer", approved("fix", 2), world.now)
    assert [one["at"] for one in on_record(world)] == [
        format_time(world.now - timedelta(minutes=1)),
        format_time(world.now),
    ]


async def test_a_ledger_that_another_replica_wrote_to_is_read_again_and_keeps_both() -> None:
    world = a_world()
    mine, theirs = the_ledgers(world), the_ledgers(world)
    first, second, third = (asked(world, f"r{at}") for at in range(3))
    await mine.read()
    await theirs.read()
    await entered(mine, world, first)
    await entered(theirs, world, second)
    assert {one["request"] for one in on_record(world)} == {first.metadata.uid, second.metadata.uid}
    await entered(mine, world, third)
    assert len(on_record(world)) == 3
    assert len((await opened(mine, asked(world, "r9")))["fix"]) == 3


async def test_a_ledger_goes_with_its_namespace_and_the_next_one_of_that_name_has_its_own() -> None:
    world = a_world()
    book = the_ledgers(world)
    await entered(book, world, asked(world, "r1"))
    world.remove("Namespace", "", "shop")
    assert not world.of("Ledger")
    anew = world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    await entered(book, world, asked(world, "r2"))
    (body,) = world.of("Ledger")
    assert body["metadata"]["name"] == anew["metadata"]["uid"]
    assert body["metadata"]["ownerReferences"][0]["uid"] == anew["metadata"]["uid"]


async def test_what_could_not_be_written_is_not_granted_and_is_written_once_it_can_be() -> None:
    world = a_world()
    book, first = the_ledgers(world), asked(world, "r1")
    world.faults = [500]
    with pytest.raises(ApiError):
        await entered(book, world, first)
    assert not world.of("Ledger")
    await entered(book, world, first)
    assert [one["request"] for one in on_record(world)] == [first.metadata.uid]


async def test_a_ledger_that_is_full_grants_no_more_and_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_OPENED", 2)
    world = a_world()
    book = the_ledgers(world)
    await entered(book, world, asked(world, "r1"))
    world.now += timedelta(minutes=10)
    await entered(book, world, asked(world, "r2"))
    with pytest.raises(InvalidError, match=r"granted 2 times within the last hour .* ask again in 50m"):
        await entered(book, world, asked(world, "r3"))
    assert len(on_record(world)) == 2


async def test_what_is_there_already_finds_room_in_a_ledger_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_OPENED", 1)
    world = a_world()
    book, first = the_ledgers(world), asked(world, "r1")
    world.faults = [500]
    with pytest.raises(ApiError):
        await entered(book, world, first)
    await entered(book, world, first)
    assert len(on_record(world)) == 1


async def test_a_ledger_that_cannot_be_read_stops_its_own_namespace_alone_and_says_what_to_do() -> None:
    world = a_world()
    limited(world, perHour=1)
    newer = {"spec": {"namespace": "elsewhere", "opened": [{"field": "of a later version"}]}}
    world.add("Ledger", {"metadata": {"name": "another-uid", "namespace": "valetkey-system"}, **newer})
    assert await asks(world, await lives(world), "r1") == "PolicyMatched"
    newer["spec"]["namespace"] = "shop"
    world.add("Ledger", {"metadata": {"name": "yet-another", "namespace": "valetkey-system"}, **newer})
    process = await lives(world)
    asked(world, "r2")
    await process.watch()
    await process.work()
    assert not world.of("TaskGrant")
    condition = world.objects["AccessRequest", "shop", "r2"]["status"]["conditions"][1]
    assert condition["status"] == "Unknown"
    assert "Ledger yet-another in the operator's namespace cannot be read by this version" in condition["message"]


async def test_a_time_that_is_still_to_come_locks_nobody_out_for_longer_than_an_hour() -> None:
    world = a_world()
    ahead = {"request": "x", "policy": "fix", "serviceAccount": "fixer", "at": "9999-12-31T23:59:59Z"}
    spec = {"namespace": "shop", "opened": [ahead]}
    world.add("Ledger", {"metadata": {"name": "a-uid", "namespace": "valetkey-system"}, "spec": spec})
    assert await opened(the_ledgers(world), asked(world, "r1")) == {"fix": (world.now,)}


async def test_a_ledger_that_cannot_be_read_for_now_grants_nothing_meanwhile() -> None:
    class Away(World):
        gone = True

        async def list(self, path: str, **options: Any) -> AsyncIterator[Json]:
            if self.gone and path.endswith("/ledgers"):
                raise ApiError(503, "ServiceUnavailable", "etcd is away")
            async for body in super().list(path, **options):
                yield body

    world = Away()
    book, request = the_ledgers(world), asked(world, "r1")
    with pytest.raises(ApiError):
        await opened(book, request)
    world.gone = False
    assert await opened(book, request) == {}


async def test_what_took_long_to_be_written_is_decided_again_and_counted_from_then() -> None:
    class Hanging(World):
        async def create(self, path: str, body: Json) -> Json:
            if path.endswith("/ledgers"):
                self.now += timedelta(seconds=20)
            return await super().create(path, body)

    world = Hanging()
    a_world(world)
    limited(world, cooldown="30s")
    process = await lives(world)
    asked(world, "r1")
    await process.watch()
    await process.work()
    assert not world.of("TaskGrant")
    await process.watch()
    await process.work()
    assert len(world.of("TaskGrant")) == 1
    assert on_record(world)[0]["at"] == format_time(world.now)


async def test_where_the_namespace_is_gone_too_it_is_said_so() -> None:
    world = a_world()
    world.remove("Namespace", "", "shop")
    with pytest.raises(ApiError, match="Namespace"):
        await entered(the_ledgers(world), world, asked(world, "r1"))


def test_a_full_ledger_fits_into_what_the_api_server_stores() -> None:
    longest = "n" * 253
    one = {"request": "x" * 64, "policy": longest, "serviceAccount": longest, "at": format_time(World().now)}
    assert len(orjson.dumps([one] * MOST_OPENED)) < 1_500_000
