"""What ends a grant whose agent is not there any more: beats that do not come, a container that died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.properties.life import Process, a_world, approval, pod, request
from tests.properties.world import World
from tests.unit.controller.test_trust import finished, turn
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import HEARTBEAT, format_seconds
from valetkey.kube.api import ApiError, Json

EVERY = timedelta(seconds=10)


def begun(world: World | None = None, **spec: Any) -> tuple[World, Process]:
    """A pod that has asked, under a policy that wants to hear of it every minute."""
    world = a_world(world)
    rules = {"heartbeat": {"within": "60s"}} if "heartbeat" not in spec else {}
    world.change("AgentPolicy", "", "fix", {"spec": {**rules, **spec}, "metadata": {"generation": 2}})
    owner = world.add("Pod", pod("one"))
    world.add("AccessRequest", request("r", owner, "15m", "", world.now))
    return world, Process(world)


def beat(world: World, word: str) -> None:
    world.change("AccessRequest", "shop", "r", {"metadata": {"annotations": {HEARTBEAT: word, "other": "x" * 9}}})


async def time_goes_by(world: World, process: Process, times: int) -> None:
    """Ten seconds each; policies are read and keys looked at, as a running operator does."""
    for _ in range(times):
        world.now += EVERY
        await turn(process)


def live(world: World) -> bool:
    return bool(world.live_tokens()) and "end" not in world.of("TaskGrant")[0].get("status", {})


async def test_a_grant_lives_as_long_as_its_agent_is_heard_of_and_ends_when_it_is_not() -> None:
    world, process = begun()
    await turn(process)
    assert world.of("AccessRequest")[0]["status"]["heartbeat"] == {"within": "1m"}
    for number in range(4):
        await time_goes_by(world, process, 5)
        beat(world, str(number))
    await time_goes_by(world, process, 1)
    assert live(world)
    await time_goes_by(world, process, 5)
    assert live(world)
    await time_goes_by(world, process, 1)
    assert finished(world, "r")["reason"] == "HeartbeatLost"
    assert not world.live_tokens()
    assert "heartbeat" not in world.of("AccessRequest")[0]["status"]


async def test_the_same_word_again_is_no_beat() -> None:
    world, process = begun()
    await turn(process)
    for _ in range(7):
        beat(world, "alive")
        await time_goes_by(world, process, 1)
    assert finished(world, "r")["reason"] == "HeartbeatLost"


async def test_a_policy_without_heartbeat_wants_none() -> None:
    world, process = begun(heartbeat=None)
    await turn(process)
    await time_goes_by(world, process, 30)
    assert live(world)
    assert "heartbeat" not in world.of("AccessRequest")[0]["status"]


class Away(World):
    """A world that can be away."""

    away = False

    async def get(self, path: str) -> Json:
        if self.away:
            raise ApiError(0, "Unreachable", "no route to host")
        return await super().get(path)

    async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if self.away:
            raise ApiError(0, "Unreachable", "no route to host")
        async for body in super().list(path, metadata_only=metadata_only, selector=selector):
            yield body


async def test_beats_that_could_not_come_in_are_not_missed() -> None:
    world, process = begun(Away())
    assert isinstance(world, Away)
    await turn(process)
    await time_goes_by(world, process, 4)
    world.away = True
    for _ in range(12):
        world.now += EVERY
        await process.work()
    world.away = False
    await process.work()
    assert live(world), "policies were not read again yet: nor have its agents been heard of"
    await turn(process)
    await time_goes_by(world, process, 5)
    assert live(world), "the agent has not had its time since the API server is back"
    await time_goes_by(world, process, 1)
    assert finished(world, "r")["reason"] == "HeartbeatLost"


async def test_a_beat_that_the_watch_has_not_brought_yet_is_read_before_the_grant_is_ended() -> None:
    world, process = begun()
    await turn(process)
    await time_goes_by(world, process, 5)
    world.now += EVERY
    beat(world, "late news")
    await process.surroundings.refresh()
    await process.work()
    assert live(world)
    await time_goes_by(world, process, 5)
    assert live(world)


async def test_whoever_takes_over_gives_each_agent_its_time() -> None:
    world, process = begun()
    await turn(process)
    await time_goes_by(world, process, 5)
    process = Process(world)
    await process.relist.read_all()
    await turn(process)
    await time_goes_by(world, process, 5)
    assert live(world)
    await time_goes_by(world, process, 1)
    assert finished(world, "r")["reason"] == "HeartbeatLost"


async def test_a_grant_keeps_the_heartbeat_that_it_began_with() -> None:
    world, process = begun(heartbeat=None)
    await turn(process)
    world.change("AgentPolicy", "", "fix", {"spec": {"heartbeat": {"within": "15s"}}, "metadata": {"generation": 3}})
    await time_goes_by(world, process, 4)
    assert live(world)


def restarted(world: World, times: int, *, seconds_ago: float = 0, waits: bool = False) -> None:
    """Its container has been started again so often, or is about to be."""
    died = {"terminated": {"finishedAt": format_seconds(world.now - timedelta(seconds=seconds_ago))}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}} if waits else {"running": {}}
    one = {"name": "agent", "restartCount": times - waits, "state": state, "lastState": died}
    world.change("Pod", "shop", "one", {"status": {"containerStatuses": [one, {"name": "b", "restartCount": 0}]}})


@pytest.mark.parametrize("waits", [False, True], ids=["started again", "about to be"])
async def test_a_container_that_dies_ends_what_it_was_granted(waits: bool) -> None:
    world, process = begun()
    restarted(world, 3)
    await turn(process)
    await time_goes_by(world, process, 1)
    assert live(world)
    restarted(world, 4, waits=waits)
    await turn(process)
    assert finished(world, "r")["reason"] == "ContainerRestarted"
    assert not world.live_tokens()


async def test_a_policy_may_let_grants_outlive_it() -> None:
    world, process = begun(containerRestart="Keep")
    await turn(process)
    await time_goes_by(world, process, 1)
    restarted(world, 1)
    await turn(process)
    assert live(world)


async def test_what_came_after_it_is_not_ended_though_the_kubelet_tells_of_it_late() -> None:
    world, process = begun()
    await turn(process)
    world.now += timedelta(seconds=1)
    restarted(world, 1, seconds_ago=1.5)
    await turn(process)
    assert live(world)


async def test_a_node_whose_clock_is_ahead_ends_nothing_that_began_after_the_death() -> None:
    world, process = begun()
    restarted(world, 1, seconds_ago=-120)
    await turn(process)
    await time_goes_by(world, process, 1)
    assert live(world)


async def test_a_native_sidecar_that_dies_counts_and_a_container_that_ends_for_good_does_not() -> None:
    world, process = begun()
    await turn(process)
    await time_goes_by(world, process, 1)
    done = {"name": "helper", "restartCount": 0, "state": {"terminated": {"finishedAt": format_seconds(world.now)}}}
    world.change("Pod", "shop", "one", {"status": {"containerStatuses": [done]}})
    await turn(process)
    assert live(world)
    sidecar = {
        "name": "proxy",
        "restartCount": 1,
        "lastState": {"terminated": {"finishedAt": format_seconds(world.now)}},
    }
    world.change("Pod", "shop", "one", {"status": {"initContainerStatuses": [sidecar]}})
    await turn(process)
    assert finished(world, "r")["reason"] == "ContainerRestarted"


async def test_a_beat_wakes_nobody_and_counts_from_when_it_came() -> None:
    world, process = begun()
    await turn(process)
    await time_goes_by(world, process, 3)
    process.woken.clear()
    beat(world, "1")
    process.intake.request(world.objects["AccessRequest", "shop", "r"])
    assert process.woken == []
    await time_goes_by(world, process, 5)
    assert live(world)
    await time_goes_by(world, process, 1)
    assert finished(world, "r")["reason"] == "HeartbeatLost", "sixty seconds after it came, not after it was looked at"


async def test_an_outcome_that_comes_with_a_beat_is_heard() -> None:
    world, process = begun()
    await turn(process)
    process.woken.clear()
    beat(world, "1")
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Failed"}})
    process.intake.request(world.objects["AccessRequest", "shop", "r"])
    assert process.woken != []


def test_no_more_of_a_heartbeat_is_kept_than_is_looked_at() -> None:
    world, _ = begun()
    beat(world, "x" * 65000)
    kept = AccessRequest.model_validate(world.objects["AccessRequest", "shop", "r"])
    assert kept.beat == "x" * 64
    assert list(kept.metadata.annotations) == [HEARTBEAT]


async def test_a_restart_while_people_are_asked_is_not_granted_to_whoever_came_after() -> None:
    world, process = begun(approval={"approvals": 1, "timeout": "30m"})
    world.approvers["fix"] = {"ann"}
    await turn(process)
    await time_goes_by(world, process, 3)
    restarted(world, 1)
    world.add("AccessApproval", approval("a", world.objects["AccessRequest", "shop", "r"], "ann"))
    await turn(process)
    assert "ContainerRestarted" in finished(world, "r")["message"]
    assert not world.of("TaskGrant")


async def test_a_death_that_was_seen_is_told_by_our_own_time_whatever_the_nodes_clock_says() -> None:
    world, process = begun()
    restarted(world, 0)
    await turn(process)
    await time_goes_by(world, process, 1)
    restarted(world, 1, seconds_ago=120)  # by a clock that is two minutes behind
    await turn(process)
    assert finished(world, "r")["reason"] == "ContainerRestarted"
