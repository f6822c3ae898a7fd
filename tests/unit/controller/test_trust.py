"""What the operator trusts at each moment: guards that stand, policies that it has read, Secrets that nobody holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kube.api import Json
from valetkey.reasons import Reason


def begun(*requests: str, ttl: str = "15m") -> tuple[World, Process]:
    """A pod with requests for its first Secret."""
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    owner = world.add("Pod", pod("one"))
    for name in requests:
        world.add("AccessRequest", request(name, owner, ttl, "valetkey-one-a", world.now))
    return world, Process(world)


async def turn(process: Process, times: int = 1) -> None:
    for _ in range(times):
        await process.watch()
        await process.work()


def reasons(world: World, name: str) -> list[str]:
    return [record["reason"] for record in world.records if record["request"] == f"shop/{name}"]


def finished(world: World, name: str) -> Json:
    (body,) = [body for body in world.of("AccessRequest") if body["metadata"]["name"] == name]
    found: Json = next(c for c in body["status"]["conditions"] if c["type"] == "Finished")
    return found


async def test_guards_that_go_between_grant_and_issue_hold_the_credential_back() -> None:
    class Unguarded(World):
        async def create(self, path: str, body: Json) -> Json:
            made = await super().create(path, body)
            if path.endswith("/taskgrants"):
                process.surroundings.remove_guard("ValidatingAdmissionPolicy", "guard")
            return made

    world, process = begun("r")
    world.__class__ = Unguarded
    await turn(process)
    assert len(world.of("TaskGrant")) == 1
    assert not world.tokens
    assert "IssuePending" not in reasons(world, "r")
    await turn(process)
    assert len(world.live_tokens()) == 1


async def test_a_credential_is_not_renewed_while_guards_are_missing() -> None:
    world, process = begun("r")
    await turn(process)
    guard = world.objects.pop(("ValidatingAdmissionPolicy", "", "guard"))
    world.now += timedelta(minutes=7)
    await turn(process)
    assert len(world.tokens) == 1
    world.objects["ValidatingAdmissionPolicy", "", "guard"] = guard
    await turn(process)
    assert len(world.tokens) == 2


async def test_policies_that_could_not_be_read_lately_renew_nothing_and_end_nothing() -> None:
    world, process = begun("r")
    await turn(process)
    world.now += timedelta(minutes=7)
    await process.work()
    assert len(world.tokens) == 1
    assert len(world.live_tokens()) == 1
    await turn(process)
    assert len(world.tokens) == 2


async def test_two_requests_at_once_for_one_secret_are_not_both_granted_nor_is_a_decision_written_for_nothing() -> None:
    world, process = begun("first", "second")
    await turn(process)
    assert len(world.live_tokens()) == 1
    assert finished(world, "second")["reason"] == "DeliveryFailed"
    assert "PolicyMatched" not in reasons(world, "second")


async def test_a_grant_that_was_not_opened_when_its_order_says_gets_nothing() -> None:
    world, process = begun("r")
    await turn(process)
    (grant,) = world.of("TaskGrant")
    owner = world.of("Pod")[0]
    world.add("AccessRequest", request("old", owner, "15m", "valetkey-one-b", world.now))
    (asked,) = [body for body in world.of("AccessRequest") if body["metadata"]["name"] == "old"]
    uid = asked["metadata"]["uid"]
    forged = {
        "metadata": {"name": "old", "namespace": "shop", "labels": {REQUEST_LABEL: uid}, "finalizers": []},
        "spec": {
            **grant["spec"],
            "request": {"name": "old", "uid": uid},
            "order": {**grant["spec"]["order"], "requestUID": uid},
            "delivery": {"secret": {"name": "valetkey-one-b"}},
        },
    }
    world.now += timedelta(minutes=5, seconds=30)
    world.add("TaskGrant", forged)
    before = len(world.tokens)
    await turn(process, 2)
    assert len(world.tokens) == before
    assert finished(world, "old")["reason"] == "IssueFailed"


async def test_an_allow_that_is_being_deleted_allows_nothing_any_more() -> None:
    world, process = begun("r")
    await turn(process)
    world.change("AgentPolicy", "", "fix", {"metadata": {"finalizers": ["a/b"]}})
    world.remove("AgentPolicy", "", "fix")
    await turn(process, 2)
    assert not world.live_tokens()
    assert finished(world, "r")["reason"] == Reason.POLICY_CHANGED


async def test_a_deny_that_is_being_deleted_denies_until_it_is_gone() -> None:
    world, process = begun()
    deny = policy(15)
    deny["metadata"] = {"name": "deny", "namespace": "", "finalizers": ["a/b"]}
    deny["spec"] = {"effect": "Deny", "subjects": deny["spec"]["subjects"], "access": deny["spec"]["access"]}
    world.add("AgentPolicy", deny)
    world.remove("AgentPolicy", "", "deny")
    owner = world.of("Pod")[0]
    world.add("AccessRequest", request("r", owner, "5m", "valetkey-one-a", world.now))
    await turn(process)
    assert finished(world, "r")["reason"] == "RequestDenied"
    world.change("AgentPolicy", "", "deny", {"metadata": {"finalizers": None}})
    world.add("AccessRequest", request("s", owner, "5m", "valetkey-one-a", world.now))
    await turn(process)
    assert len(world.live_tokens()) == 1


def deny_prod() -> Json:
    """A Deny of everything in namespaces that are labelled as production."""
    body = policy(15)
    expression = 'namespaces.exists(n, has(namespaces[n].labels.env) && namespaces[n].labels.env == "prod")'
    rule = {"name": "prod", "expression": expression, "message": "never in prod"}
    body["metadata"] = {"name": "prod", "namespace": ""}
    body["spec"] = {"effect": "Deny", "subjects": body["spec"]["subjects"], "validations": [rule]}
    return body


@pytest.mark.parametrize("watched", [True, False])
async def test_a_namespace_that_comes_under_a_deny_ends_the_grants_there(watched: bool) -> None:
    world, process = begun("r")
    world.add("AgentPolicy", deny_prod())
    woken: list[str] = []
    process.surroundings._changed = lambda: woken.append("all")
    await turn(process)
    assert len(world.live_tokens()) == 1
    woken.clear()
    if watched:
        process.surroundings.put_namespace("shop", {"env": "prod"})
    world.change("Namespace", "", "shop", {"metadata": {"labels": {"env": "prod"}}})
    await process.surroundings.refresh()
    assert woken == ["all"]
    await process.work()
    await turn(process)
    assert not world.live_tokens()


async def test_a_deny_on_namespaces_sees_all_of_them_where_the_cluster_is_asked_for() -> None:
    world, process = begun("r")
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    allowed = {"name": "read", "kubernetes": {"scopes": [{"cluster": True, "rules": [nodes]}]}}
    world.change("AgentPolicy", "", "fix", {"spec": {"access": [allowed]}})
    world.change("AccessRequest", "shop", "r", {"spec": {"access": {"kubernetes": {"scopes": [{"rules": [nodes]}]}}}})
    world.add("AgentPolicy", deny_prod())
    world.add("Namespace", {"metadata": {"name": "payments", "namespace": "", "labels": {"env": "prod"}}})
    await turn(process)
    assert reasons(world, "r") == ["PolicyDenied"]
    assert finished(world, "r")["reason"] == "RequestDenied"


async def test_a_deny_that_comes_while_policies_are_read_is_not_forgotten() -> None:
    world, process = begun()
    await turn(process)
    listing = world.list

    async def slow(path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        async for body in listing(path, metadata_only=metadata_only, selector=selector):
            yield body
        if path.endswith("/agentpolicies"):
            lock = deny_prod()
            lock["spec"].pop("validations")
            process.surroundings.put_policy(world.add("AgentPolicy", lock))

    world.list = slow  # type: ignore[method-assign]
    await process.surroundings.refresh()
    assert "prod" in [one.policy.metadata.name for one in process.surroundings.compiled()]
