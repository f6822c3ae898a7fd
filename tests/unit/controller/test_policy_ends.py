"""A policy that ends, or is no longer enforced, takes along what it granted."""

from __future__ import annotations

from datetime import timedelta

import orjson

from tests.properties.life import GUARD, Process, a_world, pod, policy, request
from tests.properties.world import World
from valetkey.kinds.base import format_time
from valetkey.kube.api import Json

LEFT = timedelta(minutes=3)


async def granted(left: timedelta) -> tuple[World, Process]:
    """A live grant of 15 minutes by a policy that ends sooner."""
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    body = policy(15)
    world.now += timedelta(minutes=1)
    body["spec"]["until"] = format_time(world.now + left)
    world.add("AgentPolicy", body)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "15m", "valetkey-one-a", world.now))
    process = Process(world)
    await turn(process)
    assert len(world.live_tokens()) == 1
    return world, process


async def turn(process: Process, times: int = 1) -> None:
    for _ in range(times):
        await process.watch()
        await process.work()


def rewrite(world: World, **spec: object) -> None:
    world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": spec})


def order(world: World) -> Json:
    (grant,) = world.of("TaskGrant")
    found: Json = grant["spec"]["order"]
    return found


def ended(world: World) -> str:
    (body,) = world.of("AccessRequest")
    reason: str = next(c["reason"] for c in body["status"]["conditions"] if c["type"] == "Finished")
    return reason


async def test_a_grant_ends_at_the_moment_at_which_its_policy_does() -> None:
    world, process = await granted(LEFT)
    until = world.now + LEFT
    assert order(world)["notAfter"] == format_time(until)
    world.now = until - timedelta(microseconds=1)
    await turn(process, 2)
    assert len(world.live_tokens()) == 1
    world.now = until
    await turn(process, 3)
    assert not world.live_tokens()
    assert not world.of("TaskGrant")
    assert ended(world) == "TTLReached"


async def test_a_policy_whose_end_is_brought_forward_ends_what_would_live_longer() -> None:
    world, process = await granted(LEFT)
    rewrite(world, until=format_time(world.now + LEFT - timedelta(seconds=1)))
    await turn(process, 3)
    assert not world.live_tokens()
    assert ended(world) == "PolicyChanged"


async def test_a_policy_whose_end_is_put_off_leaves_its_grants_as_they_are() -> None:
    world, process = await granted(LEFT)
    before = order(world)
    rewrite(world, until=format_time(world.now + 2 * LEFT))
    await turn(process, 2)
    assert order(world) == before
    assert len(world.live_tokens()) == 1


async def test_an_allow_that_is_no_longer_enforced_ends_what_it_granted() -> None:
    world, process = await granted(LEFT)
    rewrite(world, mode="Audit")
    await turn(process, 3)
    assert not world.live_tokens()
    assert not world.of("TaskGrant")
    assert ended(world) == "PolicyChanged"


def lock(**spec: object) -> Json:
    return {"metadata": {"name": "lock", "namespace": ""}, "spec": {"effect": "Deny", **spec}}


async def test_a_deny_in_audit_mode_leaves_live_grants_alone_until_it_is_enforced() -> None:
    world, process = await granted(LEFT)
    world.add("AgentPolicy", lock(mode="Audit"))
    await turn(process, 2)
    assert len(world.live_tokens()) == 1
    world.change("AgentPolicy", "", "lock", {"metadata": {"generation": 2}, "spec": {"mode": "Enforce"}})
    await turn(process, 3)
    assert not world.live_tokens()
    assert ended(world) == "PolicyChanged"


async def test_the_record_of_a_decision_holds_what_a_policy_in_audit_mode_would_have_said() -> None:
    world, process = await granted(LEFT)
    (record,) = [record for record in world.records if record["reason"] == "PolicyMatched"]
    assert "audit" not in record
    world.add("AgentPolicy", lock(mode="Audit"))
    world.add("AccessRequest", request("s", world.add("Pod", pod("two")), "1m", "valetkey-two-a", world.now))
    await turn(process)
    assert len(world.live_tokens()) == 2
    record = [record for record in world.records if record["reason"] == "PolicyMatched"][-1]
    (said,) = orjson.loads(orjson.dumps(record["audit"]))
    assert said == {
        "policy": "lock",
        "says": "Denied",
        "differs": True,
        "message": "Policy lock denies every access: no other policy can allow it. Ask those who look after it.",
    }


async def test_a_policy_in_audit_mode_that_cannot_be_read_leaves_everyone_to_the_others() -> None:
    world, process = await granted(LEFT)
    world.add("AgentPolicy", lock(mode="Audit", from_a_newer_version=True))
    world.add("AccessRequest", request("s", world.add("Pod", pod("two")), "1m", "valetkey-two-a", world.now))
    await turn(process, 2)
    assert len(world.live_tokens()) == 2
    world.change("AgentPolicy", "", "lock", {"metadata": {"generation": 2}, "spec": {"mode": "Enforce"}})
    world.add("AccessRequest", request("t", world.add("Pod", pod("three")), "1m", "valetkey-three-a", world.now))
    await turn(process, 2)
    assert len(world.live_tokens()) == 2


async def test_an_allow_that_this_version_cannot_read_is_named_to_those_whom_it_is_about() -> None:
    world = a_world()
    newer = policy(15)["spec"] | {"ofALaterVersion": True}
    world.change("AgentPolicy", "", "fix", {"spec": newer, "metadata": {"generation": 2}})
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "1m", "valetkey-one-a", world.now))
    process = Process(world)
    await process.watch()
    await process.work()
    denial = world.objects["AccessRequest", "shop", "r"]["status"]["decision"]["denial"]
    assert denial["reason"] == "NoPolicyMatched"
    assert denial["message"].endswith("Skipped, since it cannot be used as written: fix.")
