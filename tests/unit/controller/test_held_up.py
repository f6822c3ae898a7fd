"""A backend that stays down: everybody can see what waits for it, and that it is not given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from valetkey.controller.endings import TRIES
from valetkey.controller.surroundings import Surroundings
from valetkey.kube.api import ApiError, Json


class Down(World):
    """A world in which requests of one kind fail."""

    failing = ""

    async def create(self, path: str, body: Json) -> Json:
        if self.failing == "create" and path.endswith("/rolebindings"):
            raise ApiError(500, "InternalError", "down")
        if self.failing == "open" and path.endswith("/taskgrants"):
            raise ApiError(500, "InternalError", "down")
        return await super().create(path, body)

    async def delete(self, path: str, *, uid: str) -> Json:
        if "delete" in self.failing and "/rolebindings/" in path:
            raise ApiError(0, "NoAnswer", "down")
        return await super().delete(path, uid=uid)

    async def patch(self, path: str, body: Json) -> Json:
        if "status" in self.failing and path.endswith("/status") and "/taskgrants/" in path and self._revoking(path):
            raise ApiError(500, "InternalError", "down")
        return await super().patch(path, body)

    def _revoking(self, path: str) -> bool:
        """Whether the end of a grant is written already: that write must get through."""
        name = path.removesuffix("/status").rpartition("/")[2]
        return "end" in self.objects["TaskGrant", "shop", name].get("status", {})


class Refusing(Down):
    """A world in which something refuses that bindings are deleted."""

    async def delete(self, path: str, *, uid: str) -> Json:
        if "/rolebindings/" in path:
            raise ApiError(403, "Forbidden", "admission webhook says no")
        return await super().delete(path, uid=uid)


async def begun(world: Down | None = None) -> tuple[Down, Process]:
    world = world or Down()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    owner = world.add("Pod", pod("one"))
    world.add("AccessRequest", request("r", owner, "2m", "valetkey-one-a", world.now))
    return world, Process(world)


async def turn(process: Process, times: int = 1) -> None:
    for _ in range(times):
        await process.watch()
        await process.work()


def condition(world: World, kind: str, name: str) -> Json:
    (body,) = world.of(kind)
    found: Json = next(c for c in body["status"]["conditions"] if c["type"] == name)
    return found


async def test_an_issue_that_fails_is_shown_on_its_grant_and_goes_through_later() -> None:
    world, process = await begun()
    world.failing = "create"
    await turn(process, 3)
    assert condition(world, "TaskGrant", "Issued")["reason"] == "BackendUnavailable"
    world.failing = ""
    await turn(process)
    assert condition(world, "AccessRequest", "Ready")["status"] == "True"
    assert condition(world, "TaskGrant", "Issued")["status"] == "True"


async def test_what_holds_a_revocation_up_is_named_with_the_api_servers_own_words() -> None:
    world, process = await begun(Refusing())
    await turn(process)
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await turn(process)
    (binding,) = world.of("RoleBinding")
    held = condition(world, "TaskGrant", "Revoked")
    assert held["reason"] == "RevocationPending"
    assert f"RoleBinding shop/{binding['metadata']['name']}: the API server answered 403 Forbidden" in held["message"]
    assert "webhook says no" in held["message"]


async def test_a_revocation_that_fails_is_shown_and_goes_through_later() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete"
    world.now += timedelta(minutes=2)
    await turn(process, 3)
    revoked = condition(world, "TaskGrant", "Revoked")
    assert (revoked["status"], revoked["reason"]) == ("Unknown", "RevocationPending")
    assert "did not answer" in revoked["message"]
    assert condition(world, "AccessRequest", "Ready")["reason"] == "AccessEnded"
    assert world.of("ServiceAccount") == [], "what can be taken away is"
    world.failing = ""
    await turn(process)
    assert not world.of("TaskGrant")
    assert condition(world, "AccessRequest", "Finished")["reason"] == "TTLReached"


def said(world: World, reason: str) -> tuple[int, list[str]]:
    events = [severity for _, told, severity in world.events if told == reason]
    return sum(record["reason"] == reason for record in world.records), events


async def test_a_revocation_that_fails_again_and_again_is_said_to_have_failed_once() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete"
    world.now += timedelta(minutes=2)
    await turn(process, TRIES - 1)
    assert condition(world, "TaskGrant", "Revoked")["reason"] == "RevocationPending"
    assert said(world, "RevocationFailed") == (0, [])
    await turn(process, 3)
    revoked = condition(world, "TaskGrant", "Revoked")
    assert (revoked["status"], revoked["reason"]) == ("Unknown", "RevocationFailed")
    assert "did not answer" in revoked["message"]
    assert said(world, "RevocationFailed") == (1, ["Warning"])
    process = Process(world)
    await turn(process)
    assert condition(world, "TaskGrant", "Revoked")["reason"] == "RevocationFailed", "a restart takes nothing back"
    assert said(world, "RevocationFailed") == (1, ["Warning"])
    world.failing = ""
    world.now += timedelta(minutes=1)
    await turn(process)
    assert not world.of("TaskGrant")
    (revoked,) = (record for record in world.records if record["reason"] == "CredentialRevoked")
    assert revoked["took"] >= 60


async def test_a_grant_that_went_by_force_fails_to_be_revoked_once_too() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete"
    world.change("TaskGrant", "shop", "r", {"metadata": {"finalizers": []}})
    world.remove("TaskGrant", "shop", "r")
    await turn(process, TRIES + 3)
    assert said(world, "RevocationFailed") == (1, ["Warning"])
    world.failing = ""
    await turn(process)
    assert not world.live_tokens()


async def test_what_waits_for_an_api_server_that_was_away_goes_on_as_soon_as_it_answers() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete"
    world.now += timedelta(minutes=2)
    await turn(process, TRIES)  # the next try by itself is seconds away
    process.worker.recovered()
    assert await asyncio.wait_for(process.queue.get(), 0.5) == ("shop", "r")


class Away(World):
    """A world that cannot be read for a time, and whose seconds pass where somebody rests."""

    def __init__(self, away: float, back: float) -> None:
        super().__init__()
        self.away, self.back, self.seconds = away, back, 0.0
        self.seen: list[float] = []
        """When it was said to be there."""

    async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if self.away <= self.seconds < self.back:
            raise ApiError(0, "NoAnswer", "away")
        async for body in super().list(path, metadata_only=metadata_only, selector=selector):
            yield body

    async def rest(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds > self.back + 20:
            raise asyncio.CancelledError


@pytest.mark.parametrize("away", [0.0, 2.5, 4.9, 5.0, 6.0])
@pytest.mark.parametrize("lasts", [0.5, 3.0, 17.0, 840.0])
async def test_that_the_api_server_is_back_is_seen_within_five_seconds_of_its_return(
    away: float, lasts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Away(away, back := away + lasts)
    monkeypatch.setattr(asyncio, "sleep", world.rest)
    surroundings = Surroundings(
        world,
        expected=(),
        schemas={},
        cluster_roles=(),
        changed=lambda: None,
        clock=lambda: world.now,
        answered=lambda: world.seen.append(world.seconds),
    )
    with pytest.raises(asyncio.CancelledError):
        await surroundings.keep_fresh()
    assert min(at for at in world.seen if at >= back) - back <= 5


async def test_one_that_is_refused_is_not_hurried_by_the_success_of_others() -> None:
    world, process = await begun()
    world.failing = "create"
    await turn(process, TRIES)
    process.worker.recovered()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.queue.get(), 0.5)


async def test_a_grant_that_cannot_be_opened_is_shown_on_its_request() -> None:
    world, process = await begun()
    world.failing = "open"
    await turn(process, 2)
    ready = condition(world, "AccessRequest", "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "AccessInProgress")
    assert "the API server answered 500 InternalError; it is tried again" in ready["message"]
    world.failing = ""
    await turn(process)
    assert condition(world, "AccessRequest", "Ready")["status"] == "True"


async def test_an_issue_that_waits_for_the_guards_is_shown_on_its_grant() -> None:
    world, process = await begun()
    world.failing = "create"
    await turn(process)
    world.failing = ""
    (guard,) = world.of("ValidatingAdmissionPolicy")
    world.remove("ValidatingAdmissionPolicy", "", guard["metadata"]["name"])
    await turn(process)
    issued = condition(world, "TaskGrant", "Issued")
    assert (issued["status"], issued["reason"]) == ("Unknown", "IssuePending")
    assert "GuardsMissing" in issued["message"]


async def test_the_end_of_a_grant_is_no_event_of_another_request_of_its_name() -> None:
    world, process = await begun()
    await turn(process)
    (old,) = world.of("AccessRequest")
    world.remove("AccessRequest", "shop", "r")
    (owner,) = world.of("Pod")
    again = world.add("AccessRequest", request("r", owner, "2m", "valetkey-one-a", world.now))
    await turn(process)
    told = [(uid, reason) for uid, reason, _ in world.events]
    assert (old["metadata"]["uid"], "RequestDeleted") in told
    assert (again["metadata"]["uid"], "RequestDeleted") not in told


async def test_a_failure_whose_condition_cannot_be_written_is_said_once_all_the_same() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete status"
    world.now += timedelta(minutes=2)
    await turn(process, TRIES + 5)
    assert said(world, "RevocationFailed") == (1, ["Warning"])


class NoPods(Down):
    """A world in which pods cannot be read."""

    async def get(self, path: str) -> Json:
        if "/pods/" in path and self.failing:
            raise ApiError(403, "Forbidden", 'User "valetkey" cannot get resource "pods"')
        return await super().get(path)


async def test_no_end_waits_for_the_wording_of_its_reason() -> None:
    world, process = await begun(NoPods())
    await turn(process)
    world.failing = "pods"
    world.remove("AccessRequest", "shop", "r")
    await turn(process, 3)
    assert not world.of("TaskGrant")
    assert not world.live_tokens()
    assert "RequestDeleted" in [record["reason"] for record in world.records]


@pytest.mark.parametrize("by_hand", [False, True], ids=["not deleted", "deleted by hand"])
async def test_a_grant_that_ends_for_a_reason_of_another_version_ends(by_hand: bool) -> None:
    world, process = await begun()
    await turn(process)
    end = {"reason": "OfAnotherVersion", "message": "", "at": world.now.isoformat()}
    world.change("TaskGrant", "shop", "r", {"status": {"end": end}})
    if by_hand:
        world.remove("TaskGrant", "shop", "r")
    await turn(process, 3)
    assert not world.of("TaskGrant")
    assert not world.live_tokens()
