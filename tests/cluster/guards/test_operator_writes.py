"""Guard operator-writes: grants and status are written by the operator alone."""

from __future__ import annotations

import uuid

import pytest

from tests.cluster.api import (
    ADMIN,
    OPERATOR,
    Api,
    Caller,
    Json,
    merged,
    unique,
    until,
)
from tests.cluster.guards.attack import (
    COLLECTOR,
    LEDGERS,
    NOBODY,
    ORPHAN,
    POLICIES,
    REQUESTS,
    SECRETS,
    TASK_GRANTS,
    accepted,
    delivered,
    everything,
    forbidden,
    ledger,
    refused,
)
from tests.cluster.world import World, grant, policy


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


async def test_only_the_operator_says_how_often_was_granted(api: Api, world: World) -> None:
    body = ledger(str(uuid.uuid4()))
    path = f"{LEDGERS}/{body['metadata']['name']}"
    refused(await api.post(LEDGERS, body, by=ADMIN), "operator-writes", "are written by the valetkey operator alone")
    for caller in (world.editor, world.insider, world.tokens["asker"]):
        forbidden(await api.post(LEDGERS, body, by=caller))
    accepted(await api.post(LEDGERS, body, by=world.tokens["operator"]))
    try:
        forgotten: Json = {"spec": {"opened": []}}
        refused(await api.patch(path, forgotten, by=ADMIN), "operator-writes")
        for caller in (world.editor, world.insider, world.tokens["asker"]):
            forbidden(await api.patch(path, forgotten, by=caller))
            forbidden(await api.delete(path, by=caller))
        forbidden(await api.delete(path, by=world.tokens["operator"]))
    finally:
        await api.gone(path)


async def test_a_grant_is_born_with_its_finalizer(api: Api, world: World) -> None:
    body = merged(grant(unique("fix"), NOBODY), {"metadata": {"finalizers": None}})
    refused(await api.post(TASK_GRANTS, body, by=world.tokens["operator"]), "operator-writes", "is born with")


def forced(by: str, because: str = "no way back") -> Json:
    return {"metadata": {"annotations": {"valetkey.dev/forced-by": by, "valetkey.dev/forced-because": because}}}


LET_GO: Json = {"metadata": {"finalizers": None}}


async def test_a_grant_is_let_go_by_force_only_after_who_and_why_is_written_on_it(api: Api, world: World) -> None:
    path, forcer = await opened(api, world), Caller(user="forcer", groups=("system:masters",))
    refused(await api.patch(path, forced("forcer"), by=forcer), "operator-writes")  # it lives
    accepted(await api.delete(path))
    refused(await api.patch(path, LET_GO, by=forcer), "operator-writes", "valetkey revoke --force")
    refused(await api.patch(path, merged(LET_GO, forced("forcer")), by=forcer), "operator-writes")
    refused(await api.patch(path, forced("somebody-else"), by=forcer), "operator-writes")
    refused(await api.patch(path, forced("forcer", ""), by=forcer), "operator-writes")
    refused(
        await api.patch(path, merged(forced("forcer"), {"metadata": {"labels": {"a": "b"}}}), by=forcer),
        "operator-writes",
    )
    accepted(await api.patch(path, forced("forcer"), by=forcer))
    refused(await api.patch(path, LET_GO, by=ADMIN), "operator-writes")
    accepted(await api.patch(path, LET_GO, by=forcer))
    assert (await api.get(path))[0] == 404


async def test_who_may_change_grants_but_not_force_lets_none_go(api: Api, world: World) -> None:
    rules = [{"apiGroups": ["valetkey.dev"], "resources": ["taskgrants"], "verbs": ["patch", "delete"]}]
    name = unique("patcher")
    await api.made(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/agents/roles", {"metadata": {"name": name}, "rules": rules}
    )
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}],
    }
    await api.made("/apis/rbac.authorization.k8s.io/v1/namespaces/agents/rolebindings", binding)
    path, patcher = await opened(api, world), Caller(user=name)
    accepted(await api.delete(path, by=patcher))
    refused(await api.patch(path, forced(name), by=patcher), "operator-writes")


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


async def test_no_secret_of_another_type_takes_the_name_that_a_pod_mounts(api: Api, world: World) -> None:
    body = {"metadata": {"name": unique("valetkey-fake")}, "stringData": {"kubeconfig": "theirs"}}
    for caller in (world.editor, ADMIN):
        refused(await api.post(SECRETS, body, by=caller), "operator-writes", "credential secrets are written by")
    generated = {"metadata": {"generateName": "valetkey-"}, "stringData": {"kubeconfig": "theirs"}}
    refused(await api.post(SECRETS, generated, by=world.editor), "operator-writes")
    accepted(await api.post("/api/v1/namespaces/shop/secrets?dryRun=All", body, by=world.editor))


async def test_other_secrets_are_nobodys_business(api: Api, world: World) -> None:
    name = unique("plain")
    accepted(await api.post(SECRETS, {"metadata": {"name": name}, "stringData": {"a": "b"}}, by=world.editor))
    accepted(await api.patch(f"{SECRETS}/{name}", {"stringData": {"a": "c"}}, by=world.editor))
    accepted(await api.delete(f"{SECRETS}/{name}", by=world.editor))
