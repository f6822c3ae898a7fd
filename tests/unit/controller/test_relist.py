"""A watch may miss what happens and never say so; what is read in full from time to time makes up for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count

import pytest

from tests.properties.life import Process, request
from tests.properties.world import World
from tests.unit.controller.test_trust import begun, turn
from valetkey.controller import relist
from valetkey.controller.relist import Relist
from valetkey.kube.api import ApiError, Json


def reads(world: World) -> list[str]:
    """What is read live from now on."""
    paths: list[str] = []
    get = world.get

    async def counted(path: str) -> Json:
        paths.append(path)
        return await get(path)

    world.get = counted  # type: ignore[method-assign]
    return paths


async def test_a_request_that_no_watch_told_of_is_found() -> None:
    world, process = begun("r")
    await process.surroundings.refresh()
    await process.relist.look("shop")
    await process.work()
    assert len(world.live_tokens()) == 1


async def test_an_outcome_that_no_watch_told_of_is_found() -> None:
    world, process = begun("r")
    await turn(process)
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await process.relist.look("shop")
    await process.work()
    assert not world.live_tokens()


@pytest.mark.parametrize(("kind", "name"), [("Pod", "one"), ("AccessRequest", "r")])
async def test_a_pod_or_request_that_went_unseen_ends_its_grant(kind: str, name: str) -> None:
    world, process = begun("r")
    await turn(process)
    assert len(world.live_tokens()) == 1
    del world.objects[kind, "shop", name]
    await process.relist.look("shop")
    await process.work()
    assert not world.live_tokens()


async def test_a_pod_that_lost_its_label_unseen_is_an_agents_no_more() -> None:
    world, process = begun("r")
    await turn(process)
    world.change("Pod", "shop", "one", {"metadata": {"labels": None}})
    await process.relist.look("shop")
    await process.work()
    assert not world.live_tokens()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_grant_that_lost_its_finalizer_unseen_is_revoked(replaced: bool) -> None:
    world, process = begun("r")
    await turn(process)
    before = world.live_tokens()
    body = world.objects.pop(("TaskGrant", "shop", "r"))
    if replaced:
        body["metadata"].pop("finalizers")
        world.add("TaskGrant", {"metadata": body["metadata"], "spec": body["spec"]})
    await process.relist.look("shop")
    await process.work()
    await turn(process, 2)
    assert not world.live_tokens() & before
    assert "CredentialRevoked" in [record["reason"] for record in world.records]


async def test_a_grant_that_is_being_let_go_is_not_taken_for_lost() -> None:
    world, process = begun("r")
    await turn(process)
    (grant,) = world.of("TaskGrant")
    process.cache.let_go.add(grant["metadata"]["uid"])
    del world.objects["TaskGrant", "shop", "r"]
    await process.relist.look("shop")
    assert not process.cache.vanished


async def test_what_is_made_while_a_collection_is_read_is_not_missing() -> None:
    world, process = begun()
    made: list[Json] = []
    listing = world.list

    async def slow(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body
        if path.endswith("/accessrequests") and not made:
            made.append(world.add("AccessRequest", request("r", world.of("Pod")[0], "5m", "valetkey-one-a", world.now)))
            process.intake.request(made[0])

    world.list = slow  # type: ignore[method-assign]
    await process.relist.look("shop")
    assert len(list(process.cache.requests)) == 1


async def test_a_namespace_that_may_not_be_read_keeps_nobody_from_being_served() -> None:
    world, process = begun("r")
    process = Process(world, namespaces=("gone", "shop"))
    listing = world.list

    async def forbidden(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if "/namespaces/gone/" in path:
            raise ApiError(403, "Forbidden", "not yours")
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body

    world.list = forbidden  # type: ignore[method-assign]
    await process.relist.read_all()
    await process.work()
    assert len(world.live_tokens()) == 1


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
async def test_a_server_that_does_not_answer_at_the_start_is_asked_again(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relist, "AGAIN_AFTER", timedelta(milliseconds=1))
    world, process = begun("r")
    listing, calls = world.list, count()

    async def down(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if next(calls) < failing:
            raise ApiError(503, "ServiceUnavailable", "down")
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body

    world.list = down  # type: ignore[method-assign]
    await process.relist.read_all()
    await process.work()
    assert len(world.live_tokens()) == 1


async def test_at_the_start_what_a_grant_names_is_read_after_it_and_policies_and_guards_last() -> None:
    world, process = begun("r")
    listing, order = world.list, list[str]()

    async def noted(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        kind = path.rpartition("/")[2]
        order.append(f"ask {kind}")
        await asyncio.sleep(0)  # as long as an answer takes
        order.append(f"answer {kind}")
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body
            await asyncio.sleep(0)

    await turn(process)
    world.list = noted  # type: ignore[method-assign]
    await Process(world).relist.read_all()
    kinds = ("taskgrants", "accessrequests", "accessapprovals", "pods")
    assert order[:8] == [f"{what} {kind}" for kind in kinds for what in ("ask", "answer")]
    assert not [entry for entry in order[8:] if entry.endswith(kinds)], order


async def test_where_a_look_takes_long_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    _, process = begun("r")
    pauses, took = list[float](), [0.0, 10.0, 100.0]
    now = 100.0

    async def rest(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > len(took):
            raise asyncio.CancelledError

    async def look(_: str) -> None:
        nonlocal now
        now += took[len(pauses) - 1]

    monkeypatch.setattr(process.relist, "look", look)
    monkeypatch.setattr(asyncio, "sleep", rest)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(asyncio.CancelledError):
        await process.relist.keep_looking()
    assert pauses == [30, 30, 190, 300]


async def test_what_went_while_the_start_was_tried_again_is_not_taken_for_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relist, "AGAIN_AFTER", timedelta(milliseconds=1))
    world, process = begun("r")
    listing, calls = world.list, count()

    async def cut(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body
            if path.endswith("/accessrequests") and next(calls) == 0:
                world.remove("AccessRequest", "shop", "r")
                raise ApiError(0, "NoAnswer", "cut in the middle")

    world.list = cut  # type: ignore[method-assign]
    await process.relist.read_all()
    assert not list(process.cache.requests)


async def test_a_look_at_what_is_known_reads_nothing_live() -> None:
    world, process = begun("r")
    await turn(process, 2)
    live = reads(world)
    await process.relist.look("shop")
    assert not live


async def test_what_the_watch_brings_a_moment_later_is_not_read_again() -> None:
    world, process = begun("r")
    await turn(process, 2)
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    live = reads(world)
    soon = timedelta(milliseconds=50)
    relist = Relist(world, process.cache, process.intake, process.surroundings, ("shop",), settles_after=soon)
    looking = asyncio.create_task(relist.look("shop"))
    await asyncio.sleep(0)
    await process.watch()
    await looking
    assert not live
