"""A backend that stays down: everybody can see what waits for it, and that it is not given up."""

from __future__ import annotations

from datetime import timedelta

from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from valetkey.kube.client import ApiError, Json


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
        if self.failing == "delete" and "/rolebindings/" in path:
            raise ApiError(0, "NoAnswer", "down")
        return await super().delete(path, uid=uid)


async def begun() -> tuple[Down, Process]:
    world = Down()
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
    said = [(uid, reason) for uid, reason, _ in world.events]
    assert (old["metadata"]["uid"], "RequestDeleted") in said
    assert (again["metadata"]["uid"], "RequestDeleted") not in said
