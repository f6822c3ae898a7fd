"""Guard operator-leash: Secrets, pods and Events."""

from __future__ import annotations

import pytest

from tests.cluster.api import (
    Api,
    Caller,
    Json,
    merged,
    unique,
)
from tests.cluster.guards.attack import (
    ACCOUNTS,
    NOBODY,
    PODS,
    RBAC,
    SECRETS,
    TASK_GRANTS,
    TIMERS,
    accepted,
    binding,
    delivered,
    forbidden,
    grant_account,
    refused,
    role,
    timer,
    token_request,
)
from tests.cluster.world import World, grant


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
        refused(await api.post(SECRETS, merged(fresh, change), by=loose), "operator-delivery", message)
    again = merged(delivery, {"data": {"token": "Yg=="}, "metadata": {"resourceVersion": None}})
    accepted(await api.put(path, again, by=loose))
    refused(
        await api.put(path, delivered(NOBODY, name), by=loose), "operator-delivery", "only those of the same request"
    )
    accepted(await api.delete(path, by=loose))


async def test_the_operator_leaves_the_secrets_of_others_alone(api: Api, world: World, loose: Caller) -> None:
    secrets = "/api/v1/namespaces/shop/secrets"  # where agents run nobody else makes one of such a name
    for labels in ({}, {"valetkey.dev/request": NOBODY}):
        name = unique("valetkey-theirs")
        path = f"{secrets}/{name}"
        await api.made(secrets, {"metadata": {"name": name, "labels": labels}, "data": {"a": "YQ=="}}, by=world.editor)
        status, answer = await api.put(path, delivered(NOBODY, name), by=loose)
        assert status in (403, 422), answer  # Kubernetes itself refuses the change of type
        refused(await api.delete(path, by=loose), "operator-delivery")
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
        "operator-delivery",
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
    timed = accepted(await api.post(TIMERS, timer(request_uid), by=operator))["metadata"]
    accepted(await api.get(f"{TIMERS}/{timed['name']}", by=operator))
    owners = [{"apiVersion": "batch/v1", "kind": "Job", "name": timed["name"], "uid": timed["uid"]}]
    account = merged(grant_account(request_uid), {"metadata": {"ownerReferences": owners}})
    accepted(await api.post(ACCOUNTS, account, by=operator))
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
        f"{TIMERS}/valetkey-{request_uid}?propagationPolicy=Background",
        path,
    ):
        accepted(await api.delete(gone, by=operator))
    accepted(await api.patch(path, {"metadata": {"finalizers": None}}, by=operator))
    accepted(await api.delete(asked, by=operator))
