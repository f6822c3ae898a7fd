"""Every right that outlives or outgrows its grant is a risk, and needs its own word in the policy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import access, decided, in_shop, policy, request, scopes
from valetkey.kinds.agentpolicy import Risk
from valetkey.policy.decide import Approved, Denied
from valetkey.policy.facts import RoleRule
from valetkey.policy.risks import carried_risks
from valetkey.reasons import Reason


def rule(group: str, resource: str, verb: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": [verb]}


RISKY = [
    ("Watch", "apps", "deployments", "watch"),
    ("Watch", "", "pods/log", "get"),
    *[
        ("Exec", "", f"pods/{part}", verb)
        for part in ("exec", "attach", "portforward", "proxy")
        for verb in ("get", "create")
    ],
    ("Exec", "", "pods/ephemeralcontainers", "patch"),
    ("Exec", "", "services/proxy", "get"),
    ("Exec", "subresources.kubevirt.io", "virtualmachineinstances/portforward", "get"),
    *[("PodTemplates", "", kind, "create") for kind in ("pods", "replicationcontrollers", "podtemplates")],
    *[
        ("PodTemplates", "apps", kind, "create")
        for kind in ("deployments", "daemonsets", "replicasets", "statefulsets", "controllerrevisions")
    ],
    *[("PodTemplates", "batch", kind, "create") for kind in ("jobs", "cronjobs")],
    *[("Secrets", "", "secrets", verb) for verb in ("get", "list", "delete", "deletecollection")],
    ("Tokens", "", "serviceaccounts/token", "create"),
    ("Tokens", "", "secrets", "create"),
    ("Tokens", "certificates.k8s.io", "certificatesigningrequests", "create"),
    ("Tokens", "certificates.k8s.io", "certificatesigningrequests/approval", "update"),
    ("Tokens", "certificates.k8s.io", "signers", "approve"),
    *[
        ("RBAC", "rbac.authorization.k8s.io", "roles", verb)
        for verb in ("create", "update", "bind", "escalate", "delete")
    ],
    ("RBAC", "rbac.authorization.k8s.io", "clusterrolebindings", "patch"),
    ("RBAC", "admissionregistration.k8s.io", "validatingadmissionpolicies", "delete"),
    ("RBAC", "apiregistration.k8s.io", "apiservices", "patch"),
    ("RBAC", "apiextensions.k8s.io", "customresourcedefinitions", "update"),
    ("RBAC", "valetkey.dev", "agentpolicies", "create"),
    ("RBAC", "valetkey.dev", "taskgrants/status", "patch"),
    ("RBAC", "", "namespaces", "patch"),
    ("RBAC", "", "namespaces/status", "patch"),
    ("Impersonate", "", "users", "impersonate"),
    ("Impersonate", "authentication.k8s.io", "userextras/scopes", "impersonate"),
    ("Impersonate", "authentication.k8s.io", "serviceaccounts", "impersonate:serviceaccount"),
    ("Impersonate", "", "pods", "impersonate-on:serviceaccount:list"),
    ("Nodes", "", "nodes", "patch"),
    ("Nodes", "", "nodes/status", "get"),
    ("Nodes", "", "persistentvolumes", "create"),
]


@pytest.mark.parametrize(("risk", "group", "resource", "verb"), RISKY)
def test_a_risky_right_needs_its_risk_in_the_policy(risk: str, group: str, resource: str, verb: str) -> None:
    asked = request(access=in_shop(rule(group, resource, verb)))
    ceiling = {"scopes": [{"cluster": True, "rules": [rule("*", "*", "*")]}]}
    others = [other.value for other in Risk if other.value != risk]
    without = decided(asked, policy(access=[{"name": "e", "kubernetes": {**ceiling, "risks": others}}]))
    assert isinstance(without, Denied)
    assert without.denial.reason == Reason.RISK_NOT_ALLOWED
    assert f"the risk {risk}," in without.denial.message
    all_risks = policy(access=[{"name": "e", "kubernetes": {**ceiling, "risks": [*others, risk]}}])
    assert isinstance(decided(asked, all_risks), Approved)


@pytest.mark.parametrize(
    ("group", "resource", "verb"),
    [
        ("apps", "deployments", "patch"),
        ("apps", "deployments", "update"),
        ("apps", "deployments/scale", "patch"),
        ("", "pods", "list"),
        ("", "pods", "delete"),
        ("", "pods/eviction", "create"),
        ("", "configmaps", "create"),
        ("", "nodes", "get"),
        ("", "namespaces", "get"),
        ("", "serviceaccounts", "get"),
        ("rbac.authorization.k8s.io", "roles", "list"),
        ("valetkey.dev", "accessrequests", "get"),
        ("example.com", "secrets", "get"),
    ],
)
def test_plain_rights_carry_no_risk(group: str, resource: str, verb: str) -> None:
    assert carried_risks(access(rule(group, resource, verb)), {}) == ()


def risks(found: dict[str, Any]) -> set[Risk]:
    return {one.risk for one in carried_risks(access(found), {})}


def test_wildcards_carry_every_risk_that_they_include() -> None:
    assert risks(rule("*", "*", "*")) == set(Risk)
    assert risks(rule("", "*", "get")) == {Risk.WATCH, Risk.EXEC, Risk.SECRETS, Risk.NODES}
    assert risks(rule("apps", "deployments", "*")) == {Risk.WATCH, Risk.POD_TEMPLATES, Risk.IMPERSONATE}
    assert risks(rule("*", "secrets", "get")) == {Risk.SECRETS}
    assert risks(rule("", "*/exec", "create")) == {Risk.EXEC}
    assert risks(rule("", "*/scale", "patch")) == set()
    assert risks(rule("", "*/token", "create")) == {Risk.TOKENS}
    assert risks(rule("", "*/log", "get")) == {Risk.WATCH, Risk.NODES}


def test_a_path_carries_no_risk() -> None:
    paths = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    assert carried_risks(access(paths, namespace=None), {}) == ()


def test_a_cluster_role_carries_its_rules_risks_and_an_unknown_one_all() -> None:
    asked = request(access=scopes({"namespace": "shop", "clusterRole": "r"})).access
    rules = (RoleRule(api_groups=("",), resources=("pods/exec",), verbs=("create",)),)
    assert [one.risk for one in carried_risks(asked, {"r": rules})] == [Risk.EXEC]
    assert {one.risk for one in carried_risks(asked, {})} == set(Risk)
