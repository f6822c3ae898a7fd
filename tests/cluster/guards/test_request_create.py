"""Guard request-attest: who asks is who was authenticated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.api import (
    ADMIN,
    Api,
    Caller,
    Json,
    account,
    merged,
    until,
)
from tests.cluster.guards.attack import (
    NOBODY,
    REQUESTS,
    accepted,
    forbidden,
    owner,
    refused,
)
from tests.cluster.world import World, unfilled


@pytest.fixture(scope="module", params=[True, False], ids=["filled-in", "as-sent"])
async def filling(api: Api, world: World, request: pytest.FixtureRequest) -> AsyncIterator[bool]:
    """With and without the mutating policy; guards hold alike."""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings"
    name = "accessrequest-fill.valetkey.dev"
    status, binding = await api.get(f"{path}/{name}")
    if request.param:
        if status == 404:
            pytest.skip("this cluster serves no MutatingAdmissionPolicy")
        yield True
        return
    if status == 200:
        await api.delete(f"{path}/{name}")

        async def unfilled_refused() -> bool:
            status, _ = await api.post(f"{REQUESTS}?dryRun=All", unfilled(), by=world.tokens["asker"])
            return status == 422

        await until(unfilled_refused, "the mutating policy to be out of force")
    yield False
    if status == 200:
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            binding["metadata"].pop(field, None)
        await api.made(path, binding)

        async def filled() -> bool:
            status, _ = await api.post(f"{REQUESTS}?dryRun=All", unfilled(), by=world.tokens["asker"])
            return status == 201

        await until(filled, "the mutating policy to be in force")


async def test_a_pod_asks_for_itself(api: Api, world: World, filling: bool) -> None:
    made = accepted(await api.post(REQUESTS, world.request("asker"), by=world.tokens["asker"]))
    assert made["spec"]["requester"]["podUID"] == world.pods["asker"]["metadata"]["uid"]


async def test_a_pod_may_let_a_name_be_generated(api: Api, world: World, filling: bool) -> None:
    body = world.request("asker", metadata={"name": None, "generateName": "fix-"})
    accepted(await api.post(REQUESTS, body, by=world.tokens["asker"]))


async def test_what_is_left_out_is_filled_in_where_the_cluster_can(api: Api, world: World, filling: bool) -> None:
    status, made = await api.post(REQUESTS, unfilled(), by=world.tokens["asker"])
    if not filling:
        assert status == 422
        assert "spec.requester: Required value" in made["message"]
        return
    expected = world.request("asker")
    assert status == 201, made
    assert made["spec"]["requester"] == expected["spec"]["requester"]
    assert made["spec"]["subject"] == expected["spec"]["subject"]
    assert made["metadata"]["ownerReferences"] == expected["metadata"]["ownerReferences"]


async def test_a_pod_may_ask_for_another_which_owns_the_request_then(api: Api, world: World, filling: bool) -> None:
    twin = {"podName": "twin", "podUID": uid(world, "twin")}
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": "twin", "uid": twin["podUID"]}]
    asked = world.request("asker", spec={"subject": twin}, metadata={"ownerReferences": owners})
    made = accepted(await api.post(REQUESTS, asked, by=world.tokens["asker"]))
    assert made["spec"]["requester"]["podName"] == "asker"
    if filling:
        alone = merged(unfilled(), {"spec": {"subject": twin}})
        made = accepted(await api.post(REQUESTS, alone, by=world.tokens["asker"]))
        assert made["metadata"]["ownerReferences"] == owners
    path = f"{REQUESTS}/{made['metadata']['name']}"
    wants = {"status": {"heartbeat": {"within": "60s"}}}
    accepted(await api.patch(f"{path}/status", wants, by=world.tokens["operator"]))
    beat = {"metadata": {"annotations": {"valetkey.dev/heartbeat": "1"}}}
    refused(await api.patch(path, beat, by=world.tokens["asker"]), "request-attest", "only the pod that")
    accepted(await api.patch(path, beat, by=world.tokens["twin"]))
    accepted(await api.patch(path, {"spec": {"outcome": "Failed"}}, by=world.tokens["twin"]))


def uid(world: World, name: str) -> str:
    """A pod's uid."""
    return str(world.pods[name]["metadata"]["uid"])


def requester(**change: Any) -> Callable[[World], Json]:
    """A change of spec.requester."""
    return lambda world: {"spec": {"requester": change}}


FORGERIES: dict[str, tuple[Callable[[World], Json], str]] = {
    "requester_pod_name": (requester(podName="twin"), "spec.requester names the calling pod"),
    "requester_pod_uid": (
        lambda w: {"spec": {"requester": {"podUID": uid(w, "twin")}}},
        "spec.requester names the calling pod",
    ),
    "requester_node": (requester(nodeName="other-node"), "spec.requester names the calling pod"),
    "requester_username": (requester(username="system:serviceaccount:agents:boss"), "spec.requester names the caller"),
    "requester_account": (requester(serviceAccount="boss"), "spec.requester names the caller"),
    "requester_credential": (
        requester(credentialID=f"JTI={NOBODY}"),
        "spec.requester.credentialID is that of the token used",
    ),
    "via_the_door": (requester(via="Door"), "spec.requester.via is API"),
    "subject_name": (lambda w: {"spec": {"subject": {"podName": "twin"}}}, "spec.subject is one pod"),
    "subject_uid": (lambda w: {"spec": {"subject": {"podUID": uid(w, "twin")}}}, "spec.subject is one pod"),
    "subject_both": (
        lambda w: {"spec": {"subject": {"podName": "twin", "podUID": uid(w, "twin")}}},
        "one owner, the pod that spec.subject names",
    ),
    "two_owners": (
        lambda w: {"metadata": {"ownerReferences": owner(w) + owner(w, uid=uid(w, "twin"), name="twin")}},
        "one owner",
    ),
    "other_owner": (
        lambda w: {"metadata": {"ownerReferences": owner(w, uid=uid(w, "twin"), name="twin")}},
        "one owner",
    ),
    "owner_of_other_kind": (lambda w: {"metadata": {"ownerReferences": owner(w, kind="ConfigMap")}}, "one owner"),
    "owner_of_other_group": (lambda w: {"metadata": {"ownerReferences": owner(w, apiVersion="a.b/v1")}}, "one owner"),
    "owner_controls": (lambda w: {"metadata": {"ownerReferences": owner(w, controller=True)}}, "one owner"),
    "owner_blocked": (lambda w: {"metadata": {"ownerReferences": owner(w, blockOwnerDeletion=True)}}, "one owner"),
    "finalizer": (lambda w: {"metadata": {"finalizers": ["a.b/c"]}}, "an AccessRequest has no finalizers"),
    "revoke_finalizer": (
        lambda w: {"metadata": {"finalizers": ["valetkey.dev/revoke"]}},
        "an AccessRequest has no finalizers",
    ),
    "orphan_finalizer": (lambda w: {"metadata": {"finalizers": ["orphan"]}}, "an AccessRequest has no finalizers"),
    "outcome": (lambda w: {"spec": {"outcome": "Succeeded"}}, "spec.outcome is said when the task is over"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_pod_cannot_forge(api: Api, world: World, filling: bool, forgery: str) -> None:
    change, message = FORGERIES[forgery]
    body = merged(world.request("asker"), change(world))
    refused(await api.post(REQUESTS, body, by=world.tokens["asker"]), "request-attest", message)


def rules(count: int, size: int) -> Json:
    names = [f"{number:03}".ljust(size, "n") for number in range(32)]
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": names, "verbs": ["get"]}
    return {"spec": {"access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule] * count}]}}}}


def words(scopes: int) -> Json:
    """Rules of one-letter words."""
    rule = {"apiGroups": ["a"] * 8, "resources": ["b"] * 8, "resourceNames": ["c"] * 8, "verbs": ["d"] * 8}
    return {"spec": {"access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule] * 16}] * scopes}}}}


def handed_on(*accesses: Json) -> Json:
    """The same rules, handed on and not asked for."""
    to = [{"namespace": "agents", "serviceAccount": f"worker-{n}"} for n in range(16)]
    return {"spec": {"delegation": {"to": to, "access": [body["spec"]["access"] for body in accesses]}}}


SIZES: dict[str, tuple[Json, Json, str]] = {
    "parameters": (
        {"spec": {"task": {"parameters": {"a": "p" * 16000}}}},
        {"spec": {"task": {"parameters": {"a": "p" * 16384}}}},
        "16384 bytes at most",
    ),
    "many empty strings": (
        {"spec": {"task": {"parameters": {f"p{n}": [""] * 64 for n in range(31)}}}},
        {"spec": {"task": {"parameters": {f"p{n}": [""] * 64 for n in range(32)}}}},
        "16384 bytes at most",
    ),
    "many one-letter strings": (
        {"spec": {"task": {"parameters": {f"p{n}": ["a"] * 64 for n in range(28)}}}},
        {"spec": {"task": {"parameters": {f"p{n}": ["a"] * 64 for n in range(29)}}}},
        "16384 bytes at most",
    ),
    "many letters of two bytes": (
        {"spec": {"task": {"parameters": {"a": "ж" * 8190}}}},
        {"spec": {"task": {"parameters": {"a": "ж" * 8192}}}},
        "16384 bytes at most",
    ),
    "strings in a list": (
        {"spec": {"task": {"parameters": {"a": [""] * 64}}}},
        {"spec": {"task": {"parameters": {"a": ["ж"] * 65}}}},
        "a list of 64 strings at most",
    ),
    "more strings than are looked at": (
        {"spec": {"task": {"parameters": {"a": []}}}},
        {"spec": {"task": {"parameters": {"a": [""] * 60_000}}}},
        "a list of 64 strings at most",
    ),
    "control characters": (
        {"spec": {"task": {"parameters": {"a": ["ж\u2028", "b c"], "n": 1}}}},
        {"spec": {"task": {"parameters": {"a": ["b", "\u0001"]}}}},
        "no control characters",
    ),
    "control characters in a name": (
        {"spec": {"task": {"parameters": {"a b": "c"}}}},
        {"spec": {"task": {"parameters": {"a\u0001b": "c"}}}},
        "no control characters",
    ),
    "rules": (rules(7, 60), rules(16, 60), "the rules of a request have 16384 characters at most"),
    "many one-letter words": (
        words(3),
        words(4),
        "the rules of a request have 16384 characters at most",
    ),
    "rules that are handed on": (
        handed_on(rules(2, 60), rules(2, 60), rules(2, 60)),
        handed_on(rules(2, 60), rules(2, 60), rules(2, 60), rules(2, 60)),
        "with those that it hands on",
    ),
    "many one-letter words that are handed on": (
        handed_on(words(1), words(1), words(1)),
        handed_on(words(1), words(1), words(1), words(1)),
        "with those that it hands on",
    ),
    "rules of both": (
        merged(rules(4, 60), handed_on(rules(3, 60))),
        merged(rules(4, 60), handed_on(rules(4, 60))),
        "with those that it hands on",
    ),
    "labels": (
        {"metadata": {"labels": {f"l{n}": "" for n in range(30)}}},
        {"metadata": {"labels": {f"l{n}": "" for n in range(40)}}},
        "32 labels and 32 annotations at most",
    ),
    "annotations": (
        {"metadata": {"annotations": {"a": "n" * 65000}}},
        {"metadata": {"annotations": {"a": "n" * 33000, "b": "n" * 33000}}},
        "those have 65536 bytes",
    ),
    "many annotations": (
        {"metadata": {"annotations": {f"a{n}": "" for n in range(30)}}},
        {"metadata": {"annotations": {f"a{n}": "" for n in range(40)}}},
        "32 labels and 32 annotations at most",
    ),
}


@pytest.mark.parametrize("part", SIZES)
async def test_a_request_is_bounded_in_all_its_parts(api: Api, world: World, filling: bool, part: str) -> None:
    within, beyond, message = SIZES[part]
    body = merged(world.request("asker"), beyond)
    refused(await api.post(REQUESTS, body, by=world.tokens["asker"]), "request-attest", message)
    accepted(await api.post(f"{REQUESTS}?dryRun=All", merged(world.request("asker"), within), by=world.tokens["asker"]))


async def test_a_request_without_owner_is_refused_or_given_one(api: Api, world: World, filling: bool) -> None:
    body = world.request("asker", metadata={"ownerReferences": None})
    answer = await api.post(REQUESTS, body, by=world.tokens["asker"])
    if filling:
        assert accepted(answer)["metadata"]["ownerReferences"] == owner(world)
    else:
        refused(answer, "request-attest", "one owner")


@pytest.mark.parametrize("caller", ["twin", "stranger", "unbound"])
async def test_the_holder_of_another_token_cannot_ask_as_the_pod(
    api: Api, world: World, filling: bool, caller: str
) -> None:
    refused(await api.post(REQUESTS, world.request("asker"), by=world.tokens[caller]), "request-attest")


@pytest.mark.parametrize("caller", ["stranger", "unbound"])
async def test_nobody_but_a_pod_of_the_namespace_asks_even_in_its_own_name(
    api: Api, world: World, filling: bool, caller: str
) -> None:
    if caller == "stranger":
        body = world.request("stranger")
    else:
        body = world.request("asker", spec={"requester": {"credentialID": "JTI=none"}})
    refused(await api.post(REQUESTS, body, by=world.tokens[caller]), "request-attest")


async def test_people_cannot_ask_as_a_pod(api: Api, world: World, filling: bool) -> None:
    forbidden(await api.post(REQUESTS, world.request("asker"), by=world.editor))
    for person in (world.insider, ADMIN):
        refused(await api.post(REQUESTS, world.request("asker"), by=person), "request-attest", "own bound token")
        body = world.request("asker", spec={"requester": {"username": person.user or "admin"}})
        refused(await api.post(REQUESTS, body, by=person), "request-attest", "own bound token")


async def test_a_request_that_nobody_would_answer_is_refused(api: Api, world: World, filling: bool) -> None:
    path = REQUESTS.replace("/agents/", "/shop/")
    refused(
        await api.post(path, world.request("asker"), by=ADMIN), "request-attest", "serves no agents in this namespace"
    )


async def test_the_operator_cannot_ask(api: Api, world: World, filling: bool) -> None:
    forbidden(await api.post(REQUESTS, world.request("asker"), by=world.tokens["operator"]))


async def test_a_person_who_impersonates_the_account_is_no_pod(api: Api, world: World, filling: bool) -> None:
    body = world.request("asker")
    refused(await api.post(REQUESTS, body, by=account("agents", "fixer")), "request-attest", "own bound token")


@pytest.mark.parametrize("left_out", ["pod-name", "pod-uid", "node-name", "credential-id"])
async def test_a_caller_without_one_of_the_proofs_is_no_pod(
    api: Api, world: World, filling: bool, left_out: str
) -> None:
    by = impersonated(world, **{left_out: ()})
    refused(await api.post(REQUESTS, world.request("asker"), by=by), "request-attest", "own bound token")


async def test_a_caller_with_two_pods_is_no_pod(api: Api, world: World, filling: bool) -> None:
    by = impersonated(world, **{"pod-uid": (uid(world, "asker"), uid(world, "twin"))})
    refused(await api.post(REQUESTS, world.request("asker"), by=by), "request-attest", "own bound token")


async def test_a_certificate_id_is_no_token_id(api: Api, world: World, filling: bool) -> None:
    by = impersonated(world, **{"credential-id": ("X509SHA256=00",)})
    body = world.request("asker", spec={"requester": {"credentialID": "X509SHA256=00"}})
    refused(await api.post(REQUESTS, body, by=by), "request-attest", "own bound token")


def impersonated(world: World, **change: tuple[str, ...]) -> Caller:
    """Somebody who impersonates the asker with its proofs, but for a change."""
    asked = world.request("asker")["spec"]["requester"]
    proofs = {
        "pod-name": (asked["podName"],),
        "pod-uid": (asked["podUID"],),
        "node-name": (asked["nodeName"],),
        "credential-id": (asked["credentialID"],),
    } | change
    fixer = account("agents", "fixer")
    return Caller(
        user=fixer.user,
        groups=fixer.groups,
        extra={f"authentication.kubernetes.io/{key}": values for key, values in proofs.items()},
    )
