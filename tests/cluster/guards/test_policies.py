"""Guard policies: who may allow, and who may lock."""

from __future__ import annotations

import pytest

from tests.cluster.api import (
    GRANTS,
    Api,
    Caller,
    Json,
    merged,
    unique,
    until,
)
from tests.cluster.guards.attack import (
    ACCOUNTS,
    COLLECTOR,
    NOBODY,
    POLICIES,
    RBAC,
    accepted,
    forbidden,
    grant_account,
    refused,
)
from tests.cluster.world import World, policy


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
