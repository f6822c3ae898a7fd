"""Guard grant-accounts: a grant runs nothing, and leaves what runs as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.api import (
    GRANTS,
    Api,
    Caller,
    Json,
    merged,
    unique,
)
from tests.cluster.guards.attack import (
    ACCOUNTS,
    RBAC,
    WORKLOADS,
    accepted,
    granted,
    refused,
    template,
    token_request,
    workload,
)
from tests.cluster.world import World


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


async def test_a_grant_does_not_change_the_labels_that_policies_trust(api: Api, accounts: dict[str, Caller]) -> None:
    path, body = workload("pods", template())
    agents = await api.made(path, merged(body, {"metadata": {"labels": {"valetkey.dev/agent": "true", "tier": "a"}}}))
    item, change = f"{path}/{agents['metadata']['name']}", {"metadata": {"labels": {"tier": "b"}}}
    for subresource in ("", "/status"):
        answer = await api.patch(f"{item}{subresource}", change, by=accounts["plain"])
        refused(answer, "grant-accounts", "labels of an agent's pod")
    accepted(await api.patch(item, {"metadata": {"annotations": {"a": "b"}}}, by=accounts["plain"]))
    await api.gone(item)
    other = await api.made(path, merged(body, {"metadata": {"name": unique("other")}}))
    item = f"{path}/{other['metadata']['name']}"
    accepted(await api.patch(item, change, by=accounts["plain"]))
    become = {"metadata": {"labels": {"valetkey.dev/agent": "true"}}}
    refused(await api.patch(item, become, by=accounts["plain"]), "grant-accounts", "labels of an agent's pod")
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
