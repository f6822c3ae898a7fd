"""The backstop: a timer Job that ends a grant at its time, whatever becomes of the operator."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import Crash, World, ends_at
from valetkey.issuers.timer import timer
from valetkey.kube.api import Json

TTL = timedelta(minutes=2)


def begun(backstop: str = "Job", ttl: str = "2m") -> tuple[World, Process]:
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15, backstop))
    world.now += timedelta(minutes=1)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), ttl, "valetkey-one-a", world.now))
    return world, Process(world)


async def turn(process: Process) -> None:
    await process.watch()
    await process.work()


def only(world: World, kind: str) -> Json:
    (body,) = world.of(kind)
    return body


def not_after(world: World) -> datetime:
    return datetime.fromisoformat(only(world, "TaskGrant")["spec"]["order"]["notAfter"])


def check_timed(world: World) -> None:
    """The account goes with the timer, and the timer with the grant's time."""
    job, account = only(world, "Job"), only(world, "ServiceAccount")
    reference = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    assert account["metadata"]["ownerReferences"] == [reference]
    assert timedelta(seconds=2) <= ends_at(job) - not_after(world) <= timedelta(seconds=3)


@pytest.mark.parametrize(("left", "seconds"), [(60.0, 62), (59.001, 62), (0.5, 3), (0.0, 2), (-7.0, 2)])
def test_a_timer_runs_for_what_is_left_and_two_seconds(left: float, seconds: int) -> None:
    assert timer(timedelta(seconds=left))["spec"]["activeDeadlineSeconds"] == seconds


def test_a_timer_runs_nothing_and_leaves_nothing() -> None:
    spec = timer(TTL)["spec"]
    assert (spec["parallelism"], spec["ttlSecondsAfterFinished"]) == (0, 0)
    assert "completions" not in spec
    assert "suspend" not in spec


async def test_the_account_of_a_grant_with_a_backstop_goes_with_its_timer() -> None:
    world, process = begun()
    await turn(process)
    assert len(world.live_tokens()) == 1
    check_timed(world)
    made = {entry["kind"]: entry["uid"] for entry in only(world, "TaskGrant")["status"]["made"]}
    assert made["Job"] == only(world, "Job")["metadata"]["uid"]


async def test_without_a_backstop_there_is_no_timer_and_nothing_owns_the_account() -> None:
    world, process = begun("None")
    await turn(process)
    assert len(world.live_tokens()) == 1
    assert not world.of("Job")
    assert "ownerReferences" not in only(world, "ServiceAccount")["metadata"]


async def test_with_the_operator_gone_the_credential_is_dead_at_its_time_and_the_rest_goes_when_it_is_back() -> None:
    world, process = begun()
    await turn(process)
    world.pass_time(TTL)
    assert world.live_tokens(), "not before its time"
    world.pass_time(timedelta(seconds=3))
    assert not world.live_tokens()
    assert not world.of("ServiceAccount")
    assert not world.of("Job")
    assert world.of("RoleBinding"), "nothing is owned across namespaces"
    process = Process(world)
    await process.relist.read_all()
    await turn(process)
    for kind in ("TaskGrant", "RoleBinding", "Role"):
        assert not world.of(kind)
    assert [r["end"] for r in world.records if r["reason"] == "CredentialRevoked"] == ["TTLReached"]


async def test_what_ends_before_its_time_takes_its_timer_along() -> None:
    world, process = begun()
    await turn(process)
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await turn(process)
    for kind in ("TaskGrant", "Job", "ServiceAccount", "RoleBinding", "Role", "Secret"):
        assert not world.of(kind), kind


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_request_leaves_one_timer_which_no_later_try_prolongs(after: bool) -> None:
    crashes = 0
    for fuse in range(1, 60):
        world, process = begun()
        await process.watch()
        world.fuse, world.fuse_after = fuse, after
        try:
            await process.work()
        except Crash:
            crashes += 1
        finished, world.fuse, world.dead = not world.dead, None, False
        left = [job["metadata"]["uid"] for job in world.of("Job")]
        world.pass_time(timedelta(seconds=30))
        process = Process(world)
        await process.relist.read_all()
        await turn(process)
        check_timed(world)
        assert len(world.live_tokens()) >= 1
        assert not left or left == [only(world, "Job")["metadata"]["uid"]]
        if finished:
            break
    assert crashes > 15


async def test_a_timer_that_somebody_deletes_takes_the_account_along_and_both_are_made_again_at_the_renewal() -> None:
    world, process = begun(ttl="15m")
    await turn(process)
    first = only(world, "Job")
    world.remove("Job", first["metadata"]["namespace"], first["metadata"]["name"])
    assert not world.live_tokens()
    world.pass_time(timedelta(minutes=7))
    await turn(process)
    await turn(process)
    assert len(world.live_tokens()) == 1
    check_timed(world)
    again = only(world, "Job")
    assert again["spec"]["activeDeadlineSeconds"] == first["spec"]["activeDeadlineSeconds"] - 7 * 60


async def test_a_grant_keeps_the_backstop_that_it_was_opened_with() -> None:
    world, process = begun()
    await turn(process)
    world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": policy(15)["spec"]})
    await turn(process)
    check_timed(world)
    assert len(world.live_tokens()) == 1
