"""A launcher asks for a pod that cannot ask itself: policy says who may, and all but the asking follows that pod."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.properties.life import Process, a_world, approval, pod, request
from tests.properties.world import PUBLIC_KEY, World
from tests.unit.controller.test_trust import finished, turn
from valetkey.kube.api import Json


def begun(**spec: Any) -> tuple[World, Process]:
    """A launcher that asks for the pod `one`, which a policy lets it."""
    world = a_world()
    rules = {"onBehalfOf": ["launcher"], **spec}
    world.change("AgentPolicy", "", "fix", {"spec": rules, "metadata": {"generation": 2}})
    one = world.add("Pod", pod("one"))
    launcher = pod("launcher")
    launcher["spec"] |= {"serviceAccountName": "launcher", "volumes": [], "nodeName": "m"}
    launcher["metadata"]["labels"] = {"app": "launcher"}
    made = world.add("Pod", launcher)
    world.add("AccessRequest", asked(one, made, world))
    return world, Process(world)


def asked(one: Json, launcher: Json, world: World) -> Json:
    body = request("r", one, "15m", "valetkey-one-a", world.now)
    body["spec"]["requester"] |= {
        "username": "system:serviceaccount:shop:launcher",
        "serviceAccount": "launcher",
        "podName": "launcher",
        "podUID": launcher["metadata"]["uid"],
        "nodeName": "m",
    }
    return body


def of(world: World) -> Json:
    body: Json = world.objects["AccessRequest", "shop", "r"]
    return body


def denial(world: World) -> Json:
    told: Json = of(world)["status"]["decision"]["denial"]
    return told


async def test_the_other_pod_receives_it_and_its_account_is_the_subject() -> None:
    world, process = begun()
    await turn(process)
    (grant,) = world.of("TaskGrant")
    assert grant["spec"]["order"]["subject"]["podName"] == "one"
    assert grant["spec"]["order"]["subject"]["serviceAccount"] == "fixer"
    assert [place for place in world.objects if place[0] == "Secret"] == [("Secret", "shop", "valetkey-one-a")]
    assert of(world)["status"]["agent"] == "launcher/launcher for one"
    (decided,) = [record for record in world.records if record["reason"] == "PolicyMatched"]
    assert decided["identity"]["pod"] == "shop/launcher"
    assert decided["subject"]["pod"] == "shop/one"
    assert decided["facts"].requester.service_account == "launcher"


@pytest.mark.parametrize("may", [None, ["other"]])
async def test_without_onbehalfof_nobody_asks_for_another_pod(may: list[str] | None) -> None:
    world, process = begun(onBehalfOf=may)
    await turn(process)
    assert denial(world)["reason"] == "SubjectNotAllowed"
    assert denial(world)["field"] == "spec.subject"
    assert not world.of("TaskGrant")


async def test_a_pod_asks_for_itself_by_the_same_policy() -> None:
    world, process = begun()
    world.objects.pop(("AccessRequest", "shop", "r"))
    world.add("AccessRequest", request("s", world.objects["Pod", "shop", "one"], "5m", "valetkey-one-a", world.now))
    await turn(process)
    assert len(world.live_tokens()) == 1


async def test_who_asks_for_another_cannot_have_it_sealed_to_a_key_of_their_own() -> None:
    world, process = begun()
    world.change(
        "AccessRequest", "shop", "r", {"spec": {"delivery": {"secret": None, "sealed": {"publicKey": PUBLIC_KEY}}}}
    )
    await turn(process)
    assert finished(world, "r")["message"].startswith("DeliveryNotAllowed")
    assert not world.of("TaskGrant")


async def test_it_ends_with_the_pod_that_it_is_for_and_not_with_the_one_that_asked() -> None:
    world, process = begun()
    await turn(process)
    world.remove("Pod", "shop", "launcher")
    world.now += timedelta(minutes=7)
    await turn(process)
    assert len(world.tokens) == 2, "it is renewed without the one that asked"
    assert len(world.live_tokens()) == 2
    world.change("Pod", "shop", "one", {"status": {"phase": "Succeeded"}})
    await turn(process)
    assert finished(world, "r")["reason"] == "PodFinished"
    assert not world.live_tokens()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"uid": "other"}}, "its uid is not spec.subject.podUID"),
        ({"status": {"phase": "Succeeded"}}, "has finished"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}, "is being deleted"),
        ({"metadata": {"labels": {"valetkey.dev/agent": None}}}, "give pod one the label"),
    ],
    ids=["another of its name", "it has finished", "it goes", "it is no agent's"],
)
async def test_the_other_pod_is_read_live_before_anything_is_opened(change: Json, message: str) -> None:
    world, process = begun()
    await process.watch()
    world.change("Pod", "shop", "one", change)
    await process.work()
    assert message in finished(world, "r")["message"]
    assert not world.of("TaskGrant")


@pytest.mark.parametrize("account", ["launcher", "fixer"])
async def test_a_deny_about_either_of_the_two_forbids_it_and_ends_it(account: str) -> None:
    world, process = begun()
    await turn(process)
    assert world.live_tokens()
    deny = {
        "metadata": {"name": "lock", "namespace": ""},
        "spec": {
            "effect": "Deny",
            "subjects": [{"name": "a", "namespace": "shop", "serviceAccount": account}],
        },
    }
    world.add("AgentPolicy", deny)
    await turn(process)
    assert finished(world, "r")["reason"] == "PolicyChanged"
    assert not world.live_tokens()


async def test_it_ends_when_the_policy_lets_the_one_that_asked_no_longer() -> None:
    world, process = begun()
    await turn(process)
    world.change("AgentPolicy", "", "fix", {"spec": {"onBehalfOf": ["other"]}, "metadata": {"generation": 3}})
    await turn(process)
    assert finished(world, "r")["reason"] == "PolicyChanged"


async def test_limits_are_those_of_the_account_that_receives() -> None:
    world, process = begun(limits={"perHour": 1})
    await turn(process)
    own = request("own", world.objects["Pod", "shop", "one"], "5m", "valetkey-one-b", world.now)
    world.add("AccessRequest", own)
    await turn(process)
    told = world.objects["AccessRequest", "shop", "own"]["status"]["decision"]["denial"]
    assert told["reason"] == "LimitReached"


async def test_a_grant_that_is_for_another_pod_than_its_request_ends() -> None:
    world, process = begun()
    await turn(process)
    other = world.add("Pod", pod("two"))["metadata"]["uid"]
    world.change("TaskGrant", "shop", "r", {"spec": {"order": {"subject": {"podName": "two", "podUID": other}}}})
    await turn(process)
    assert finished(world, "r")["reason"] == "IssueFailed"
    assert not world.live_tokens()


def lock(selector: Json) -> Json:
    """A Deny about launchers by a label of their pods."""
    subject = {"name": "a", "namespace": "shop", "serviceAccount": "launcher", "podSelector": selector}
    return {"metadata": {"name": "lock", "namespace": ""}, "spec": {"effect": "Deny", "subjects": [subject]}}


async def test_a_deny_about_a_launcher_by_its_label_ends_what_is_live() -> None:
    world, process = begun()
    await turn(process)
    world.add("AgentPolicy", lock({"matchLabels": {"app": "launcher"}}))
    await turn(process)
    assert finished(world, "r")["reason"] == "PolicyChanged"


async def test_a_deny_about_all_other_launchers_ends_nothing_of_this_one() -> None:
    world, process = begun()
    world.add("AgentPolicy", lock({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["launcher"]}]}))
    await turn(process, 3)
    assert len(world.live_tokens()) == 1


@pytest.mark.parametrize("may", [["launcher"], ["other"]], ids=["granted", "denied"])
async def test_the_longest_names_are_shown_as_far_as_there_is_room(may: list[str]) -> None:
    world, process = begun(onBehalfOf=may)
    for old, letter in (("launcher", "l"), ("one", "s")):
        body = world.objects.pop(("Pod", "shop", old))
        body["metadata"]["name"] = letter * 253
        world.objects["Pod", "shop", letter * 253] = body
    asked = of(world)
    asked["spec"]["requester"]["podName"], asked["spec"]["subject"]["podName"] = "l" * 253, "s" * 253
    asked["metadata"]["ownerReferences"][0]["name"] = "s" * 253
    await turn(process)
    assert len(of(world)["status"]["agent"]) == 512
    assert bool(world.live_tokens()) == (may == ["launcher"])
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await turn(process, 2)
    assert not world.of("TaskGrant")


@pytest.mark.parametrize("who", ["launcher", "fixer"])
async def test_neither_of_the_two_accounts_approves(who: str) -> None:
    world, process = begun(approval={"approvals": 1, "timeout": "30m"})
    name = f"system:serviceaccount:shop:{who}"
    world.approvers["fix"] = {name}
    world.add("AccessApproval", approval("a", of(world), name))
    await turn(process, 2)
    assert not world.of("TaskGrant")
    assert "who approved" not in str(of(world)["status"])


async def test_a_launcher_does_not_approve_what_is_handed_on_from_what_it_launched() -> None:
    world, process = begun(
        onBehalfOf=["launcher"],
        delegation={"maxDepth": 1, "to": [{"namespace": "shop", "serviceAccount": "fixer"}]},
        approval={"approvals": 1, "timeout": "30m"},
    )
    launcher = "system:serviceaccount:shop:launcher"
    world.approvers["fix"] = {"ann", launcher}
    of(world)["spec"]["delegation"] = {"to": [{"namespace": "shop", "serviceAccount": "fixer"}]}
    world.add("AccessApproval", approval("a", of(world), "ann"))
    await turn(process, 2)
    (grant,) = world.of("TaskGrant")
    assert grant["spec"]["order"]["launchers"] == [{"namespace": "shop", "serviceAccount": "launcher"}]
    child = request("child", world.objects["Pod", "shop", "one"], "5m", "valetkey-one-b", world.now)
    child["spec"]["parent"] = {field: of(world)["metadata"][field] for field in ("namespace", "name", "uid")}
    made = world.add("AccessRequest", child)
    world.add("AccessApproval", approval("b", made, launcher))
    await turn(process, 2)
    assert len(world.of("TaskGrant")) == 1, "the launcher has a part in that work"
    world.add("AccessApproval", approval("c", made, "ann"))
    await turn(process, 2)
    assert len(world.of("TaskGrant")) == 2


async def test_a_launcher_with_more_labels_than_are_kept_is_refused() -> None:
    world, process = begun()
    world.change("Pod", "shop", "launcher", {"metadata": {"labels": {f"l{at}": "x" for at in range(128)}}})
    await turn(process)
    assert "has 129 labels" in finished(world, "r")["message"]
