"""Many endings at once: every grant is disabled before any is cleared up."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from tests.cluster.api import until
from tests.properties.life import GUARD, Process, Untaken, pod, policy, request
from tests.properties.world import Crash, World
from valetkey.controller.queue import Key, Queue
from valetkey.kube.api import ApiError, Json

NUMBER = 5


class Watched(World):
    """A world that keeps what was deleted, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []
        self.kept = ""
        """What nobody can delete."""

    async def delete(self, path: str, *, uid: str) -> Json:
        if self.kept and self.kept in path:
            raise ApiError(500, "InternalError", "a webhook is down")
        self.deleted.append(path.split("/")[-2])
        return await super().delete(path, uid=uid)


async def granted(number: int, queue: Queue) -> tuple[Watched, Process]:
    """So many live grants, and an operator that has read of their agents' outcomes."""
    world = Watched()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    for name in names(number):
        owner = world.add("Pod", pod(name))
        world.add("AccessRequest", request(name, owner, "15m", f"valetkey-{name}-a", world.now))
    process = Process(world, queue=queue)
    await process.watch()
    await process.work()
    assert len(world.of("TaskGrant")) == number
    for name in names(number):
        world.change("AccessRequest", "shop", name, {"spec": {"outcome": "Succeeded"}})
    await process.watch()
    world.deleted.clear()
    return world, process


def names(number: int) -> list[str]:
    return [f"agent-{index}" for index in range(number)]


async def end_all(world: World, process: Process, number: int) -> None:
    for name in names(number):
        process.queue.add(Key("shop", name), ending=True)

    async def all_gone() -> bool:
        return not world.of("TaskGrant")

    worker = asyncio.create_task(process.worker.work(endings_alone=True))
    await until(all_gone, "all grants to go", seconds=10)
    worker.cancel()


async def test_all_are_disabled_before_any_is_cleared_up() -> None:
    world, process = await granted(NUMBER, Queue())
    await end_all(world, process, NUMBER)
    cleared = min(world.deleted.index(kind) for kind in ("roles", "serviceaccounts"))
    disabled = [at for at, kind in enumerate(world.deleted) if kind == "rolebindings"]
    assert len([at for at in disabled if at < cleared]) >= NUMBER - 1  # the last has nobody to wait for
    assert not [entry for entry in world.objects if entry[0] in ("RoleBinding", "Role", "ServiceAccount")]
    assert not world.live_tokens()


async def test_whoever_takes_over_disables_all_before_it_clears_any_up() -> None:
    world, process = await granted(NUMBER, Queue())
    for name in names(NUMBER):
        world.change("TaskGrant", "shop", name, {"metadata": {"deletionTimestamp": world.now.isoformat()}})
        end = {"reason": "TaskReleased", "message": "", "at": world.now.isoformat()}
        world.change("TaskGrant", "shop", name, {"status": {"end": end}})
    process = Process(world, queue=Queue())
    await process.watch()
    await end_all(world, process, NUMBER)
    cleared = min(world.deleted.index(kind) for kind in ("roles", "serviceaccounts"))
    disabled = [at for at, kind in enumerate(world.deleted) if kind == "rolebindings"]
    assert len([at for at in disabled if at < cleared]) >= NUMBER - 1
    assert not world.live_tokens()


async def test_one_alone_is_disabled_once() -> None:
    world, process = await granted(1, Queue())
    await end_all(world, process, 1)
    assert world.deleted.count("rolebindings") == 1


class Crowded(Queue):
    """A queue in which other endings always wait."""

    more_end = True


async def test_what_cannot_be_disabled_ahead_of_the_rest_loses_its_account_all_the_same() -> None:
    world, process = await granted(1, Crowded())
    world.kept = "rolebindings"
    for _ in range(4):
        with contextlib.suppress(ApiError):
            await process.work()
    assert world.of("RoleBinding")
    assert not world.of("ServiceAccount")
    assert not world.live_tokens()


@pytest.mark.parametrize("queue", [Crowded, Untaken])
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_request_leaves_nothing_for_good(after: bool, queue: type[Queue]) -> None:
    crashes = 0
    for fuse in range(1, 100):
        world, process = await granted(2, queue())
        world.fuse, world.fuse_after = fuse, after
        try:
            for _ in range(3):  # ended and disabled, then cleared up and let go
                await process.work()
        except Crash:
            crashes += 1
        finished, world.fuse, world.dead = not world.dead, None, False
        process = Process(world)
        await process.relist.read_all()
        for _ in range(3):
            await process.watch()
            await process.work()
        for kind in ("TaskGrant", "RoleBinding", "Role", "ServiceAccount", "Secret"):
            assert not world.of(kind), (fuse, kind)
        assert not world.live_tokens()
        if finished:
            break
    assert crashes > 20
    assert finished
