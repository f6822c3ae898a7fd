"""Guards request-attest and door-leash: what the door may say and write, and that nobody else says that they are it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.api import ADMIN, SYSTEM, Api, Caller, Json, merged, unique, until
from tests.cluster.conftest import VALUES, Helm
from tests.cluster.guards.attack import (
    ACCOUNTS,
    PODS,
    RBAC,
    REQUESTS,
    SECRETS,
    TASK_GRANTS,
    accepted,
    everything,
    forbidden,
    grant_account,
    owner,
    refused,
    token_request,
)
from tests.cluster.guards.test_request_create import uid
from tests.cluster.world import World, grant, pod

USER = f"system:serviceaccount:{SYSTEM}:valetkey-door"
SYSTEM_PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
BEAT = {"metadata": {"annotations": {"valetkey.dev/heartbeat": "1"}}}
OUTCOME = {"spec": {"outcome": "Succeeded"}}


@pytest.fixture(scope="module")
async def door(api: Api, world: World, helm: Helm) -> AsyncIterator[Caller]:
    """The door with the token of its pod; afterwards there is none."""

    def install(values: Json) -> None:
        done = helm("upgrade", "valetkey", "charts/valetkey", "--namespace", SYSTEM, values=values)
        assert done.returncode == 0, done.stderr

    wanted = {"door": {"enabled": True, "tlsSecret": "none", "replicas": 0}}
    await asyncio.to_thread(install, merged(VALUES, wanted))
    await api.gone(f"{SYSTEM_PODS}/door-0")
    body = pod("door-0", labels={}, serviceAccountName="valetkey-door")
    caller = await api.token(SYSTEM, "valetkey-door", await api.made(SYSTEM_PODS, body))

    async def believed() -> bool:
        return (await api.post(f"{REQUESTS}?dryRun=All", by_door(world), by=caller))[0] == 201

    await until(believed, "the door to be believed")
    yield caller
    await api.gone(f"{SYSTEM_PODS}/door-0")
    await asyncio.to_thread(install, VALUES)

    async def as_before() -> bool:
        status, answer = await api.post(f"{REQUESTS}?dryRun=All", by_door(world), by=world.tokens["asker"])
        return status == 403 and "spec.requester.via is API" in answer["message"]

    await until(as_before, "the guards to be as before")


@pytest.fixture
async def asked_there(api: Api, world: World, door: Caller) -> str:
    """The path of a request that the door made for the asker, who has to say that it still works."""
    made = await api.made(REQUESTS, by_door(world), by=door)
    path = f"{REQUESTS}/{made['metadata']['name']}"
    wants = {"status": {"heartbeat": {"within": "60s"}}}
    accepted(await api.patch(f"{path}/status", wants, by=world.tokens["operator"]))
    return path


def by_door(world: World, who: str = "asker", **change: Any) -> Json:
    """A request as the door makes it for a pod."""
    return merged(world.request(who, spec={"requester": {"via": "Door"}}), change)


async def test_the_door_asks_for_the_pod_whose_token_it_was_shown(api: Api, world: World, door: Caller) -> None:
    made = accepted(await api.post(REQUESTS, by_door(world), by=door))
    requester = made["spec"]["requester"]
    assert (requester["podUID"], requester["via"]) == (uid(world, "asker"), "Door")
    assert made["spec"]["subject"]["podUID"] == uid(world, "asker")


def requester(**change: Any) -> Callable[[World], Json]:
    """A change of spec.requester."""
    return lambda world: {"spec": {"requester": change}}


def twin(world: World) -> Json:
    """Another pod, by name and uid."""
    return {"podName": "twin", "podUID": uid(world, "twin")}


FORGERIES: dict[str, tuple[Callable[[World], Json], str]] = {
    "another way": (requester(via="API"), "spec.requester.via is Door"),
    "no way": (requester(via=None), "spec.requester.via is Door"),
    "a subject's name": (
        lambda w: {"spec": {"subject": {"podName": "twin"}}},
        "nobody asks for another pod by the door",
    ),
    "a subject's uid": (
        lambda w: {"spec": {"subject": {"podUID": uid(w, "twin")}}},
        "nobody asks for another pod by the door",
    ),
    "another subject": (
        lambda w: {
            "spec": {"subject": twin(w)},
            "metadata": {"ownerReferences": owner(w, name="twin", uid=uid(w, "twin"))},
        },
        "nobody asks for another pod by the door",
    ),
    "an account of elsewhere": (
        requester(username="system:serviceaccount:agents-b:fixer"),
        "created in its pod's namespace",
    ),
    "another account's name": (requester(serviceAccount="boss"), "created in its pod's namespace"),
    "itself": (requester(username=USER, serviceAccount="valetkey-door"), "created in its pod's namespace"),
    "a person": (requester(username="admin"), "created in its pod's namespace"),
    "no token's id": (requester(credentialID="X509SHA256=00"), "that of the token that the door was shown"),
    "another owner": (
        lambda w: {"metadata": {"ownerReferences": owner(w, uid=uid(w, "twin"), name="twin")}},
        "one owner",
    ),
    "two owners": (
        lambda w: {"metadata": {"ownerReferences": owner(w) + owner(w, uid=uid(w, "twin"), name="twin")}},
        "one owner",
    ),
    "a finalizer": (lambda w: {"metadata": {"finalizers": ["a.b/c"]}}, "an AccessRequest has no finalizers"),
    "an outcome": (lambda w: OUTCOME, "spec.outcome is said when the task is over"),
    "too much": (
        lambda w: {"spec": {"task": {"parameters": {"a": "p" * 16384}}}},
        "16384 bytes at most",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_the_door_cannot_forge_what_it_was_not_shown(api: Api, world: World, door: Caller, forgery: str) -> None:
    change, message = FORGERIES[forgery]
    body = merged(by_door(world), change(world))
    refused(await api.post(REQUESTS, body, by=door), "request-attest", message)


async def test_the_door_asks_where_agents_are_served_and_nowhere_else(api: Api, world: World, door: Caller) -> None:
    for namespace in ("shop", SYSTEM):
        path = REQUESTS.replace("/agents/", f"/{namespace}/")
        forbidden(await api.post(path, by_door(world), by=door))
        refused(await api.post(path, by_door(world), by=everything(USER)), "request-attest", "serves no agents")


async def test_a_token_of_its_account_that_is_no_pods_asks_nothing(api: Api, world: World, door: Caller) -> None:
    unbound = await api.token(SYSTEM, "valetkey-door")
    for by in (unbound, everything(USER)):
        refused(await api.post(REQUESTS, by_door(world), by=by), "request-attest", "own bound token")


async def test_nobody_else_says_that_the_door_asked(api: Api, world: World, door: Caller) -> None:
    for who in ("asker", "twin", "stranger", "unbound"):
        refused(await api.post(REQUESTS, by_door(world), by=world.tokens[who]), "request-attest")
    refused(
        await api.post(REQUESTS, by_door(world), by=world.tokens["asker"]),
        "request-attest",
        "spec.requester.via is API",
    )
    namesake = everything("system:serviceaccount:agents:valetkey-door")
    for by in (ADMIN, world.insider, namesake):
        refused(await api.post(REQUESTS, by_door(world), by=by), "request-attest")


async def test_the_door_says_how_it_ended_and_that_the_pod_still_works_where_it_asked(
    api: Api, door: Caller, asked_there: str
) -> None:
    assert (
        accepted(await api.patch(asked_there, BEAT, by=door))["metadata"]["annotations"]
        == BEAT["metadata"]["annotations"]
    )
    assert accepted(await api.patch(asked_there, OUTCOME, by=door))["spec"]["outcome"] == "Succeeded"


async def test_the_pod_says_so_itself_where_it_reaches_the_api_server(
    api: Api, world: World, door: Caller, asked_there: str
) -> None:
    accepted(await api.patch(asked_there, BEAT, by=world.tokens["asker"]))
    accepted(await api.patch(asked_there, OUTCOME, by=world.tokens["asker"]))


async def test_what_the_door_asked_is_nobody_elses_to_change(
    api: Api, world: World, door: Caller, asked_there: str
) -> None:
    for by in (world.tokens["twin"], world.tokens["stranger"], world.insider, ADMIN, everything(USER)):
        for change in (BEAT, OUTCOME):
            refused(await api.patch(asked_there, change, by=by), "request-attest")


async def test_the_door_changes_nothing_of_what_a_pod_asked_itself(api: Api, door: Caller, asked: str) -> None:
    for change in (BEAT, OUTCOME):
        refused(await api.patch(asked, change, by=door), "request-attest", "by the pod that made it")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"annotations": {"valetkey.dev/heartbeat": "x" * 65}}},
        {"metadata": {"finalizers": ["a.b/c"]}},
        {"metadata": {"ownerReferences": None}},
        merged(OUTCOME, {"metadata": {"labels": {"a": "b"}}}),
    ],
    ids=str,
)
async def test_the_door_changes_nothing_else_of_what_it_asked(
    api: Api, door: Caller, asked_there: str, change: Json
) -> None:
    refused(await api.patch(asked_there, change, by=door), "request-attest")


async def test_the_door_reads_nothing_but_requests_by_name(api: Api, door: Caller, asked_there: str) -> None:
    accepted(await api.get(asked_there, by=door))
    for path in (REQUESTS, PODS, SECRETS, TASK_GRANTS, f"{SECRETS}/any", "/api/v1/namespaces"):
        forbidden(await api.get(path, by=door))
    forbidden(await api.delete(asked_there, by=door))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "none"}}
    assert accepted(await api.post(REVIEWS, review, by=door))["status"].get("authenticated") is not True


WRITES: dict[str, tuple[str, Json]] = {
    "a Secret": (SECRETS, {}),
    "a ConfigMap": ("/api/v1/namespaces/agents/configmaps", {}),
    "a pod": (PODS, pod("x")),
    "a namespace": ("/api/v1/namespaces", {}),
    "a Role": (f"{RBAC}/namespaces/agents/roles", {"rules": []}),
    "a ClusterRole": (f"{RBAC}/clusterroles", {"rules": []}),
    "a token": ("/api/v1/namespaces/agents/serviceaccounts/fixer/token", token_request()),
}


@pytest.mark.parametrize("what", WRITES)
async def test_whatever_rbac_lets_it_the_door_writes_nothing_else(api: Api, door: Caller, what: str) -> None:
    path, body = WRITES[what]
    named = merged(body, {"metadata": {"name": None if what == "a token" else unique("x")}})
    refused(await api.post(path, named, by=everything(USER)), "door-leash", "the valetkey door does not CREATE ")


async def test_whatever_rbac_lets_it_the_door_ends_nothing_grants_nothing_and_decides_nothing(
    api: Api, door: Caller, asked_there: str
) -> None:
    loose = everything(USER)
    refused(await api.delete(asked_there, by=loose), "door-leash", "does not DELETE valetkey.dev/accessrequests")
    _, request = await api.get(asked_there)
    name, request_uid = request["metadata"]["name"], request["metadata"]["uid"]
    for answer in (  # more than one guard refuses these
        await api.patch(f"{asked_there}/status", {"status": {"agent": "x"}}, by=loose),
        await api.post(TASK_GRANTS, grant(name, request_uid), by=loose),
        await api.post(ACCOUNTS, grant_account(request_uid), by=loose),
    ):
        assert answer[0] == 403, answer
        assert "ValidatingAdmissionPolicy" in answer[1]["message"]
