"""What runs before the chart goes: nothing new is granted, everything is revoked, and what is left is named."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.properties.world import World
from valetkey.cli import uninstall
from valetkey.controller.surroundings import STALE
from valetkey.kinds.base import REVOKE_FINALIZER
from valetkey.kube.api import ApiError

BINDING = "request-attest.valetkey.dev"


def guarded() -> World:
    world = World()
    world.add("ValidatingAdmissionPolicyBinding", {"metadata": {"name": BINDING, "namespace": ""}})
    return world


def granted(world: World, name: str, finalizer: str = REVOKE_FINALIZER) -> None:
    world.add("TaskGrant", {"metadata": {"name": name, "namespace": "agents", "finalizers": [finalizer]}})


async def test_every_grant_is_deleted_once_nothing_new_can_be_granted() -> None:
    world = guarded()
    for name in ("a", "b"):
        world.add("TaskGrant", {"metadata": {"name": name, "namespace": "agents"}})
    assert await uninstall.close(world, BINDING, within=5, quiet=0.02) == []
    assert not world.objects


async def test_what_was_being_granted_meanwhile_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = guarded()
    delete = world.delete

    async def late(path: str, *, uid: str) -> dict[str, object]:
        answer = await delete(path, uid=uid)
        if BINDING in path:
            world.add("TaskGrant", {"metadata": {"name": "late", "namespace": "agents"}})
        return answer

    monkeypatch.setattr(world, "delete", late)
    assert await uninstall.close(world, BINDING, within=5, quiet=0.02) == []
    assert not world.objects


async def test_what_nobody_revokes_is_given_back_when_the_time_is_over() -> None:
    world = guarded()
    granted(world, "held")
    (left,) = await uninstall.close(world, BINDING, within=0.05, quiet=0.02)
    assert left["metadata"]["name"] == "held"
    assert "deletionTimestamp" in left["metadata"]


async def test_an_uninstall_whose_guard_is_gone_already_goes_on() -> None:
    world = World()
    world.add("TaskGrant", {"metadata": {"name": "a", "namespace": "agents"}})
    assert await uninstall.close(world, BINDING, within=5, quiet=0.02) == []


async def test_an_api_server_that_fails_is_asked_again_and_a_refusal_is_not() -> None:
    world = guarded()
    world.add("TaskGrant", {"metadata": {"name": "a", "namespace": "agents"}})
    world.faults = [0, 500, 0, 503]
    assert await uninstall.close(world, BINDING, within=5, quiet=0.02) == []
    granted(world, "b")
    world.faults = [403]
    with pytest.raises(ApiError, match="403"):
        await uninstall.close(world, BINDING, within=5, quiet=0.02)


def test_nobody_grants_by_a_guard_that_went_once_the_uninstall_has_waited() -> None:
    assert timedelta(seconds=uninstall.QUIET) >= STALE + timedelta(seconds=3)
