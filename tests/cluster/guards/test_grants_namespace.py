"""Guard grants-namespace: accounts, tokens and Secrets of grants are the operator's alone."""

from __future__ import annotations

import uuid

from tests.cluster.api import (
    ADMIN,
    GRANTS,
    Api,
    unique,
    until,
)
from tests.cluster.guards.attack import (
    ACCOUNTS,
    COLLECTOR,
    NOBODY,
    accepted,
    everything,
    forbidden,
    grant_account,
    granted,
    refused,
    token_request,
)
from tests.cluster.world import World, pod


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
