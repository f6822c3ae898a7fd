"""What ends for good is disabled while its end is written; what may yet be undone is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.cluster.api import until
from tests.properties.life import Process, a_world, pod, request
from tests.properties.world import World
from valetkey.controller import endings
from valetkey.controller.queue import Key
from valetkey.kinds.base import AGENT_LABEL, HEARTBEAT
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


def end(world: World, why: str) -> None:
    """Something that nobody can undo."""
    match why:
        case "outcome":
            world.change("AccessRequest", *AGENT, {"spec": {"outcome": "Succeeded"}})
        case "time":
            world.now += timedelta(minutes=15)
        case "finished":
            world.change("Pod", *AGENT, {"status": {"phase": "Succeeded"}})
        case _:
            world.remove("TaskGrant", *AGENT)


@pytest.mark.parametrize("why", ["outcome", "time", "finished", "grant"])
async def test_what_ends_for_good_is_disabled_though_its_end_cannot_be_written_and_ends_after_a_crash(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world()
    process = await granted(world)
    end(world, why)
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        await run(process)
        assert not world.of("RoleBinding")
        (grant,) = world.of("TaskGrant")
        assert "end" not in grant["status"]
    await run(Process(world))
    for kind in ("TaskGrant", "RoleBinding", "Role", "ServiceAccount", "Secret"):
        assert not world.of(kind), kind
    assert not world.live_tokens()


async def test_no_credential_works_while_an_end_is_slow_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    patch, goes_on = world.patch, asyncio.Event()

    async def slow(path: str, body: Json) -> Json:
        if "end" in body.get("status", {}):
            await goes_on.wait()
        return await patch(path, body)

    async def unbound() -> bool:
        return not world.of("RoleBinding")

    monkeypatch.setattr(world, "patch", slow)
    end(world, "outcome")
    running = asyncio.create_task(run(process))
    await until(unbound, "the binding to go", seconds=2)
    assert "end" not in world.of("TaskGrant")[0]["status"]
    goes_on.set()
    await asyncio.wait_for(running, 5)
    assert not world.of("TaskGrant")


async def test_what_policy_ends_is_disabled_only_once_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        change_policy(world, 2, {"ttl": {"default": "1m", "max": "1m"}})
        await run(process)
        assert process.queue.failures(AGENT) == 1, "its end was to be written"
        assert world.of("RoleBinding")
    change_policy(world, 3, {"ttl": {"default": "1m", "max": "15m"}})
    await run(process)
    assert world.of("RoleBinding"), "it was set back, and the grant lives on"
    assert world.live_tokens()


async def test_what_ends_by_a_pods_label_is_disabled_only_once_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        world.change("Pod", *AGENT, {"metadata": {"labels": {AGENT_LABEL: "false"}}})
        await run(process)
        assert process.queue.failures(AGENT) == 1, "its end was to be written"
        assert world.of("RoleBinding")
    world.change("Pod", *AGENT, {"metadata": {"labels": {AGENT_LABEL: "true"}}})
    await run(Process(world))
    assert world.of("RoleBinding"), "who takes over knows nothing of it, and the grant lives on"
    assert world.live_tokens()


async def test_what_ends_for_want_of_a_beat_is_disabled_only_once_that_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    change_policy(world, 2, {"heartbeat": {"within": "60s"}})
    process = await granted(world)
    with monkeypatch.context() as trouble:
        refuse_ends(world, trouble)
        for _ in range(7):
            world.now += timedelta(seconds=10)
            await run(process)
        assert process.queue.failures(AGENT) > 0, "its end was to be written"
        assert world.of("RoleBinding")
    world.change("AccessRequest", *AGENT, {"metadata": {"annotations": {HEARTBEAT: "here"}}})
    await run(process)
    assert world.of("RoleBinding"), "it beats, and lives on"
    assert world.live_tokens()


def change_policy(world: World, generation: int, spec: Json) -> None:
    world.change("AgentPolicy", "", "fix", {"metadata": {"generation": generation}, "spec": spec})


async def test_a_binding_that_a_late_write_brings_back_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    delete, late = world.delete, list(world.of("RoleBinding"))

    async def crossed(path: str, *, uid: str) -> Json:
        if "/secrets/" in path and late:
            world.add("RoleBinding", late.pop())
        return await delete(path, uid=uid)

    monkeypatch.setattr(world, "delete", crossed)
    end(world, "outcome")
    await run(process)
    assert world.of("TaskGrant"), "it is not proved yet"
    await run(process)
    assert not late
    assert not world.of("RoleBinding")
    assert not world.of("TaskGrant")


async def test_an_end_is_written_though_the_credential_cannot_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    process = await granted(world)
    delete = world.delete

    async def refused(path: str, *, uid: str) -> Json:
        if "/rolebindings/" in path:
            raise ApiError(500, "InternalError", "a webhook is down")
        return await delete(path, uid=uid)

    end(world, "outcome")
    with monkeypatch.context() as trouble:
        trouble.setattr(world, "delete", refused)
        await run(process)
        (grant,) = world.of("TaskGrant")
        assert grant["status"]["end"]["reason"] == "TaskReleased"
        assert not world.of("ServiceAccount"), "what cannot be disabled loses its account"
        assert world.of("RoleBinding")
    await run(process)
    assert not world.of("RoleBinding")
    assert not world.of("TaskGrant")


async def test_an_end_waits_for_what_disables_it_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = a_world()
    process = await granted(world)
    delete, asked = world.delete, list[str]()

    async def hang_once(path: str, *, uid: str) -> Json:
        if "/rolebindings/" in path and not asked:
            asked.append(path)
            await asyncio.Event().wait()
        return await delete(path, uid=uid)

    monkeypatch.setattr(endings, "DISABLED_WITHIN", timedelta(milliseconds=20))
    caplog.set_level("INFO")
    monkeypatch.setattr(world, "delete", hang_once)
    end(world, "outcome")
    await asyncio.wait_for(run(process), 5)
    assert asked
    assert "no answer within" in caplog.text
    assert not world.of("TaskGrant")
    assert not world.of("RoleBinding")
    assert not world.live_tokens()


@pytest.mark.parametrize("kind", ["rolebindings", "roles", "serviceaccounts"])
async def test_that_a_deletion_finds_nothing_is_no_proof_where_a_webhook_says_so(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world()
    process = await granted(world)
    delete = world.delete

    async def refused(path: str, *, uid: str) -> Json:
        return {"kind": "Status"} if f"/{kind}/" in path else await delete(path, uid=uid)

    end(world, "outcome")
    with monkeypatch.context() as trouble:
        trouble.setattr(world, "delete", refused)
        await run(process)
        assert world.of("TaskGrant"), "what is there yet is found there"
    for _ in range(2):  # taken away, and then proved
        await run(process)
    for left in ("TaskGrant", "RoleBinding", "Role", "ServiceAccount"):
        assert not world.of(left), left
