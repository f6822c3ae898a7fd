"""Guard operator-leash: accounts, tokens, roles and bindings of grants, and no others."""

from __future__ import annotations

import uuid

import pytest

from tests.cluster.api import (
    GRANTS,
    SYSTEM,
    Api,
    Caller,
    merged,
    unique,
)
from tests.cluster.guards.attack import (
    ACCOUNTS,
    NOBODY,
    PODS,
    POLICIES,
    RBAC,
    SECRETS,
    WORKLOADS,
    accepted,
    binding,
    forbidden,
    grant_account,
    granted,
    refused,
    role,
    template,
    token_request,
    workload,
)
from tests.cluster.world import World, policy


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
        if where.endswith("/pods"):
            refused(await api.post(where, body, by=loose), "operator-delivery", "neither makes nor deletes pods")
        elif where.endswith("/jobs"):
            refused(await api.post(where, body, by=loose), "operator-timers", "in the namespace of grants alone")
        else:
            refused(await api.post(where, body, by=loose), "operator-leash", "does not CREATE")
    for where in (f"{path}/status", f"{path}/resize", "/api/v1/namespaces/agents", "/api/v1/nodes/paper-node"):
        change = {"metadata": {"labels": {"a": "b"}}}
        refused(await api.patch(where, change, by=loose), "operator-leash", "does not UPDATE")
    for where, guard in (
        (path, "operator-delivery"),
        ("/api/v1/namespaces/agents", "operator-leash"),
        (f"{SECRETS.replace('secrets', 'serviceaccounts')}/fixer", "operator-rights"),
        (POLICIES, "operator-leash"),
    ):
        await _delete_refused(api, where, loose, guard)
    for subresource in ("exec?command=id", "attach", "portforward", "proxy/"):
        refused(await api.post(f"{path}/{subresource}", {}, by=loose), "operator-leash", "does not CONNECT")
    await api.gone(path)


async def _delete_refused(api: Api, where: str, by: Caller, guard: str) -> None:
    if where == POLICIES:
        made = await api.made(POLICIES, policy(unique("p"), "Deny"))
        where = f"{POLICIES}/{made['metadata']['name']}"
    refused(await api.delete(where, by=by), guard)


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
        refused(await api.post(ACCOUNTS, body, by=loose), "operator-rights", message)
    for namespace in ("agents", SYSTEM, "kube-system"):
        refused(
            await api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", good, by=loose),
            "operator-rights",
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
        refused(await api.patch(path, change, by=loose), "operator-rights")
    accepted(await api.delete(path, by=loose))
    await _delete_refused(api, f"{ACCOUNTS}/default", loose, "operator-rights")


async def test_the_operator_asks_for_short_tokens_of_grants_only(api: Api, world: World, loose: Caller) -> None:
    name = await granted(api, world)
    path = f"{ACCOUNTS}/{name}/token"
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "a"}
    for spec in (token_request(901), token_request(3600), token_request(86400)):
        refused(await api.post(path, spec, by=loose), "operator-rights", "at most 900 s")
    # Kubernetes' default is an hour.
    refused(
        await api.post(path, merged(token_request(), {"spec": {"expirationSeconds": None}}), by=loose),
        "operator-rights",
    )
    node = {"apiVersion": "v1", "kind": "Node", "name": "paper-node"}
    refused(
        await api.post(path, token_request(boundObjectRef=node), by=loose), "operator-rights", "bound to nothing else"
    )
    assert (await api.post(path, token_request(boundObjectRef=bound), by=loose))[0] in (403, 404)
    refused(await api.post(f"{ACCOUNTS}/default/token", token_request(), by=loose), "operator-rights")
    for namespace, victim in (("agents", "fixer"), (SYSTEM, "valetkey"), ("kube-system", "default")):
        refused(
            await api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{victim}/token", token_request(), by=loose),
            "operator-rights",
            "in the namespace of grants alone",
        )
    for seconds in (600, 900):
        accepted(await api.post(path, token_request(seconds), by=loose))


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
        refused(await api.post(roles, role(request_uid, **change), by=loose), "operator-rights", message)
        refused(await api.post(bindings, binding(request_uid, kind, **change), by=loose), "operator-rights", message)
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
        refused(await api.post(bindings, body, by=loose), "operator-rights", "has one subject, its account")
    if scope == "/cluster":
        body = role(request_uid, rules=None, aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})
        refused(await api.post(roles, body, by=loose), "operator-rights", "no aggregation")
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
            refused(await api.patch(item, later, by=loose), "operator-rights")
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
            refused(answer, "operator-rights", "no rights are handed out")


async def test_the_operator_deletes_no_role_or_binding_of_others(api: Api, world: World, loose: Caller) -> None:
    for path in (
        f"{RBAC}/clusterroles/valetkey-requester",
        f"{RBAC}/clusterrolebindings/cluster-admin",
        f"{RBAC}/clusterroles/edit",
        f"{RBAC}/namespaces/shop/rolebindings/editor-edits",
        f"{RBAC}/namespaces/agents/rolebindings/valetkey-operator-agents",
    ):
        refused(await api.delete(path, by=loose), "operator-rights", "carries the label valetkey.dev/request")


async def test_a_tenant_who_takes_the_label_off_does_not_keep_the_operator_from_deleting(
    api: Api, world: World, loose: Caller
) -> None:
    request_uid = str(uuid.uuid4())
    for kind, body in (("roles", role(request_uid)), ("rolebindings", binding(request_uid))):
        made = await api.made(f"{RBAC}/namespaces/shop/{kind}", body, by=loose)
        path = f"{RBAC}/namespaces/shop/{kind}/{made['metadata']['name']}"
        stripped = {"metadata": {"labels": None, "finalizers": ["tests.valetkey.dev/held"]}}
        accepted(await api.patch(path, stripped))
        accepted(await api.delete(path, by=loose))
        accepted(await api.patch(path, {"metadata": {"finalizers": None}}, by=loose))
        assert (await api.get(path))[0] == 404


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
    for name, allowed in (("log-reader", True), ("edit", False), ("cluster-admin", False)):
        body = binding(request_uid, "ClusterRole", roleRef={"name": name})
        status, answer = await api.post(f"{bindings}?dryRun=All", body, by=operator)
        assert (status == 201) is allowed, answer
    forbidden(await api.post(f"{RBAC}/namespaces/agents/roles", role(request_uid), by=operator))
    accepted(await api.get(f"{RBAC}/clusterroles/log-reader", by=operator))


async def test_a_grants_role_says_nothing_of_what_the_operator_holds_for_its_own_work(
    api: Api, world: World, loose: Caller
) -> None:
    """The operator holds these, so RBAC alone would let it hand them out."""
    for group, resource in (
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("rbac.authorization.k8s.io", "*"),
        ("valetkey.dev", "taskgrants"),
    ):
        rules = [{"apiGroups": ["apps", group], "resources": [resource], "verbs": ["create"]}]
        for place in ("/namespaces/shop/roles", "/clusterroles"):
            answer = await api.post(f"{RBAC}{place}", role(str(uuid.uuid4()), rules=rules), by=loose)
            refused(answer, "operator-rights", "no rights over RBAC or valetkey's kinds")


@pytest.mark.parametrize(("resource", "verb"), [("secrets", "create"), ("secrets", "update"), ("pods", "patch")])
async def test_where_agents_run_a_grants_role_writes_no_pods_and_secrets(
    api: Api, world: World, loose: Caller, resource: str, verb: str
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps", resource], "verbs": ["get", verb]}]
    answer = await api.post(f"{RBAC}/namespaces/agents/roles", role(str(uuid.uuid4()), rules=rules), by=loose)
    refused(answer, "operator-rights", "where agents run, a grant does not write pods or Secrets")
    rules[0]["verbs"] = ["get"]
    path = f"{RBAC}/namespaces/agents/roles?dryRun=All"
    accepted(await api.post(path, role(str(uuid.uuid4()), rules=rules), by=loose))
