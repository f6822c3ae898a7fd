"""What somebody puts in the operator's way: grants it did not open, rights it did not make, what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cluster.api import until
from tests.properties.life import Process, pod, policy, request
from tests.properties.world import World
from tests.unit.controller.test_handlers import operator_of
from tests.unit.controller.test_trust import begun, finished, turn
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kube.api import Json


def opened(world: World, change: Callable[[Json], Any]) -> None:
    """A request of the pod, and a grant for it as whoever holds the operator's token could write it."""
    (owner,) = world.of("Pod")
    body = world.add("AccessRequest", request("forged", owner, "15m", "valetkey-one-b", world.now))
    (real,) = world.of("TaskGrant")
    uid = body["metadata"]["uid"]
    order = real["spec"]["order"] | {"requestUID": uid, "openedAt": world.now.isoformat()}
    order["notAfter"] = (world.now + timedelta(minutes=15)).isoformat()
    name = f"valetkey-{uid}"
    account = real["spec"]["plan"]["kubernetes"]["account"] | {"name": name}
    objects = [entry | {"name": f"{name}-0"} for entry in real["spec"]["plan"]["kubernetes"]["objects"]]
    spec: Json = {
        "request": {"name": "forged", "uid": uid},
        "order": order,
        "plan": {"kubernetes": {"account": account, "objects": objects}},
        "delivery": {"secret": {"name": "valetkey-one-b"}},
    }
    change(spec)
    labels = {REQUEST_LABEL: uid}
    metadata = {"name": "forged", "namespace": "shop", "labels": labels, "finalizers": ["valetkey.dev/revoke"]}
    world.add("TaskGrant", {"metadata": metadata, "spec": spec})


def later(text: str) -> str:
    return (datetime.fromisoformat(text) + timedelta(minutes=1)).isoformat()


def wider(spec: Json) -> None:
    spec["order"]["access"]["kubernetes"]["scopes"][0]["rules"][0]["verbs"] = ["get", "delete"]


FORGED: dict[str, tuple[Callable[[Json], Any], str]] = {
    "for longer than policy allows": (
        lambda spec: spec["order"].update(notAfter=later(spec["order"]["notAfter"])),
        "PolicyChanged",
    ),
    "of a policy that is not there": (
        lambda spec: spec["order"].update(policy={"name": "all", "uid": "x", "generation": 1}),
        "PolicyChanged",
    ),
    "with a risk that nobody accepted": (lambda spec: spec["order"].update(podTemplates=True), "PolicyChanged"),
    "of more than was asked for": (wider, "IssueFailed"),
    "by another plan": (
        lambda spec: spec["plan"]["kubernetes"]["account"].update(name="valetkey-another"),
        "IssueFailed",
    ),
}


@pytest.mark.parametrize(("change", "reason"), FORGED.values(), ids=FORGED)
async def test_a_grant_that_policy_did_not_decide_gets_no_credential(
    change: Callable[[Json], Any], reason: str
) -> None:
    world, process = begun("r")
    await turn(process)
    before = dict(world.tokens)
    opened(world, change)
    await turn(process, 2)
    assert world.tokens == before
    assert finished(world, "forged")["reason"] == reason
    assert [body["metadata"]["name"] for body in world.of("TaskGrant")] == ["r"]


async def test_a_grant_as_the_operator_itself_would_open_it_gets_one() -> None:
    world, process = begun("r")
    await turn(process)
    opened(world, lambda _: None)
    await turn(process)
    assert len(world.tokens) == 2, "the forgeries differ from it in what they say they do, and in nothing else"


class Squatted(World):
    """A world in which somebody sees the grant come, and puts rights of its name in the way."""

    kind, ours = "Role", False
    """Whether they carry the label that the operator's own have; those say other things then."""

    async def create(self, path: str, body: Json) -> Json:
        if path.endswith(f"/{self.kind.lower()}s"):
            metadata = body["metadata"] | {"namespace": "shop"}
            theirs = body | {"metadata": metadata | {"labels": {}}}
            if self.ours:
                said: Json = {"rules": []} if self.kind == "Role" else {"roleRef": {"name": "admin"}}
                theirs = body | {"metadata": metadata} | said
            if (self.kind, "shop", metadata["name"]) not in self.objects:
                self.add(self.kind, theirs)
        return await super().create(path, body)


@pytest.mark.parametrize("kind", ["Role", "RoleBinding"])
@pytest.mark.parametrize("ours", [True, False])
async def test_rights_that_lie_under_the_name_of_a_grant_are_not_taken_for_its_own(kind: str, ours: bool) -> None:
    class There(Squatted):
        pass

    There.kind, There.ours = kind, ours
    world, process = begun("r")
    world.__class__ = There
    await turn(process, 2)
    assert finished(world, "r")["reason"] == "IssueFailed"
    assert not world.placed
    assert not world.live_tokens()


def written_by_a_newer_version(body: Json) -> Json:
    body["spec"]["whatThisVersionDoesNotKnow"] = True
    return body


async def test_an_allow_that_this_version_cannot_read_grants_nothing() -> None:
    world, process = begun("r")
    world.change("AgentPolicy", "", "fix", {"spec": {"whatThisVersionDoesNotKnow": True}})
    await turn(process)
    assert not world.of("TaskGrant")
    assert finished(world, "r")["reason"] == "RequestDenied"


async def test_a_deny_that_this_version_cannot_read_may_be_about_everyone() -> None:
    world, process = begun("r")
    deny = policy(15)
    deny["metadata"] = {"name": "deny", "namespace": ""}
    deny["spec"] = {"effect": "Deny", "subjects": [{"name": "a", "namespace": "elsewhere"}]}
    world.add("AgentPolicy", written_by_a_newer_version(deny))
    await turn(process)
    assert not world.of("TaskGrant")
    (asked,) = world.of("AccessRequest")
    approved = next(c for c in asked["status"]["conditions"] if c["type"] == "Approved")
    assert (approved["status"], approved["reason"]) == ("Unknown", "PoliciesNotReady")


async def test_a_request_that_this_version_cannot_read_gets_nothing_and_keeps_no_other_waiting() -> None:
    world, process = begun("r", "unreadable")
    world.change("AccessRequest", "shop", "unreadable", {"spec": {"whatThisVersionDoesNotKnow": True}})
    await turn(process)
    assert [body["metadata"]["name"] for body in world.of("TaskGrant")] == ["r"]
    await Process(world).relist.read_all()


async def test_a_request_says_when_its_credential_is_dead_without_the_operator() -> None:
    world, process = begun("r")
    await turn(process)
    (asked,), (grant,) = world.of("AccessRequest"), world.of("TaskGrant")
    issued = datetime.fromisoformat(grant["status"]["credential"]["issuedAt"])
    dead = datetime.fromisoformat(asked["status"]["deadAt"])
    assert dead - issued == timedelta(seconds=670), "600 s, a minute of leeway, and ten seconds of cache"


async def test_a_binding_whose_label_was_taken_off_is_not_taken_for_gone() -> None:
    world, process = begun("r")
    await turn(process)
    (binding,) = world.of("RoleBinding")
    place = (binding["metadata"]["namespace"], binding["metadata"]["name"])
    world.change("RoleBinding", *place, {"metadata": {"labels": None, "finalizers": ["tenants.example.com/held"]}})
    (grant,) = world.of("TaskGrant")
    await world.delete("/apis/valetkey.dev/v1alpha1/namespaces/shop/taskgrants/r", uid=grant["metadata"]["uid"])
    await turn(process)
    assert not world.of("RoleBinding") or world.of("TaskGrant"), "the grant goes only after its binding"
    await turn(process, 3)
    assert not world.of("RoleBinding")
    assert not world.of("TaskGrant")


@pytest.mark.parametrize("at", [None, "tomorrow", "2026-01-01T00:00:00", "9999-01-01T00:00:00Z", 7])
async def test_a_restore_that_nobody_can_have_found_ends_nothing(tmp_path: Path, at: object) -> None:
    record = {"reason": "StoreRestored"} | ({} if at is None else {"at": at})
    world = World()
    world.now = datetime.now(UTC) - timedelta(minutes=1)
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    operator, settings = operator_of(world, tmp_path, targets=("shop",))
    (settings.log_directory / "forged.jsonl").write_bytes(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    world.now = datetime.now(UTC) - timedelta(seconds=30)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "15m", "valetkey-one-a", world.now))
    try:
        await operator.start(lambda: None)

        async def granted() -> bool:
            return bool(world.live_tokens())

        await until(granted, "the request to be granted", seconds=5)
    finally:
        await operator.stop()
