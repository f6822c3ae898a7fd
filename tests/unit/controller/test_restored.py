"""A store that is restored from an older snapshot brings back what had ended; the log knows better."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import until
from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from tests.unit.controller.test_handlers import operator_of
from valetkey.audit import history
from valetkey.controller.queue import Key
from valetkey.kube.api import Json, RewoundError

LEADER = {"metadata": {"name": "valetkey", "namespace": "valetkey-system"}}


def a_world() -> World:
    """A pod that has asked for something that it may have."""
    world = World()
    world.now = datetime.now(UTC) - timedelta(minutes=1)
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    return world


async def watched(world: World, operator: Any, *kinds: str) -> None:
    """What watches bring of these kinds."""
    takes = {
        "AccessRequest": operator.watched.on_request,
        "TaskGrant": operator.watched.on_grant,
        "Pod": operator.watched.on_pod,
    }
    for kind in kinds:
        for body in world.of(kind):
            takes[kind](copy.deepcopy(body), deleted=False)


async def granted_and_released(world: World, directory: Path) -> dict[Any, Any]:
    """Lets one operator grant and revoke; gives the store as it was in between."""
    operator, _ = operator_of(world, directory, targets=("shop",))
    world.now = datetime.now(UTC) - timedelta(seconds=30)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "15m", "valetkey-one-a", world.now))
    try:
        await operator.start(lambda: None)

        async def delivered() -> bool:
            return any(record["reason"] == "CredentialDelivered" for record in history.read(directory / "log")[0])

        await until(delivered, "the request to be granted", seconds=5)
        snapshot = copy.deepcopy(world.objects)
        world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
        await watched(world, operator, "AccessRequest")

        async def ended() -> bool:
            return not world.of("TaskGrant")

        await until(ended, "the grant to be let go", seconds=5)
    finally:
        await operator.stop()
    return snapshot


async def test_what_had_ended_is_ended_again_when_the_store_has_forgotten_it(tmp_path: Path) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path)
    world.objects = snapshot
    assert world.live_tokens(), "the restored store brings the credential back"
    operator, _ = operator_of(world, tmp_path, targets=("shop",))
    try:
        await operator.start(lambda: None)

        async def ended_again() -> bool:
            return not world.of("TaskGrant") and not world.live_tokens()

        await until(ended_again, "the grant to be ended again", seconds=5)
    finally:
        await operator.stop()
    records, broken = history.read(tmp_path / "log")
    assert [record["end"] for record in records if record["reason"] == "CredentialRevoked"] == ["TaskReleased"] * 2
    assert not broken


async def test_a_grant_that_a_leader_let_go_while_all_was_read_is_late_news_and_no_restored_store(
    tmp_path: Path,
) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path)
    listing, late = world.list, [body for body in snapshot.values() if body["kind"] == "TaskGrant"]

    async def before(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if path.endswith("/taskgrants"):
            for body in late:
                yield copy.deepcopy(body)
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body

    world.list = before  # type: ignore[method-assign]
    operator, _ = operator_of(world, tmp_path, targets=("shop",))
    try:
        await operator.start(lambda: None)
        await asyncio.sleep(0.2)
    finally:
        await operator.stop()
    assert "StoreRestored" not in {record["reason"] for record in history.read(tmp_path / "log")[0]}


async def test_a_request_whose_grant_had_ended_is_not_granted_again(tmp_path: Path) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path)
    world.objects = {key: body for key, body in snapshot.items() if body["kind"] != "TaskGrant"}
    for body in world.of("AccessRequest"):
        body.pop("status", None)
    operator, _ = operator_of(world, tmp_path, targets=("shop",))
    try:
        await operator.start(lambda: None)

        async def refused() -> bool:
            (asked,) = world.of("AccessRequest")
            return any(c["reason"] == "RequestInvalid" for c in asked.get("status", {}).get("conditions", ()))

        await until(refused, "the request to be refused", seconds=5)
    finally:
        await operator.stop()
    assert not world.of("TaskGrant")


async def test_whatever_else_was_made_before_the_restore_ends_with_it_and_what_is_made_after_does_not(
    tmp_path: Path,
) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path)
    world.objects = snapshot
    world.add("AccessRequest", request("s", world.add("Pod", pod("two")), "15m", "valetkey-two-a", world.now))
    operator, _ = operator_of(world, tmp_path, targets=("shop",))
    try:
        await operator.start(lambda: None)
        world.now = datetime.now(UTC) + timedelta(seconds=1)
        world.add("AccessRequest", request("t", world.add("Pod", pod("three")), "15m", "valetkey-three-a", world.now))

        async def settled() -> bool:
            operator.watched.on_pod(copy.deepcopy(world.objects["Pod", "shop", "three"]), deleted=False)
            await watched(world, operator, "AccessRequest")
            return [body["metadata"]["name"] for body in world.of("TaskGrant")] == ["t"] and len(
                world.live_tokens()
            ) == 1

        await until(settled, "only what was asked for afterwards to be granted", seconds=5)
    finally:
        await operator.stop()
    for name in ("r", "s"):
        conditions = world.objects["AccessRequest", "shop", name]["status"]["conditions"]
        assert any(c["type"] == "Finished" and c["status"] == "True" for c in conditions), name


async def test_a_replica_that_only_follows_remembers_what_the_leader_let_go(tmp_path: Path) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path / "leader")
    (grant,) = (body for body in snapshot.values() if body["kind"] == "TaskGrant")
    world.objects = copy.deepcopy(snapshot)
    world.remove("Leader", "valetkey-system", "valetkey")
    world.add("Leader", {**LEADER, "spec": {"holderIdentity": "valetkey-1_uid", "leaseDurationSeconds": 60}})
    follower, _ = operator_of(world, tmp_path, targets=("shop",))
    try:
        await follower.start(lambda: None)
        follower.watched.on_grant(grant | {"status": {"end": {"reason": "TaskReleased"}}}, deleted=True)
    finally:
        await follower.stop()
    uid = grant["metadata"]["uid"]
    found = history.past(tmp_path / "log", {uid, "another"}, since=world.now)
    assert found.ended == {uid: "TaskReleased"}


@pytest.mark.parametrize("text", ['"reason":"CredentialRevoked"', {"reason": "CredentialRevoked"}])
async def test_what_an_agent_writes_into_its_request_is_no_end(tmp_path: Path, text: Any) -> None:
    operator, _ = operator_of(World(), tmp_path)
    await operator._log.write("IdentityVerified", request_uid="u", facts=text, message="GrantGone")
    await operator._log.close()
    assert history.past(tmp_path / "log", {"u"}, since=datetime.now(UTC)) == history.Past({}, None)


@pytest.mark.parametrize("terminating", [True, False])
async def test_a_grant_that_is_there_again_though_it_was_seen_to_be_gone_is_not_asked_for_without_end(
    terminating: bool,
) -> None:
    world = a_world()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.now += timedelta(seconds=30)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "15m", "valetkey-one-a", world.now))
    process = Process(world)
    await process.watch()
    await process.work()
    (grant,) = copy.deepcopy(world.of("TaskGrant"))
    process.cache.grants.remove(Key("shop", "r"), grant["metadata"]["uid"])
    if terminating:
        world.change("TaskGrant", "shop", "r", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        await asyncio.wait_for(process.worker.run(Key("shop", "r")), 5)
    else:  # a store whose versions went on when it was restored
        with pytest.raises(RewoundError):
            await asyncio.wait_for(process.worker.run(Key("shop", "r")), 5)


async def test_what_one_replica_has_found_the_leader_acts_on_though_its_own_log_knows_nothing(tmp_path: Path) -> None:
    world = a_world()
    snapshot = await granted_and_released(world, tmp_path / "one")
    world.objects = copy.deepcopy(snapshot)
    world.remove("Leader", "valetkey-system", "valetkey")
    leading, _ = operator_of(world, tmp_path / "two", targets=("shop",))
    try:
        await leading.start(lambda: None)

        async def leads() -> bool:
            return bool(world.of("Leader")) and bool(world.live_tokens())

        await until(leads, "the other replica to lead", seconds=5)
        following, _ = operator_of(world, tmp_path / "one", identity="valetkey-1_uid", targets=("shop",))
        try:
            await following.start(lambda: None)

            async def ended_again() -> bool:
                return not world.of("TaskGrant") and not world.live_tokens()

            await until(ended_again, "the leader to end the grant", seconds=5)
        finally:
            await following.stop()
    finally:
        await leading.stop()
    (leader,) = world.of("Leader")
    assert "restoredAt" in leader["spec"]
