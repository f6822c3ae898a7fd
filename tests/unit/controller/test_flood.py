"""A flood of requests: what one ServiceAccount makes beyond its limit is deleted unread, and said once a minute."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tests.cluster.api import merged, until
from tests.properties.life import Process, a_world, pod, policy, request
from tests.properties.world import World
from valetkey.controller.queue import Key, Queue
from valetkey.kinds.base import REVOKE_FINALIZER

ACCOUNTS = "system:serviceaccount"
FIXERS, OTHERS = ([{"name": "them", "namespace": name, "serviceAccount": "fixer"}] for name in ("shop", "web"))


def flood(world: World, count: int, *, account: str = "fixer", first: int = 0) -> None:
    owner = world.objects.get(("Pod", "shop", "one")) or world.add("Pod", pod("one"))
    for number in range(first, first + count):
        body = request(f"{account}-{number:03}", owner, "2m", "valetkey-one-a", world.now)
        body["spec"]["requester"]["serviceAccount"] = account
        world.add("AccessRequest", body)


def dropped(world: World) -> list[str]:
    return [record["message"].partition(" ")[0] for record in world.records if record["reason"] == "RequestsDropped"]


async def test_what_an_account_makes_beyond_its_limit_is_deleted_and_leaves_two_records_not_a_hundred() -> None:
    world = a_world()
    flood(world, 100)
    process = Process(world, limit_requests=5)
    await process.watch()
    await process.work()
    assert len(world.of("AccessRequest")) == 5
    assert dropped(world) == ["1"]
    world.now += timedelta(minutes=1)
    flood(world, 10, first=100)
    await process.watch()
    await process.work()
    assert dropped(world) == ["1", "95"]
    assert process.metrics.registry.get_sample_value("valetkey_requests_dropped_total") == 105
    assert sum("RequestsDropped" in event for event in world.events) == 2


async def test_another_account_of_the_same_namespace_is_served_all_the_while() -> None:
    world = a_world()
    flood(world, 50, account="flooder")
    flood(world, 1)
    process = Process(world, limit_requests=5)
    await process.watch()
    await process.work()
    assert "fixer-000" in {body["metadata"]["name"] for body in world.of("TaskGrant")}


async def test_what_is_granted_or_has_ended_is_not_dropped_by_a_flood_that_comes_later() -> None:
    world = a_world()
    flood(world, 2)
    process = Process(world, limit_requests=5)
    await process.watch()
    await process.work()
    (grant,) = world.of("TaskGrant")
    before = {body["metadata"]["name"] for body in world.of("AccessRequest")}
    flood(world, 50, first=2)
    await process.watch()
    await process.work()
    assert before <= {body["metadata"]["name"] for body in world.of("AccessRequest")}
    assert world.of("TaskGrant")[0]["metadata"]["uid"] == grant["metadata"]["uid"]
    assert REVOKE_FINALIZER in grant["metadata"]["finalizers"]


async def test_a_loop_of_requests_that_are_denied_fills_neither_the_log_nor_the_others_time() -> None:
    world, limit = a_world(), 5
    deny = {"metadata": {"name": "no", "namespace": ""}, "spec": {"effect": "Deny", "subjects": FIXERS}}
    world.add("AgentPolicy", deny)
    world.add("Namespace", {"metadata": {"name": "web", "namespace": ""}})
    world.add("AgentPolicy", merged(policy(15), {"metadata": {"name": "web"}, "spec": {"subjects": OTHERS}}))
    process = Process(world, ("shop", "web"), limit_requests=limit)
    for round_ in range(20):
        flood(world, 10, first=10 * round_)  # whoever is denied asks again
        if round_ == 10:
            owner = world.add("Pod", merged(pod("other"), {"metadata": {"namespace": "web"}}))
            asked = {"metadata": {"namespace": "web"}, "spec": {"requester": {"username": f"{ACCOUNTS}:web:fixer"}}}
            world.add("AccessRequest", merged(request("r", owner, "2m", "valetkey-other-a", world.now), asked))
        await process.watch()
        await process.work()
        if round_ == 10:
            assert [body["metadata"]["namespace"] for body in world.of("TaskGrant")] == ["web"]
        world.now += timedelta(seconds=30)
    theirs = [record["reason"] for record in world.records if record["request"].startswith("shop/")]
    assert theirs.count("PolicyDenied") == limit
    assert theirs.count("RequestsDropped") <= 10, "once a minute"
    assert len(theirs) <= limit + 10


async def test_where_the_logs_volume_is_nearly_full_nothing_is_decided_and_what_ends_is_recorded() -> None:
    world = a_world()
    flood(world, 1)
    process = Process(world)
    await process.watch()
    await process.work()
    assert len(world.of("TaskGrant")) == 1
    world.log_is_nearly_full, before = True, len(world.records)
    flood(world, 10, first=1)
    await process.watch()
    await process.work()
    assert len(world.records) == before
    waits = world.objects["AccessRequest", "shop", "fixer-001"]["status"]["conditions"]
    assert any("nearly full" in condition["message"] for condition in waits)
    world.change("AccessRequest", "shop", "fixer-000", {"spec": {"outcome": "Succeeded"}})
    await process.watch()
    await process.work()
    assert world.of("TaskGrant") == []
    assert "CredentialRevoked" in [record["reason"] for record in world.records[before:]]


async def test_ten_thousand_looks_that_need_nothing_keep_nobody_from_running() -> None:
    process = Process(World(), queue=Queue())
    looks, turns = 10_000, 0

    async def renew() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for number in range(looks):
        process.queue.add(Key("shop", f"gone-{number}"), ending=True)
    renewing = asyncio.create_task(renew())
    working = asyncio.create_task(process.worker.work())

    async def all_looked_at() -> bool:
        return process.queue.waiting(ending=True).keys == 0

    await until(all_looked_at, "all to be looked at", seconds=10, pause=0.01)
    for task in (renewing, working):
        task.cancel()
    await asyncio.gather(renewing, working, return_exceptions=True)
    assert turns >= looks
