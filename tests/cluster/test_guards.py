"""Each guard, attacked at a real API server by everybody who might."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.api import (
    ADMIN,
    GRANTS,
    OPERATOR,
    SYSTEM,
    Answer,
    Api,
    Caller,
    Json,
    account,
    merged,
    unique,
    until,
)
from tests.cluster.world import World, grant, pod, policy, unfilled

REQUESTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests"
TASK_GRANTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/taskgrants"
POLICIES = "/apis/valetkey.dev/v1alpha1/agentpolicies"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNTS = f"/api/v1/namespaces/{GRANTS}/serviceaccounts"
PODS = "/api/v1/namespaces/agents/pods"
SECRETS = "/api/v1/namespaces/agents/secrets"

COLLECTOR = account("kube-system", "generic-garbage-collector")
NOBODY = "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b10"
ORPHAN = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}


def refused(answer: Answer, guard: str, message: str = "") -> None:
    """The guard refused it, in these words."""
    status, body = answer
    assert status == 403, body.get("message", body)
    assert f"ValidatingAdmissionPolicy '{guard}.valetkey.dev' with binding" in body["message"], body["message"]
    assert message in body["message"]


def forbidden(answer: Answer) -> None:
    """RBAC refused it, before any guard."""
    status, body = answer
    assert status == 403, body.get("message", body)
    assert "ValidatingAdmissionPolicy" not in body["message"]


def accepted(answer: Answer) -> Json:
    """It went through."""
    status, body = answer
    assert status in (200, 201), body
    return body


# request-attest


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


def owner(world: World, **change: Any) -> list[Json]:
    """The owner reference of the asker's requests, changed."""
    return [merged(world.request("asker")["metadata"]["ownerReferences"][0], change)]


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
    "subject_name": (lambda w: {"spec": {"subject": {"podName": "twin"}}}, "spec.subject is the pod that asks"),
    "subject_uid": (lambda w: {"spec": {"subject": {"podUID": uid(w, "twin")}}}, "spec.subject is the pod that asks"),
    "subject_both": (
        lambda w: {"spec": {"subject": {"podName": "twin", "podUID": uid(w, "twin")}}},
        "spec.subject is the pod that asks",
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


@pytest.fixture
async def asked(api: Api, world: World) -> str:
    """The path of a live request of the asker."""
    made = await api.made(REQUESTS, world.request("asker"), by=world.tokens["asker"])
    return f"{REQUESTS}/{made['metadata']['name']}"


async def test_the_pod_that_asked_says_the_outcome(api: Api, world: World, asked: str) -> None:
    answer = await api.patch(asked, {"spec": {"outcome": "Succeeded"}}, by=world.tokens["asker"])
    assert accepted(answer)["spec"]["outcome"] == "Succeeded"


async def test_another_token_of_the_same_pod_says_the_outcome(api: Api, world: World, asked: str) -> None:
    renewed = await api.token("agents", "fixer", world.pods["asker"])
    accepted(await api.patch(asked, {"spec": {"outcome": "Failed"}}, by=renewed))


async def test_nobody_else_says_the_outcome(api: Api, world: World, asked: str) -> None:
    outcome = {"spec": {"outcome": "Succeeded"}}
    message = "changed by the pod that made it alone"
    for who in ("twin", "stranger", "unbound"):
        refused(await api.patch(asked, outcome, by=world.tokens[who]), "request-attest", message)
    for caller in (ADMIN, world.insider, account("agents", "fixer"), account(SYSTEM, "other")):
        answer = await api.patch(asked, outcome, by=caller)
        if caller.user and caller.user.endswith(":other"):
            forbidden(answer)
        else:
            refused(answer, "request-attest", message)
    for caller in (world.editor, world.tokens["operator"]):
        forbidden(await api.patch(asked, outcome, by=caller))
    refused(await api.patch(asked, outcome, by=COLLECTOR), "request-attest")


CHANGES: dict[str, Json] = {
    "label": {"metadata": {"labels": {"a": "b"}}},
    "our_label": {"metadata": {"labels": {"valetkey.dev/request": NOBODY}}},
    "annotation": {"metadata": {"annotations": {"a": "b"}}},
    "finalizer": {"metadata": {"finalizers": ["a.b/c"]}},
    "orphan_finalizer": {"metadata": {"finalizers": ["orphan"]}},
    "no_owner": {"metadata": {"ownerReferences": None}},
    "outcome_and_label": {"spec": {"outcome": "Succeeded"}, "metadata": {"labels": {"a": "b"}}},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("caller", ["asker", "admin", "insider"])
async def test_nothing_else_of_a_request_changes(api: Api, world: World, asked: str, caller: str, change: str) -> None:
    by = {"asker": world.tokens["asker"], "admin": ADMIN, "insider": world.insider}[caller]
    refused(await api.patch(asked, CHANGES[change], by=by), "request-attest")


async def test_other_ways_to_write_are_the_same(api: Api, world: World, asked: str) -> None:
    asker = world.tokens["asker"]
    json_patch: Any = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    refused(await api.patch(asked, json_patch, by=asker, content="application/json-patch+json"), "request-attest")
    applied = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"labels": {"a": "b"}}}
    refused(
        await api.patch(
            f"{asked}?fieldManager=t&force=true", applied, by=asker, content="application/apply-patch+yaml"
        ),
        "request-attest",
    )
    _, live = await api.get(asked)
    refused(await api.put(asked, merged(live, CHANGES["label"])), "request-attest")
    forbidden(await api.put(asked, merged(live, CHANGES["label"]), by=asker))


async def test_a_controller_changes_owners_and_finalizers_and_nothing_else(api: Api, world: World, asked: str) -> None:
    for change in ("label", "annotation"):
        refused(await api.patch(asked, CHANGES[change], by=COLLECTOR), "request-attest")
    accepted(await api.patch(asked, CHANGES["finalizer"], by=COLLECTOR))
    accepted(await api.patch(asked, {"metadata": {"finalizers": None}}, by=COLLECTOR))
    accepted(await api.patch(asked, CHANGES["no_owner"], by=COLLECTOR))


async def test_only_the_named_controllers_are_excepted(api: Api, world: World, asked: str) -> None:
    for name in ("generic-garbage-collector2", "replicaset-controller", "deployment-controller"):
        by = Caller(user=account("kube-system", name).user, groups=("system:masters",))
        refused(await api.patch(asked, CHANGES["finalizer"], by=by), "request-attest")
    elsewhere = Caller(user=account("agents", "generic-garbage-collector").user, groups=("system:masters",))
    refused(await api.patch(asked, CHANGES["finalizer"], by=elsewhere), "request-attest")


async def test_a_request_is_not_deleted_with_its_dependents_orphaned(api: Api, world: World, asked: str) -> None:
    message = "orphan propagation"
    refused(await api.delete(asked, ORPHAN), "request-attest", message)
    refused(await api.delete(f"{asked}?propagationPolicy=Orphan"), "request-attest", message)
    refused(
        await api.delete(asked, {"apiVersion": "v1", "kind": "DeleteOptions", "orphanDependents": True}),
        "request-attest",
        message,
    )
    refused(await api.delete(f"{REQUESTS}?propagationPolicy=Orphan"), "request-attest", message)
    accepted(await api.delete(asked))


async def test_a_request_goes_with_its_pod(api: Api, world: World) -> None:
    short = await world.pod("agents", "short-lived")
    body = world.request("asker")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "short-lived", "uid": short["metadata"]["uid"]}
    token = await api.token("agents", "fixer", short)
    world.pods["short-lived"], world.tokens["short-lived"] = short, token
    made = await api.made(REQUESTS, world.request("short-lived"), by=token)
    assert made["metadata"]["ownerReferences"] == [owner] != body["metadata"]["ownerReferences"]
    await api.delete(f"{PODS}/short-lived", {"gracePeriodSeconds": 0})

    async def gone() -> bool:
        return (await api.get(f"{REQUESTS}/{made['metadata']['name']}"))[0] == 404

    await until(gone, "the request to be collected")


async def test_foreground_deletion_ends(api: Api, world: World, asked: str) -> None:
    accepted(await api.delete(f"{asked}?propagationPolicy=Foreground"))

    async def gone() -> bool:
        return (await api.get(asked))[0] == 404

    await until(gone, "the request to be collected")


# operator-writes


async def opened(api: Api, world: World) -> str:
    """The path of a live grant."""
    made = await api.made(TASK_GRANTS, grant(unique("fix"), str(uuid.uuid4())), by=world.tokens["operator"])
    return f"{TASK_GRANTS}/{made['metadata']['name']}"


async def test_only_the_operator_opens_grants(api: Api, world: World) -> None:
    body = grant(unique("fix"), NOBODY)
    for caller in (ADMIN, COLLECTOR, Caller(user=OPERATOR + "2", groups=("system:masters",))):
        answer = await api.post(TASK_GRANTS, body, by=caller)
        if caller is COLLECTOR:
            forbidden(answer)
        else:
            refused(answer, "operator-writes", "to end the access, delete the TaskGrant")
    for caller in (world.editor, world.insider, world.tokens["asker"]):
        forbidden(await api.post(TASK_GRANTS, body, by=caller))
    accepted(await api.post(TASK_GRANTS, body, by=world.tokens["operator"]))


async def test_a_grant_is_born_with_its_finalizer(api: Api, world: World) -> None:
    body = merged(grant(unique("fix"), NOBODY), {"metadata": {"finalizers": None}})
    refused(await api.post(TASK_GRANTS, body, by=world.tokens["operator"]), "operator-writes", "is born with")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": None}},
        {"metadata": {"finalizers": ["valetkey.dev/revoke", "a.b/c"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": NOBODY}]}},
    ],
)
@pytest.mark.parametrize("terminating", [False, True])
async def test_nobody_else_changes_a_grant(api: Api, world: World, change: Json, terminating: bool) -> None:
    path = await opened(api, world)
    if terminating:
        accepted(await api.delete(path))
    _, live = await api.get(path)
    for status, answer in (await api.patch(path, change), await api.put(path, merged(live, change))):
        if terminating and "finalizers" in change["metadata"] and change["metadata"]["finalizers"]:
            assert status == 422  # Kubernetes itself adds no finalizer to what is being deleted
            assert "no new finalizers can be added if the object is being deleted" in answer["message"]
        else:
            refused((status, answer), "operator-writes")


async def test_only_the_operator_writes_status(api: Api, world: World, asked: str) -> None:
    path = await opened(api, world)
    lock = await api.made(POLICIES, policy(unique("p"), "Deny"))
    status: Json = {"status": {"conditions": []}}
    for target in (path, asked, f"{POLICIES}/{lock['metadata']['name']}"):
        refused(await api.patch(f"{target}/status", status), "operator-writes", "/status are written by")
        refused(await api.patch(f"{target}/status", status, by=everything("author")), "operator-writes")
        _, live = await api.get(target)
        refused(await api.put(f"{target}/status", live | status), "operator-writes")
        accepted(await api.patch(f"{target}/status", status, by=world.tokens["operator"]))
        for caller in (world.insider, world.tokens["asker"]):
            forbidden(await api.patch(f"{target}/status", status, by=caller))
        refused(await api.patch(f"{target}/status", status, by=COLLECTOR), "operator-writes")
    await api.delete(f"{POLICIES}/{lock['metadata']['name']}")


def everything(user: str | None) -> Caller:
    """A user whom RBAC refuses nothing, so that a guard must."""
    return Caller(user=user, groups=("system:masters",))


async def test_status_cannot_be_smuggled_in_with_the_object(api: Api, world: World, asked: str) -> None:
    sent = {"status": {"agent": "root"}, "spec": {"outcome": "Succeeded"}}
    assert "status" not in accepted(await api.patch(asked, sent, by=world.tokens["asker"]))
    body = world.request("asker", status={"agent": "root"})
    assert "status" not in accepted(await api.post(REQUESTS, body, by=world.tokens["asker"]))


async def test_a_grant_ends_by_deletion_and_goes_when_the_operator_lets_it(api: Api, world: World) -> None:
    path, operator = await opened(api, world), world.tokens["operator"]
    strip = {"metadata": {"finalizers": None}}
    refused(await api.patch(path, strip, by=operator), "operator-writes", "once the access is revoked")
    refused(await api.delete(path, ORPHAN), "operator-writes", "orphan propagation")
    refused(await api.delete(f"{TASK_GRANTS}?propagationPolicy=Orphan"), "operator-writes", "orphan propagation")
    accepted(await api.delete(path))
    for controller in (COLLECTOR, everything(COLLECTOR.user)):
        refused(await api.patch(path, strip, by=controller), "operator-writes", "once the access is revoked")
    refused(await api.patch(path, strip), "operator-writes")
    accepted(await api.patch(path, strip, by=operator))
    assert (await api.get(path))[0] == 404


async def test_a_grant_deleted_in_the_foreground_still_waits_for_its_revocation(api: Api, world: World) -> None:
    path = await opened(api, world)
    accepted(await api.delete(f"{path}?propagationPolicy=Foreground"))

    async def collected() -> bool:
        _, live = await api.get(path)
        return bool(live["metadata"]["finalizers"] == ["valetkey.dev/revoke"])

    await until(collected, "the collector to take its own finalizer away")


def delivered(request_uid: str, name: str, request: str = "x", **change: Any) -> Json:
    """A Secret as the operator delivers it."""
    body = {
        "metadata": {
            "name": name,
            "labels": {"valetkey.dev/request": request_uid},
            "ownerReferences": [
                {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "name": request, "uid": request_uid}
            ],
        },
        "type": "valetkey.dev/credential",
        "data": {"token": "YQ=="},
    }
    return merged(body, change)


@pytest.fixture
async def delivery(api: Api, world: World, asked: str) -> AsyncIterator[Json]:
    """A delivered Secret."""
    _, request = await api.get(asked)
    body = delivered(request["metadata"]["uid"], unique("valetkey-asker"), request["metadata"]["name"])
    yield await api.made(SECRETS, body, by=world.tokens["operator"])
    await api.delete(f"{SECRETS}/{body['metadata']['name']}")


async def test_nobody_else_writes_credentials(api: Api, world: World, delivery: Json) -> None:
    path = f"{SECRETS}/{delivery['metadata']['name']}"
    for caller in (world.editor, world.insider, ADMIN):
        body = delivered(NOBODY, unique("valetkey-forged"))
        refused(await api.post(SECRETS, body, by=caller), "operator-writes", "credential secrets are written by")
        for change in ({"data": {"token": "Yg=="}}, {"metadata": {"labels": {"valetkey.dev/request": NOBODY}}}):
            refused(await api.patch(path, change, by=caller), "operator-writes")
    refused(await api.patch(path, {"data": {"token": "Yg=="}}, by=everything(COLLECTOR.user)), "operator-writes")
    accepted(await api.patch(path, {"metadata": {"finalizers": ["a.b/c"]}}, by=everything(COLLECTOR.user)))
    accepted(await api.patch(path, {"metadata": {"finalizers": None}}, by=everything(COLLECTOR.user)))


async def test_other_secrets_are_nobodys_business(api: Api, world: World) -> None:
    name = unique("plain")
    accepted(await api.post(SECRETS, {"metadata": {"name": name}, "stringData": {"a": "b"}}, by=world.editor))
    accepted(await api.patch(f"{SECRETS}/{name}", {"stringData": {"a": "c"}}, by=world.editor))
    accepted(await api.delete(f"{SECRETS}/{name}", by=world.editor))


# grants-namespace


async def granted(api: Api, world: World, *, templates: bool = False) -> str:
    """The name of an account of a grant."""
    request_uid = str(uuid.uuid4())
    name = f"valetkey-{'t-' if templates else ''}{request_uid}"
    await api.made(ACCOUNTS, grant_account(request_uid, name), by=world.tokens["operator"])
    return name


def grant_account(request_uid: str, name: str | None = None) -> Json:
    """An account as the operator makes it."""
    return {
        "metadata": {"name": name or f"valetkey-{request_uid}", "labels": {"valetkey.dev/request": request_uid}},
        "automountServiceAccountToken": False,
    }


def token_request(seconds: int = 600, **spec: Any) -> Json:
    """A TokenRequest."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds, **spec},
    }


async def test_nobody_else_writes_accounts_of_grants(api: Api, world: World) -> None:
    name = await granted(api, world)
    message = "written by the valetkey operator alone"
    for caller in (ADMIN, everything("person"), everything(COLLECTOR.user), everything("system:node:paper-node")):
        refused(await api.post(ACCOUNTS, grant_account(str(uuid.uuid4())), by=caller), "grants-namespace", message)
        for change in (
            {"metadata": {"labels": {"a": "b"}}},
            {"metadata": {"annotations": {"a": "b"}}},
            {"secrets": [{"name": "a"}]},
            {"automountServiceAccountToken": True},
        ):
            refused(await api.patch(f"{ACCOUNTS}/{name}", change, by=caller), "grants-namespace", message)
    forbidden(await api.post(ACCOUNTS, grant_account(str(uuid.uuid4())), by=world.insider))
    accepted(await api.delete(f"{ACCOUNTS}/{name}"))  # ending access is never in the way


async def test_nobody_else_asks_for_tokens_of_grants(api: Api, world: World) -> None:
    name = await granted(api, world)
    for caller in (
        ADMIN,
        everything("person"),
        everything(COLLECTOR.user),
        everything("system:kube-controller-manager"),
        everything("system:serviceaccount:kube-system:service-account-controller"),
    ):
        for target in (name, "default"):
            refused(
                await api.post(f"{ACCOUNTS}/{target}/token", token_request(), by=caller),
                "grants-namespace",
                "requested by the valetkey operator alone",
            )
    for caller in (world.editor, world.tokens["asker"]):
        forbidden(await api.post(f"{ACCOUNTS}/{name}/token", token_request(), by=caller))
    accepted(await api.post(f"{ACCOUNTS}/{name}/token", token_request(), by=world.tokens["operator"]))


async def test_no_secret_is_kept_where_grants_live(api: Api, world: World) -> None:
    name = await granted(api, world)
    legacy = {
        "metadata": {"name": "legacy", "annotations": {"kubernetes.io/service-account.name": name}},
        "type": "kubernetes.io/service-account-token",
    }
    for caller in (ADMIN, everything(COLLECTOR.user), everything("system:kube-controller-manager")):
        for body in (legacy, {"metadata": {"name": "plain"}}):
            refused(
                await api.post(f"/api/v1/namespaces/{GRANTS}/secrets", body, by=caller),
                "grants-namespace",
                "no Secret is kept",
            )
    forbidden(await api.post(f"/api/v1/namespaces/{GRANTS}/secrets", legacy, by=world.tokens["operator"]))


async def test_no_pod_runs_where_grants_live(api: Api, world: World) -> None:
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    containers = [{"name": "main", "image": "none", "securityContext": restricted}]
    body = pod("sneak", serviceAccountName="default", containers=containers)
    for caller in (ADMIN, everything("system:serviceaccount:kube-system:replicaset-controller"), everything("person")):
        answer = await api.post(f"/api/v1/namespaces/{GRANTS}/pods", body, by=caller)
        refused(answer, "grants-namespace", "no pod runs")


async def test_kubernetes_makes_its_own_account_there_and_no_other(api: Api, world: World) -> None:
    await api.delete(f"{ACCOUNTS}/default")

    async def back() -> bool:
        return (await api.get(f"{ACCOUNTS}/default"))[0] == 200

    await until(back, "the controller to make the account `default` again")
    controller = everything("system:serviceaccount:kube-system:service-account-controller")
    for name in ("other", f"valetkey-{NOBODY}"):
        refused(await api.post(ACCOUNTS, {"metadata": {"name": name}}, by=controller), "grants-namespace")
    refused(
        await api.patch(f"{ACCOUNTS}/default", {"metadata": {"labels": {"a": "b"}}}, by=controller),
        "grants-namespace",
    )


async def test_other_namespaces_keep_their_accounts_tokens_and_secrets(api: Api, world: World) -> None:
    name = unique("plain")
    base = "/api/v1/namespaces/agents/serviceaccounts"
    accepted(await api.post(base, {"metadata": {"name": name}}, by=world.editor))
    accepted(await api.post(f"{base}/{name}/token", token_request(3600), by=world.editor))
    accepted(await api.delete(f"{base}/{name}", by=world.editor))


# grant-accounts


@pytest.fixture(scope="module")
async def accounts(api: Api, world: World) -> AsyncIterator[dict[str, Caller]]:
    """Tokens of two accounts of grants that RBAC refuses nothing in shop; one may change templates."""
    out, bindings, bound = {}, f"{RBAC}/namespaces/shop/rolebindings", []
    for kind in ("plain", "templates"):
        name = await granted(api, world, templates=kind == "templates")
        made = await api.made(
            bindings,
            {
                "metadata": {"name": unique("attack")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "namespace": GRANTS, "name": name}],
            },
        )
        answer = await api.made(f"{ACCOUNTS}/{name}/token", token_request(), by=world.tokens["operator"])
        out[kind] = Caller(token=answer["status"]["token"])
        bound.append(made["metadata"]["name"])
    yield out
    for name in bound:
        await api.delete(f"{bindings}/{name}")


def template(**change: Any) -> Json:
    """A pod template."""
    return merged(
        {
            "metadata": {"labels": {"app": "checkout"}, "annotations": {"owner": "shop"}},
            "spec": {"containers": [{"name": "main", "image": "checkout:1"}]},
        },
        change,
    )


def workload(kind: str, pods: Json) -> tuple[str, Json]:
    """A workload of a kind: its path and itself."""
    name = unique("checkout")
    selector = {"matchLabels": {"app": "checkout"}}
    apps, batch = "/apis/apps/v1/namespaces/shop", "/apis/batch/v1/namespaces/shop"
    once = merged(pods, {"spec": {"restartPolicy": "Never"}})
    kinds: dict[str, tuple[str, Json]] = {
        "deployments": (apps, {"spec": {"replicas": 0, "selector": selector, "template": pods}}),
        "replicasets": (apps, {"spec": {"replicas": 0, "selector": selector, "template": pods}}),
        "statefulsets": (apps, {"spec": {"replicas": 0, "serviceName": "a", "selector": selector, "template": pods}}),
        "daemonsets": (
            apps,
            {"spec": {"selector": selector, "template": merged(pods, {"spec": {"nodeSelector": {"no": "node"}}})}},
        ),
        "controllerrevisions": (apps, {"revision": 1, "data": {"spec": {"template": pods}}}),
        "jobs": (batch, {"spec": {"suspend": True, "template": once}}),
        "cronjobs": (
            batch,
            {"spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": {"template": once}}}},
        ),
        "replicationcontrollers": (
            "/api/v1/namespaces/shop",
            {"spec": {"replicas": 0, "selector": {"app": "checkout"}, "template": pods}},
        ),
        "podtemplates": ("/api/v1/namespaces/shop", {"template": pods}),
        "pods": (
            "/api/v1/namespaces/shop",
            merged(pods, {"spec": {"nodeName": "paper-node", "tolerations": [{"operator": "Exists"}]}}),
        ),
    }
    path, rest = kinds[kind]
    return f"{path}/{kind}", merged(rest, {"metadata": {"name": name}})


WORKLOADS = (
    *("deployments", "replicasets", "statefulsets", "daemonsets", "controllerrevisions"),
    *("jobs", "cronjobs", "replicationcontrollers", "podtemplates", "pods"),
)
TEMPLATED = tuple(kind for kind in WORKLOADS if kind not in ("controllerrevisions", "pods"))


def within(kind: str, change: Json) -> Json:
    """A change of the template of a workload."""
    if kind == "podtemplates":
        return {"template": change}
    if kind == "cronjobs":
        return {"spec": {"jobTemplate": {"spec": {"template": change}}}}
    return {"spec": {"template": change}}


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_a_grant_creates_nothing_that_runs(api: Api, accounts: dict[str, Caller], kind: str) -> None:
    path, body = workload(kind, template())
    refused(await api.post(path, body, by=accounts["plain"]), "grant-accounts", f"may not create {kind}")
    applied = merged(body, {"apiVersion": "v1" if path.startswith("/api/") else path.split("/")[2] + "/v1"})
    kinds = {"replicasets": "ReplicaSet", "deployments": "Deployment"}
    if kind in kinds:
        answer = await api.patch(
            f"{path}/{body['metadata']['name']}?fieldManager=t",
            applied | {"kind": kinds[kind]},
            by=accounts["plain"],
            content="application/apply-patch+yaml",
        )
        refused(answer, "grant-accounts")
    made = accepted(await api.post(path, body, by=accounts["templates"]))
    await api.gone(f"{path}/{made['metadata']['name']}")


TEMPLATE_CHANGES: dict[str, Json] = {
    "image": {"spec": {"containers": [{"name": "main", "image": "mine:1"}]}},
    "account": {"spec": {"serviceAccountName": "admin"}},
    "sidecar": {"spec": {"containers": [{"name": "main", "image": "checkout:1"}, {"name": "b", "image": "mine:1"}]}},
    "volume": {"spec": {"volumes": [{"name": "a", "secret": {"secretName": "database"}}]}},
    "label": {"metadata": {"labels": {"valetkey.dev/agent": "true"}}},
    "annotation": {"metadata": {"annotations": {"sidecar.istio.io/inject": "true"}}},
    "annotation_changed": {"metadata": {"annotations": {"owner": "me"}}},
    "annotation_removed": {"metadata": {"annotations": {"owner": None}}},
    "annotations_removed": {"metadata": {"annotations": None}},
    "restarted_and_annotation": {
        "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now", "owner": "me"}}
    },
    "restarted_and_image": {
        "metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
        "spec": {"containers": [{"name": "main", "image": "mine:1"}]},
    },
}


@pytest.mark.parametrize("change", TEMPLATE_CHANGES)
@pytest.mark.parametrize("kind", TEMPLATED)
async def test_a_grant_does_not_change_what_runs(api: Api, accounts: dict[str, Caller], kind: str, change: str) -> None:
    path, body = workload(kind, template())
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    sent = within(kind, TEMPLATE_CHANGES[change])
    status, answer = await api.patch(item, sent, by=accounts["plain"])
    if status == 422 and kind in ("jobs", "replicasets"):
        assert "immutable" in answer["message"] or "Invalid" in answer["message"]  # refused by Kubernetes before that
    else:
        refused((status, answer), "grant-accounts")
        status, answer = await api.patch(item, sent, by=accounts["templates"])
        assert "ValidatingAdmissionPolicy" not in answer.get("message", "")
    await api.delete(f"{item}?propagationPolicy=Background")


@pytest.mark.parametrize("kind", TEMPLATED)
async def test_a_grant_restarts_and_scales_what_runs(api: Api, accounts: dict[str, Caller], kind: str) -> None:
    path, body = workload(kind, template())
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    for at in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", None):
        change = within(kind, {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}})
        status, answer = await api.patch(item, change, by=accounts["plain"])
        assert "ValidatingAdmissionPolicy" not in answer.get("message", ""), answer
        assert kind == "jobs" or status == 200, answer
    accepted(await api.patch(item, {"metadata": {"annotations": {"a": "b"}}}, by=accounts["plain"]))
    if kind in ("deployments", "replicasets", "statefulsets", "replicationcontrollers"):
        accepted(await api.patch(item, {"spec": {"replicas": 0}}, by=accounts["plain"]))
        accepted(await api.patch(f"{item}/scale", {"spec": {"replicas": 0}}, by=accounts["plain"]))
    accepted(await api.delete(f"{item}?propagationPolicy=Background", by=accounts["plain"]))


async def test_a_template_without_metadata_is_guarded_as_well(api: Api, accounts: dict[str, Caller]) -> None:
    path, body = workload("podtemplates", merged(template(), {"metadata": None}))
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    refused(
        await api.patch(item, within("podtemplates", TEMPLATE_CHANGES["label"]), by=accounts["plain"]), "grant-accounts"
    )
    restart = within("podtemplates", {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}})
    accepted(await api.patch(item, restart, by=accounts["plain"]))
    await api.delete(item)


async def test_a_grant_does_not_change_the_history_of_workloads(api: Api, accounts: dict[str, Caller]) -> None:
    path, body = workload("controllerrevisions", template())
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    refused(await api.put(item, made | {"revision": 7}, by=accounts["plain"]), "grant-accounts", "controllerrevisions")
    await api.delete(item)


async def test_a_grant_does_not_change_what_a_pod_runs(api: Api, accounts: dict[str, Caller]) -> None:
    path, body = workload("pods", template())
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    image = {"spec": {"containers": [{"name": "main", "image": "mine:1"}]}}
    strategic = "application/strategic-merge-patch+json"
    refused(await api.patch(item, image, by=accounts["plain"], content=strategic), "grant-accounts", "what a pod runs")
    accepted(await api.patch(item, {"metadata": {"annotations": {"a": "b"}}}, by=accounts["plain"]))
    accepted(await api.patch(item, image, by=accounts["templates"], content=strategic))
    await api.gone(item)


@pytest.mark.parametrize(
    "container",
    [
        {"securityContext": {"runAsUser": 0}},
        {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
        {"envFrom": [{"secretRef": {"name": "database"}}]},
        {"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}]},
    ],
)
async def test_a_debug_container_gains_nothing(api: Api, accounts: dict[str, Caller], container: Json) -> None:
    path, body = workload("pods", template())
    made = await api.made(path, body)
    item = f"{path}/{made['metadata']['name']}"
    strategic = "application/strategic-merge-patch+json"
    harmless = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}
    accepted(await api.patch(f"{item}/ephemeralcontainers", harmless, by=accounts["plain"], content=strategic))
    harmful = {"spec": {"ephemeralContainers": [{"name": "harm", "image": "busybox", **container}]}}
    refused(
        await api.patch(f"{item}/ephemeralcontainers", harmful, by=accounts["plain"], content=strategic),
        "grant-accounts",
        "ephemeral containers only without",
    )
    await api.gone(item)


# secret-mounts


def from_env(container: str) -> Json:
    """A pod of which a container reads a Secret into an environment variable."""
    env = [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "valetkey-a", "key": "token"}}}]
    return {container: [{"name": "reads", "image": "none", "env": env}]}


def from_all_env(container: str) -> Json:
    """A pod of which a container reads a Secret as its environment."""
    return {container: [{"name": "reads", "image": "none", "envFrom": [{"secretRef": {"name": "valetkey-a"}}]}]}


def volume(**source: Any) -> Json:
    """A pod with a volume."""
    return {"volumes": [{"name": "a", **source}]}


NAMED: dict[str, Json] = {
    "volume": volume(secret={"secretName": "valetkey-a", "optional": True}),
    "projected": volume(projected={"sources": [{"secret": {"name": "valetkey-a"}}]}),
    "projected_second": volume(
        projected={"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "valetkey-a", "optional": True}}]}
    ),
    "second_volume": {
        "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "valetkey-a"}}]
    },
    "csi": volume(csi={"driver": "a.b", "nodePublishSecretRef": {"name": "valetkey-a"}}),
    "flex": volume(flexVolume={"driver": "a/b", "secretRef": {"name": "valetkey-a"}}),
    "azure": volume(azureFile={"shareName": "a", "secretName": "valetkey-a"}),
    "cephfs": volume(cephfs={"monitors": ["a"], "secretRef": {"name": "valetkey-a"}}),
    "cinder": volume(cinder={"volumeID": "a", "secretRef": {"name": "valetkey-a"}}),
    "iscsi": volume(
        iscsi={"targetPortal": "a", "iqn": "iqn.2001-04.a:b", "lun": 0, "secretRef": {"name": "valetkey-a"}}
    ),
    "rbd": volume(rbd={"monitors": ["a"], "image": "a", "secretRef": {"name": "valetkey-a"}}),
    "scaleio": volume(scaleIO={"gateway": "a", "system": "a", "volumeName": "a", "secretRef": {"name": "valetkey-a"}}),
    "storageos": volume(storageos={"volumeName": "a", "secretRef": {"name": "valetkey-a"}}),
    "env": from_env("containers"),
    "env_of_init": from_env("initContainers"),
    "all_env": from_all_env("containers"),
    "all_env_of_init": from_all_env("initContainers"),
    "pull": {"imagePullSecrets": [{"name": "valetkey-a"}]},
}
OWED = "carries the label valetkey.dev/agent"


@pytest.mark.parametrize("way", NAMED)
async def test_a_pod_that_names_a_credential_carries_the_label(api: Api, world: World, way: str) -> None:
    spec = NAMED[way]
    path = f"{PODS}?dryRun=All"
    for labels in ({}, {"valetkey.dev/agent": "false"}, {"app": "a"}):
        for caller in (ADMIN, world.editor, everything("system:serviceaccount:kube-system:replicaset-controller")):
            answer = await api.post(path, pod(unique("p"), labels=labels, **spec), by=caller)
            refused(answer, "secret-mounts", OWED)
    accepted(await api.post(path, pod(unique("p"), **spec), by=world.editor))


async def test_a_pod_without_a_name_is_held_to_it_as_well(api: Api, world: World) -> None:
    body = merged(pod("a", labels={}, **NAMED["volume"]), {"metadata": {"name": None, "generateName": "a-"}})
    refused(await api.post(PODS, body, by=world.editor), "secret-mounts", OWED)


async def test_what_an_account_adds_to_its_pods_counts(api: Api, world: World) -> None:
    name = unique("pulls")
    await api.made(
        "/api/v1/namespaces/agents/serviceaccounts",
        {"metadata": {"name": name}, "imagePullSecrets": [{"name": "valetkey-a"}]},
    )

    async def added() -> bool:
        body = pod(unique("p"), labels={}, serviceAccountName=name)
        return (await api.post(f"{PODS}?dryRun=All", body))[0] == 403

    await until(added, "the account's pull Secret to be added")
    refused(await api.post(PODS, pod(unique("p"), labels={}, serviceAccountName=name)), "secret-mounts", OWED)


async def test_other_pods_need_no_label(api: Api, world: World) -> None:
    for spec in (
        {},
        volume(secret={"secretName": "database"}),
        volume(secret={"secretName": "my-valetkey-a"}),
        volume(configMap={"name": "valetkey-a"}),
        volume(projected={"sources": [{"configMap": {"name": "valetkey-a"}}]}),
        {"imagePullSecrets": [{"name": "registry"}]},
    ):
        accepted(await api.post(f"{PODS}?dryRun=All", pod(unique("p"), labels={}, **spec), by=world.editor))


@pytest.mark.parametrize("labels", [{"valetkey.dev/agent": None}, {"valetkey.dev/agent": "false"}, None])
async def test_the_label_is_not_taken_away(api: Api, world: World, labels: Json | None) -> None:
    made = await world.pod("agents", unique("mounts"), **NAMED["volume"])
    path = f"{PODS}/{made['metadata']['name']}"
    change = {"metadata": {"labels": labels}}
    for caller in (world.editor, ADMIN):
        refused(await api.patch(path, change, by=caller), "secret-mounts", OWED)
    for subresource in ("status", "resize", "ephemeralcontainers"):
        await api.patch(f"{path}/{subresource}", change)
    _, live = await api.get(path)
    refused(await api.put(path, live | {"metadata": merged(live["metadata"], {"labels": labels})}), "secret-mounts")
    refused(await api.patch(f"{path}/status", change, by=everything("person")), "secret-mounts", OWED)
    assert live["metadata"]["labels"] == {"valetkey.dev/agent": "true"}
    accepted(await api.patch(path, {"metadata": {"labels": {"a": "b"}}}, by=world.editor))
    accepted(await api.patch(f"{path}/status", {"status": {"message": "as a kubelet does"}}))
    await api.gone(path)


async def test_the_label_of_other_pods_may_go(api: Api, world: World) -> None:
    made = await world.pod("agents", unique("mounts-nothing"))
    path = f"{PODS}/{made['metadata']['name']}"
    accepted(await api.patch(path, {"metadata": {"labels": {"valetkey.dev/agent": None}}}, by=world.editor))
    await api.gone(path)


@pytest.mark.parametrize(
    "reads",
    [
        {"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "valetkey-a", "key": "token"}}}]},
        {"envFrom": [{"secretRef": {"name": "valetkey-a"}}]},
    ],
)
async def test_a_debug_container_cannot_name_a_credential_in_an_unlabelled_pod(
    api: Api, world: World, reads: Json
) -> None:
    made = await world.pod("agents", unique("debugged"), labels={})
    path = f"{PODS}/{made['metadata']['name']}"
    change = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "none", **reads}]}}
    answer = await api.patch(
        f"{path}/ephemeralcontainers", change, by=ADMIN, content="application/strategic-merge-patch+json"
    )
    refused(answer, "secret-mounts", OWED)
    await api.gone(path)


# operator-leash


@pytest.fixture
def loose() -> Caller:
    """The operator, whom RBAC refuses nothing: only the leash holds it."""
    return everything(OPERATOR)


async def test_the_operator_writes_nothing_that_it_has_no_business_with(api: Api, world: World, loose: Caller) -> None:
    target = await world.pod("agents", unique("target"))
    path = f"{PODS}/{target['metadata']['name']}"
    workloads = [workload(kind, template()) for kind in WORKLOADS]
    for where, body in [
        *workloads,
        ("/api/v1/namespaces/agents/configmaps", {"metadata": {"name": "a"}}),
        ("/api/v1/namespaces", {"metadata": {"name": "a"}}),
        ("/apis/coordination.k8s.io/v1/namespaces/agents/leases", {"metadata": {"name": "a"}}),
        (POLICIES, policy(unique("p"))),
        (
            f"{path}/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": target["metadata"]["name"]}},
        ),
        (
            f"{path}/binding",
            {"metadata": {"name": target["metadata"]["name"]}, "target": {"kind": "Node", "name": "a"}},
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            {
                "metadata": {"name": "bs.a.io"},
                "spec": {
                    "group": "a.io",
                    "names": {"plural": "bs", "kind": "B"},
                    "scope": "Cluster",
                    "versions": [
                        {
                            "name": "v1",
                            "served": True,
                            "storage": True,
                            "schema": {"openAPIV3Schema": {"type": "object"}},
                        }
                    ],
                },
            },
        ),
    ]:
        refused(await api.post(where, body, by=loose), "operator-leash", "does not CREATE")
    for where in (f"{path}/status", f"{path}/resize", "/api/v1/namespaces/agents", "/api/v1/nodes/paper-node"):
        change = {"metadata": {"labels": {"a": "b"}}}
        refused(await api.patch(where, change, by=loose), "operator-leash", "does not UPDATE")
    for where in (
        path,
        "/api/v1/namespaces/agents",
        f"{SECRETS.replace('secrets', 'serviceaccounts')}/fixer",
        POLICIES,
    ):
        await _delete_refused(api, where, loose)
    for subresource in ("exec?command=id", "attach", "portforward", "proxy/"):
        refused(await api.post(f"{path}/{subresource}", {}, by=loose), "operator-leash", "does not CONNECT")
    await api.gone(path)


async def _delete_refused(api: Api, where: str, by: Caller) -> None:
    if where == POLICIES:
        made = await api.made(POLICIES, policy(unique("p"), "Deny"))
        where = f"{POLICIES}/{made['metadata']['name']}"
    refused(await api.delete(where, by=by), "operator-leash")


async def test_the_guards_themselves_are_beyond_the_operators_rbac(api: Api, world: World) -> None:
    # Admission never sees admission policies: here RBAC alone holds the operator.
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    forbidden(await api.delete(f"{path}/operator-leash.valetkey.dev", by=world.tokens["operator"]))
    forbidden(await api.patch(f"{path}/operator-leash.valetkey.dev", {"spec": {}}, by=world.tokens["operator"]))


async def test_the_operator_makes_accounts_of_grants_only(api: Api, world: World, loose: Caller) -> None:
    request_uid = str(uuid.uuid4())
    good = grant_account(request_uid)
    for body, message in (
        (merged(good, {"metadata": {"name": "other"}}), "is named valetkey-<request uid>"),
        (merged(good, {"metadata": {"name": f"valetkey-{NOBODY}"}}), "is named valetkey-<request uid>"),
        (merged(good, {"metadata": {"name": f"valetkey-t-t-{request_uid}"}}), "is named valetkey-<request uid>"),
        (merged(good, {"metadata": {"labels": None}}), "carries the label valetkey.dev/request"),
        (merged(good, {"metadata": {"labels": {"valetkey.dev/request": "x"}}}), "carries the label"),
        (merged(good, {"metadata": {"labels": {"a": "b"}}}), "no foreign labels or annotations"),
        (
            merged(good, {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "admin"}}}),
            "no foreign labels or annotations",
        ),
        (merged(good, {"metadata": {"finalizers": ["a.b/c"]}}), "no finalizers"),
        (merged(good, {"secrets": [{"name": "a"}]}), "no Secrets"),
        (merged(good, {"imagePullSecrets": [{"name": "a"}]}), "no Secrets"),
    ):
        refused(await api.post(ACCOUNTS, body, by=loose), "operator-leash", message)
    for namespace in ("agents", SYSTEM, "kube-system"):
        refused(
            await api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", good, by=loose),
            "operator-leash",
            "in the namespace of grants alone",
        )
    made = accepted(await api.post(ACCOUNTS, good, by=loose))
    path = f"{ACCOUNTS}/{made['metadata']['name']}"
    for change in (
        {"metadata": {"labels": {"valetkey.dev/request": NOBODY}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": ["a.b/c"]}},
        {"secrets": [{"name": "a"}]},
        {"automountServiceAccountToken": True},
    ):
        refused(await api.patch(path, change, by=loose), "operator-leash")
    accepted(await api.delete(path, by=loose))
    await _delete_refused(api, f"{ACCOUNTS}/default", loose)


async def test_the_operator_asks_for_short_tokens_of_grants_only(api: Api, world: World, loose: Caller) -> None:
    name = await granted(api, world)
    path = f"{ACCOUNTS}/{name}/token"
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "a"}
    for spec in (token_request(901), token_request(3600), token_request(86400)):
        refused(await api.post(path, spec, by=loose), "operator-leash", "at most 900 s")
    # Kubernetes' default is an hour.
    refused(
        await api.post(path, merged(token_request(), {"spec": {"expirationSeconds": None}}), by=loose), "operator-leash"
    )
    node = {"apiVersion": "v1", "kind": "Node", "name": "paper-node"}
    refused(
        await api.post(path, token_request(boundObjectRef=node), by=loose), "operator-leash", "bound to nothing else"
    )
    assert (await api.post(path, token_request(boundObjectRef=bound), by=loose))[0] in (403, 404)
    refused(await api.post(f"{ACCOUNTS}/default/token", token_request(), by=loose), "operator-leash")
    for namespace, victim in (("agents", "fixer"), (SYSTEM, "valetkey"), ("kube-system", "default")):
        refused(
            await api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{victim}/token", token_request(), by=loose),
            "operator-leash",
            "in the namespace of grants alone",
        )
    for seconds in (600, 900):
        accepted(await api.post(path, token_request(seconds), by=loose))


def role(request_uid: str, **change: Any) -> Json:
    """A Role as the operator makes it."""
    body = {
        "metadata": {"name": f"valetkey-{request_uid}-0", "labels": {"valetkey.dev/request": request_uid}},
        "rules": [
            {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["checkout"], "verbs": ["get"]}
        ],
    }
    return merged(body, change)


def binding(request_uid: str, kind: str = "Role", **change: Any) -> Json:
    """A binding as the operator makes it."""
    body = {
        "metadata": {"name": f"valetkey-{request_uid}-0", "labels": {"valetkey.dev/request": request_uid}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": f"valetkey-{request_uid}-0"},
        "subjects": [{"kind": "ServiceAccount", "namespace": GRANTS, "name": f"valetkey-{request_uid}"}],
    }
    return merged(body, change)


@pytest.mark.parametrize("scope", ["/namespaces/shop/", "/cluster"])
async def test_the_operator_binds_accounts_of_the_same_grant_only(
    api: Api, world: World, loose: Caller, scope: str
) -> None:
    request_uid = str(uuid.uuid4())
    roles, bindings = f"{RBAC}{scope}roles", f"{RBAC}{scope}rolebindings"
    kind = "ClusterRole" if scope == "/cluster" else "Role"
    subject = binding(request_uid)["subjects"][0]
    for change, message in (
        ({"metadata": {"name": "other"}}, "are named valetkey-<request uid>-"),
        ({"metadata": {"name": f"valetkey-{NOBODY}-0"}}, "are named valetkey-<request uid>-"),
        ({"metadata": {"labels": {"valetkey.dev/request": ""}}}, "carries the label"),
        ({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}}}, "no foreign labels"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "no finalizers"),
    ):
        refused(await api.post(roles, role(request_uid, **change), by=loose), "operator-leash", message)
        refused(await api.post(bindings, binding(request_uid, kind, **change), by=loose), "operator-leash", message)
    for subjects in (
        None,
        [],
        [subject, subject | {"name": f"valetkey-{NOBODY}"}],
        [subject | {"namespace": "agents"}],
        [subject | {"name": f"valetkey-{NOBODY}"}],
        [subject | {"name": "default"}],
        [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": subject["name"]}],
        [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}],
    ):
        body = binding(request_uid, kind, subjects=subjects)
        refused(await api.post(bindings, body, by=loose), "operator-leash", "has one subject, its account")
    if scope == "/cluster":
        body = role(request_uid, rules=None, aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})
        refused(await api.post(roles, body, by=loose), "operator-leash", "no aggregation")
    for path, body in ((roles, role(request_uid)), (bindings, binding(request_uid, kind))):
        made = accepted(await api.post(path, body, by=loose))
        item = f"{path}/{made['metadata']['name']}"
        more = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
        for later in (
            {"rules": more} if path == roles else {"subjects": [subject | {"namespace": "agents"}]},
            {"metadata": {"labels": {"a": "b"}}},
            {"metadata": {"finalizers": ["a.b/c"]}},
            {"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}},
        ):
            refused(await api.patch(item, later, by=loose), "operator-leash")
        accepted(await api.patch(item, {"metadata": {"finalizers": ["a.b/c"]}}))
        accepted(await api.delete(item, by=loose))
        accepted(await api.patch(item, {"metadata": {"finalizers": None}}, by=loose))
        assert (await api.get(item))[0] == 404


async def test_the_operator_hands_out_no_rights_over_grants_or_the_cluster(
    api: Api, world: World, loose: Caller
) -> None:
    request_uid = str(uuid.uuid4())
    for namespace in (GRANTS, SYSTEM, "kube-system"):
        for kind, body in (("roles", role(request_uid)), ("rolebindings", binding(request_uid))):
            answer = await api.post(f"{RBAC}/namespaces/{namespace}/{kind}", body, by=loose)
            refused(answer, "operator-leash", "no rights are handed out")


async def test_the_operator_deletes_no_role_or_binding_of_others(api: Api, world: World, loose: Caller) -> None:
    for path in (
        f"{RBAC}/clusterroles/valetkey-requester",
        f"{RBAC}/clusterrolebindings/cluster-admin",
        f"{RBAC}/clusterroles/edit",
        f"{RBAC}/namespaces/shop/rolebindings/editor-edits",
        f"{RBAC}/namespaces/agents/rolebindings/valetkey-operator-agents",
    ):
        refused(await api.delete(path, by=loose), "operator-leash", "carries the label valetkey.dev/request")


async def test_the_operator_itself_holds_the_ceiling_and_cannot_exceed_it(api: Api, world: World) -> None:
    request_uid, operator = str(uuid.uuid4()), world.tokens["operator"]
    roles = f"{RBAC}/namespaces/shop/roles"
    accepted(await api.post(f"{roles}?dryRun=All", role(request_uid), by=operator))
    for rule in (
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["delete"]},
        {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    ):
        status, answer = await api.post(roles, role(request_uid, rules=[rule]), by=operator)
        assert status == 403
        assert "attempting to grant RBAC permissions not currently held" in answer["message"]
    bindings = f"{RBAC}/namespaces/shop/rolebindings"
    await api.ensured(f"{RBAC}/clusterroles", {"metadata": {"name": "log-reader"}, "rules": [LOGS]})
    for name, allowed in (("log-reader", True), ("edit", False), ("cluster-admin", False)):
        body = binding(request_uid, "ClusterRole", roleRef={"name": name})
        status, answer = await api.post(f"{bindings}?dryRun=All", body, by=operator)
        assert (status == 201) is allowed, answer
    forbidden(await api.post(f"{RBAC}/namespaces/agents/roles", role(request_uid), by=operator))
    accepted(await api.get(f"{RBAC}/clusterroles/log-reader", by=operator))


LOGS = {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}


async def test_the_operator_writes_credentials_of_the_same_request_only(
    api: Api, world: World, loose: Caller, delivery: Json
) -> None:
    name, request_uid = delivery["metadata"]["name"], delivery["metadata"]["labels"]["valetkey.dev/request"]
    path = f"{SECRETS}/{name}"
    fresh = delivered(request_uid, unique("valetkey-b"))
    owner = fresh["metadata"]["ownerReferences"][0]
    for change, message in (
        ({"type": "Opaque"}, "writes Secrets of type valetkey.dev/credential"),
        (
            {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}},
            "of type valetkey.dev/credential",
        ),
        ({"metadata": {"name": unique("database")}}, "named valetkey-"),
        ({"metadata": {"labels": None}}, "carries the label"),
        ({"metadata": {"ownerReferences": None}}, "owned by its AccessRequest alone"),
        ({"metadata": {"ownerReferences": [owner | {"uid": NOBODY}]}}, "owned by its AccessRequest alone"),
        ({"metadata": {"ownerReferences": [owner | {"kind": "TaskGrant"}]}}, "owned by its AccessRequest alone"),
        ({"immutable": True}, "is not immutable"),
    ):
        refused(await api.post(SECRETS, merged(fresh, change), by=loose), "operator-leash", message)
    again = merged(delivery, {"data": {"token": "Yg=="}, "metadata": {"resourceVersion": None}})
    accepted(await api.put(path, again, by=loose))
    refused(await api.put(path, delivered(NOBODY, name), by=loose), "operator-leash", "only those of the same request")
    accepted(await api.delete(path, by=loose))


async def test_the_operator_leaves_the_secrets_of_others_alone(api: Api, world: World, loose: Caller) -> None:
    for labels in ({}, {"valetkey.dev/request": NOBODY}):
        name = unique("valetkey-theirs")
        path = f"{SECRETS}/{name}"
        await api.made(SECRETS, {"metadata": {"name": name, "labels": labels}, "data": {"a": "YQ=="}}, by=world.editor)
        for caller in (loose, world.tokens["operator"]):
            status, answer = await api.put(path, delivered(NOBODY, name), by=caller)
            assert status in (403, 422), answer  # Kubernetes itself refuses the change of type
            refused(await api.delete(path, by=caller), "operator-leash")
        assert (await api.get(path))[1]["data"] == {"a": "YQ=="}
        await api.delete(path)


async def test_the_operator_cannot_read_secrets(api: Api, world: World, delivery: Json) -> None:
    operator, path = world.tokens["operator"], f"{SECRETS}/{delivery['metadata']['name']}"
    forbidden(await api.get(path, by=operator))
    forbidden(await api.get(SECRETS, by=operator))
    forbidden(await api.patch(path, {}, by=operator))


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"valetkey.dev/agent": None}}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"annotations": {"valetkey.dev/grant": "1", "theirs": "changed"}}},
        {"metadata": {"annotations": {"theirs": None}}},
        {"metadata": {"annotations": None}},
        {"metadata": {"finalizers": ["a.b/c"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": NOBODY}]}},
        {"spec": {"activeDeadlineSeconds": 5}},
        {"spec": {"containers": [{"name": "main", "image": "mine:1"}]}},
    ],
)
async def test_the_operator_touches_one_annotation_of_a_pod(
    api: Api, world: World, loose: Caller, change: Json
) -> None:
    made = await world.pod("agents", unique("touched"))
    path = f"{PODS}/{made['metadata']['name']}"
    await api.patch(path, {"metadata": {"annotations": {"theirs": "1"}}})
    refused(
        await api.patch(path, change, by=loose, content="application/strategic-merge-patch+json"),
        "operator-leash",
        "but the annotation valetkey.dev/grant",
    )
    for value in ("1", "2", None):
        accepted(
            await api.patch(
                path,
                {"metadata": {"uid": made["metadata"]["uid"], "annotations": {"valetkey.dev/grant": value}}},
                by=world.tokens["operator"],
            )
        )
    await api.gone(path)


async def test_the_operator_posts_events_where_agents_run(api: Api, world: World, asked: str) -> None:
    _, about = await api.get(asked)
    event = {
        "metadata": {"generateName": "fix-"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "valetkey.dev/operator",
        "reportingInstance": "valetkey-0",
        "action": "AccessDelivered",
        "reason": "AccessDelivered",
        "type": "Normal",
        "regarding": {"kind": "AccessRequest", "namespace": "agents", "uid": about["metadata"]["uid"]},
    }
    accepted(await api.post("/apis/events.k8s.io/v1/namespaces/agents/events", event, by=world.tokens["operator"]))


async def test_the_whole_path_of_a_grant_is_open_to_the_operator(api: Api, world: World, asked: str) -> None:
    operator = world.tokens["operator"]
    _, request = await api.get(asked, by=operator)
    request_uid, name = request["metadata"]["uid"], request["metadata"]["name"]
    path = f"{TASK_GRANTS}/{name}"
    accepted(await api.post(TASK_GRANTS, grant(name, request_uid), by=operator))
    accepted(await api.post(ACCOUNTS, grant_account(request_uid), by=operator))
    accepted(await api.post(f"{ACCOUNTS}/valetkey-{request_uid}/token", token_request(), by=operator))
    for kind, body in (("roles", role(request_uid)), ("rolebindings", binding(request_uid))):
        accepted(await api.post(f"{RBAC}/namespaces/shop/{kind}", body, by=operator))
    secret = unique("valetkey-path")
    accepted(await api.post(SECRETS, delivered(request_uid, secret, name), by=operator))
    accepted(await api.put(f"{SECRETS}/{secret}", delivered(request_uid, secret, name), by=operator))
    accepted(await api.patch(f"{path}/status", {"status": {"made": []}}, by=operator))
    accepted(await api.patch(f"{asked}/status", {"status": {"agent": "agents/fixer"}}, by=operator))
    for gone in (
        f"{SECRETS}/{secret}",
        f"{RBAC}/namespaces/shop/rolebindings/valetkey-{request_uid}-0",
        f"{RBAC}/namespaces/shop/roles/valetkey-{request_uid}-0",
        f"{ACCOUNTS}/valetkey-{request_uid}",
        path,
    ):
        accepted(await api.delete(gone, by=operator))
    accepted(await api.patch(path, {"metadata": {"finalizers": None}}, by=operator))
    accepted(await api.delete(asked, by=operator))


# policies


@pytest.fixture(scope="module")
async def people(api: Api, world: World) -> dict[str, Caller]:
    """People who write policies: the author; who may set locks; who may do all but allow; who may allow one name."""
    verbs = ["create", "get", "list", "update", "patch", "delete", "deletecollection"]
    anything = {"apiGroups": ["valetkey.dev"], "resources": ["agentpolicies"], "verbs": verbs}
    one = {
        "apiGroups": ["valetkey.dev"],
        "resources": ["agentpolicies"],
        "resourceNames": ["only-this"],
        "verbs": ["allow"],
    }
    for name, rules in (("test-no-allow", [anything]), ("test-one-allow", [anything, one])):
        await api.ensured(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    out = {}
    for user, role_name in (
        ("author", "valetkey-policy-author"),
        ("lock", "valetkey-policy-lock"),
        ("no-allow", "test-no-allow"),
        ("one-allow", "test-one-allow"),
    ):
        await api.ensured(
            f"{RBAC}/clusterrolebindings",
            {
                "metadata": {"name": f"test-{user}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role_name},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
            },
        )
        out[user] = Caller(user=user)
    return out


NEEDS_ALLOW = "need the verb allow on agentpolicies.valetkey.dev/"


async def test_an_allow_is_made_by_those_who_may_allow(api: Api, people: dict[str, Caller]) -> None:
    for user in ("lock", "no-allow", "one-allow"):
        answer = await api.post(f"{POLICIES}?dryRun=All", policy(unique("p")), by=people[user])
        refused(answer, "policies", NEEDS_ALLOW)
    body = merged(policy("x"), {"metadata": {"name": None, "generateName": "only-this"}})
    refused(await api.post(f"{POLICIES}?dryRun=All", body, by=people["one-allow"]), "policies", NEEDS_ALLOW)
    accepted(await api.post(f"{POLICIES}?dryRun=All", policy("only-this"), by=people["one-allow"]))
    accepted(await api.post(f"{POLICIES}?dryRun=All", policy(unique("p")), by=people["author"]))


async def test_a_lock_is_set_without_allow_and_not_lifted_without_it(api: Api, people: dict[str, Caller]) -> None:
    name = unique("lock")
    path = f"{POLICIES}/{name}"
    accepted(await api.post(POLICIES, policy(name, "Deny"), by=people["lock"]))
    forbidden(await api.delete(path, by=people["lock"]))
    refused(await api.delete(path, by=people["no-allow"]), "policies", NEEDS_ALLOW)
    refused(await api.delete(f"{path}?propagationPolicy=Foreground", by=people["no-allow"]), "policies", NEEDS_ALLOW)
    refused(await api.delete(POLICIES, by=people["no-allow"]), "policies", NEEDS_ALLOW)
    changes: tuple[Json, ...] = (
        {"spec": {"subjects": [{"name": "a", "namespace": "nowhere"}]}},
        {"spec": {"validations": [{"name": "a", "expression": "false", "message": "no"}]}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": NOBODY}]}},
        {"metadata": {"finalizers": ["a.b/c"]}},
    )
    for change in changes:
        for user in ("no-allow", "one-allow"):
            refused(await api.patch(path, change, by=people[user]), "policies", NEEDS_ALLOW)
    _, live = await api.get(path)
    refused(await api.put(path, live, by=people["no-allow"]), "policies", NEEDS_ALLOW)
    accepted(await api.patch(path, {"metadata": {"labels": {"a": "b"}}}, by=people["author"]))
    accepted(await api.delete(path, by=people["author"]))


async def test_an_allow_is_changed_with_allow_and_taken_away_without_it(api: Api, people: dict[str, Caller]) -> None:
    name = unique("p")
    path = f"{POLICIES}/{name}"
    accepted(await api.post(POLICIES, policy(name), by=people["author"]))
    refused(await api.patch(path, {"spec": {"ttl": {"max": "9h"}}}, by=people["no-allow"]), "policies", NEEDS_ALLOW)
    accepted(await api.patch(path, {"spec": {"ttl": {"max": "9h"}}}, by=people["author"]))
    accepted(await api.delete(path, by=people["no-allow"]))


async def test_policies_that_are_collected_go(api: Api, people: dict[str, Caller]) -> None:
    name = unique("lock")
    path = f"{POLICIES}/{name}"
    accepted(await api.post(POLICIES, policy(name, "Deny"), by=people["author"]))
    # RBAC lets the collector patch everything, but not allow.
    refused(await api.patch(path, {"spec": {"contact": "me"}}, by=COLLECTOR), "policies", NEEDS_ALLOW)
    accepted(await api.delete(f"{path}?propagationPolicy=Foreground", by=people["author"]))

    async def gone() -> bool:
        return (await api.get(path))[0] == 404

    await until(gone, "the policy to be collected")


async def test_neither_agents_nor_editors_nor_the_operator_write_policies(api: Api, world: World) -> None:
    for caller in (world.editor, world.insider, world.tokens["asker"], world.tokens["operator"]):
        forbidden(await api.post(POLICIES, policy(unique("p")), by=caller))


async def test_the_label_of_the_namespace_of_grants_cannot_be_changed_to_open_it(api: Api, world: World) -> None:
    path = f"/api/v1/namespaces/{GRANTS}"
    await api.patch(path, {"metadata": {"labels": {"kubernetes.io/metadata.name": "other"}}})
    _, live = await api.get(path)
    assert live["metadata"]["labels"]["kubernetes.io/metadata.name"] == GRANTS
    refused(await api.post(ACCOUNTS, grant_account(NOBODY)), "grants-namespace")
