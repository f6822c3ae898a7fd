"""What ends for good is denied while its end is written; what may yet be undone is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.properties.life import Process, a_world, pod, policy, request
from tests.properties.world import World
from valetkey.controller import endings
from valetkey.controller.queue import Key
from valetkey.kube.api import ApiError, Json

AGENT = Key("shop", "agent")


async def granted(world: World) -> Process:
    """An agent that holds a credential."""
    owner = world.add("Pod", pod("agent"))
    world.add("AccessRequest", request("agent", owner, "15m", "valetkey-agent-a", world.now))
    process = Process(world)
    await run(process)
    assert world.of("RoleBinding")
    return process


async def run(process: Process) -> None:
    await process.watch()
    await process.worker.run(AGENT)


def refuse_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No end can be written."""
    patch = world.patch

    async def refused(path: str, body: Json) -> Json:
        if "end" in body.get("status", {}):
            raise ApiError(500, "InternalError", "a webhook is down")
        return await patch(path, body)

    monkeypatch.setattr(world, "patch", refused)


@pytest.mark.parametrize("gone", ["outcome", "time", "pod", "request"])
async def test_what_ends_for_good_is_denied_though_its_end_cannot_be_written(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world()
    process = await granted(world)
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        match gone:
            case "outcome":
                world.change("AccessRequest", *AGENT, {"spec": {"outcome": "Succeeded"}})
            case "time":
                world.now += timedelta(minutes=15)
            case "pod":
                world.remove("Pod", *AGENT)
            case _:
                world.remove("AccessRequest", *AGENT)
        await run(process)
        assert not world.of("RoleBinding")
        (grant,) = world.of("TaskGrant")
        assert "end" not in grant["status"]
    await run(process)
    for kind in ("TaskGrant", "RoleBinding", "Role", "ServiceAccount", "Secret"):
        assert not world.of(kind), kind
    assert not world.live_tokens()


async def test_what_policy_ends_is_denied_only_once_that_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    (before,) = world.of("AgentPolicy")
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": policy(1)["spec"]})
        await run(process)
        assert process.queue.failures(AGENT) == 1, "its end was to be written"
        assert world.of("RoleBinding"), "the policy may be set back, and then the grant lives on"
    world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 3}, "spec": before["spec"]})
    await run(process)
    assert world.of("RoleBinding")
    assert world.live_tokens()


async def test_an_end_is_written_though_the_denial_ahead_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    delete = world.delete

    async def refused(path: str, *, uid: str) -> Json:
        if "/rolebindings/" in path:
            raise ApiError(500, "InternalError", "a webhook is down")
        return await delete(path, uid=uid)

    world.change("AccessRequest", *AGENT, {"spec": {"outcome": "Succeeded"}})
    with monkeypatch.context() as trouble:
        trouble.setattr(world, "delete", refused)
        await run(process)
        (grant,) = world.of("TaskGrant")
        assert grant["status"]["end"]["reason"] == "TaskReleased"
        assert not world.of("ServiceAccount"), "what cannot be denied loses its account"
        assert world.of("RoleBinding")
    await run(process)
    assert not world.of("RoleBinding")
    assert not world.of("TaskGrant")


async def test_an_end_waits_for_the_denial_ahead_of_it_no_longer_than_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    process = await granted(world)
    delete, asked = world.delete, list[str]()

    async def hang_once(path: str, *, uid: str) -> Json:
        if "/rolebindings/" in path and not asked:
            asked.append(path)
            await asyncio.Event().wait()
        return await delete(path, uid=uid)

    monkeypatch.setattr(endings, "AHEAD", timedelta(milliseconds=20))
    monkeypatch.setattr(world, "delete", hang_once)
    world.change("AccessRequest", *AGENT, {"spec": {"outcome": "Succeeded"}})
    await asyncio.wait_for(run(process), 5)
    assert asked
    assert not world.of("TaskGrant")
    assert not world.of("RoleBinding")
    assert not world.live_tokens()
