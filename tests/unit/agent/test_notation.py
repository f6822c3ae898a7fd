"""One line of access is read as it is written, or refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import valetkey
from valetkey.agent import notation
from valetkey.agent.ask import ask
from valetkey.kinds.access import Access
from valetkey.policy.notation import MAX_LINE, line

CORE = (
    "pods",
    "services",
    "configmaps",
    "nodes",
    "pods/log",
    "pods/exec",
    "namespaces/finalize",
    "serviceaccounts/token",
)
OTHER = ("deployments", "widgets", "jobs", "deployments/scale", "widgets/status", "*", "*/scale")
NAMES = st.builds("{}-{}".format, st.sampled_from(["web", "log-1", "a.log", "a", "x9"]), st.integers(0, 10_000))


def rights(access: dict[str, Any]) -> set[Any]:
    """Each single right that an access is about."""
    found: set[Any] = set()
    for scope in access["kubernetes"]["scopes"]:
        place = scope.get("namespace")
        if "clusterRole" in scope:
            found.add((place, scope["clusterRole"]))
        for rule in scope.get("rules", ()):
            found |= {(place, verb, url) for verb, url in product(rule["verbs"], rule.get("nonResourceURLs", ()))}
            names = rule.get("resourceNames", [None])
            every = product(rule["verbs"], rule.get("apiGroups", ()), rule.get("resources", ()), names)
            found |= {(place, *right) for right in every}
    return found


def words(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(values, min_size=1, max_size=3, unique=True)


@st.composite
def rules(draw: st.DrawFn, *, in_cluster: bool) -> dict[str, Any]:
    verbs = draw(words(st.sampled_from(["get", "list", "patch", "*"])))
    if in_cluster and draw(st.booleans()):
        return {"nonResourceURLs": draw(words(st.sampled_from(["/healthz", "/metrics/*", "/"]))), "verbs": verbs}
    core = draw(st.booleans())
    rule = {
        "apiGroups": [""] if core else draw(words(st.sampled_from(["apps", "example.com", "*"]))),
        "resources": draw(words(st.sampled_from(CORE if core else OTHER))),
        "verbs": verbs,
    }
    return rule | ({"resourceNames": draw(words(NAMES))} if draw(st.booleans()) else {})


@st.composite
def accesses(draw: st.DrawFn) -> dict[str, Any]:
    scopes = []
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([None, "shop", "web-1"]))
        scope: dict[str, Any] = {} if place is None else {"namespace": place}
        if draw(st.booleans()):
            scope["rules"] = draw(st.lists(rules(in_cluster=place is None), min_size=1, max_size=3))
        else:
            scope["clusterRole"] = draw(st.sampled_from(["log-reader", "system:node-reader"]))
        scopes.append(scope)
    return {"kubernetes": {"scopes": scopes}}


@settings(deadline=None)  # a busy machine is no fault of the notation's
@given(accesses())
def test_what_the_operator_writes_reads_back_as_the_same_rights(access: dict[str, Any]) -> None:
    written = line(Access.model_validate(access))
    assert len(written) < MAX_LINE
    read = notation.read(written)
    Access.model_validate(read)
    assert rights(read) == rights(access)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("shop: get pods", ("shop", "get", "", "pods", None)),
        ("shop: get pods/web-0", ("shop", "get", "", "pods", "web-0")),
        ("shop: get pods/log", ("shop", "get", "", "pods/log", None)),
        ("shop: get pods/log/web-0", ("shop", "get", "", "pods/log", "web-0")),
        ("shop: get configmaps/log", ("shop", "get", "", "configmaps", "log")),
        ("shop: get deployments.apps/checkout", ("shop", "get", "apps", "deployments", "checkout")),
        ("shop: patch deployments/scale.apps/checkout", ("shop", "patch", "apps", "deployments/scale", "checkout")),
        ("  shop :  get   pods  ", ("shop", "get", "", "pods", None)),
        ("cluster: get nodes", (None, "get", "", "nodes", None)),
        ("cluster: get /healthz", (None, "get", "/healthz")),
        ("web: clusterrole log-reader", ("web", "log-reader")),
    ],
)
def test_a_line_means_what_it_says(text: str, right: tuple[str, ...]) -> None:
    assert rights(notation.read(text)) == {right}


def test_names_hold_for_every_resource_before_them_and_blanks_do_not_matter() -> None:
    read = rights(notation.read("shop: get, patch deployments.apps, pods/a, b ;web: get pods"))
    shop = set(product(["shop"], ["get", "patch"], [("apps", "deployments"), ("", "pods")], ["a", "b"]))
    everything: set[Any] = {(n, v, *kind, name) for n, v, kind, name in shop}
    assert read == everything | {("web", "get", "", "pods", None)}


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "NAMESPACE: VERBS RESOURCES"),
        ("get pods", "NAMESPACE: VERBS RESOURCES"),
        ("shop: get", "NAMESPACE: VERBS RESOURCES"),
        ("shop: get pods;", "NAMESPACE: VERBS RESOURCES"),
        ("shop: GET pods", "'GET' is not a verb, in lower case"),
        ("shop: get,,list pods", "is not a verb"),
        ("Shop: get pods", "is not a namespace"),
        ("shop: get Pods", "not a resource, in lower case"),
        ("shop: get deployments/checkout", "deployments.apps/checkout"),
        ("shop: get deployments", "write its group"),
        ("shop: get deployments.apps/scale", "deployments/scale.apps"),
        ("shop: get deployments.apps/scale/checkout", "deployments/scale.apps"),
        ("vms: update virtualmachines/start.subresources.kubevirt.io", "as a mapping"),
        ("shop: get pods/log.x", "as a mapping"),
        ("shop: get pods/web/a", "no subresource web"),
        ("shop: get pods/log/a/b", "more than a resource"),
        ("shop: get pods/web,services", "services is a resource or the name"),
        ("shop: get pods/web,services", "which begins after a semicolon; for an object of that name pass"),
        ("shop: get pods/web,deployments.apps", "deployments.apps is a resource or the name"),
        ("shop: get pods/web,services/api", "services/api follows the name"),
        ("shop: get pods/", "is not the name of an object"),
        ("shop: get /healthz", "cluster: get /healthz"),
        ("cluster: get /healthz,pods", "two parts"),
        ("shop: select public.orders", "not Kubernetes access; pass a mapping"),
        ("shop: get,insert orders.sales", "not Kubernetes access; pass a mapping"),
        ("shop: call functions", "not Kubernetes access; pass a mapping"),
        ("shop: update public.orders(state)", "not Kubernetes access; pass a mapping"),
        ("shop: use pods (a, b)", "not Kubernetes access; pass a mapping"),
        ("shop: get pods…", "cut short"),
        ("shop: get pods → shop/fixer: the same", "delegation="),
    ],
)
def test_what_could_be_meant_otherwise_is_refused_with_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(valetkey.InvalidAccess, match=r".") as caught:
        notation.read(text)
    assert advice in str(caught.value)


def test_a_refusal_says_in_which_part_it_stopped_making_sense() -> None:
    with pytest.raises(valetkey.InvalidAccess) as caught:
        valetkey.access("remediation", "restart", "shop: get pods; web: get deployments")
    assert caught.value.position == len("shop: get pods; ")
    assert "column 17" in str(caught.value)


@pytest.mark.parametrize("ttl", ["5 minutes", "5", "", "1d"])
def test_a_ttl_that_is_none_is_refused_before_anything_is_asked(ttl: str) -> None:
    with pytest.raises(valetkey.InvalidAccess, match="write it as 30s"):
        valetkey.access("remediation", "restart", "shop: get pods", ttl=ttl)


def test_an_access_may_be_a_mapping_and_is_copied() -> None:
    given: dict[str, Any] = {"kubernetes": {"scopes": [{"namespace": "shop", "clusterRole": "x"}]}}
    asked = ask("p", "o", given)
    given["kubernetes"]["scopes"][0]["clusterRole"] = "y"
    assert asked.access["kubernetes"]["scopes"][0]["clusterRole"] == "x"
    with pytest.raises(valetkey.InvalidAccess):
        ask("p", "o", {"kubernetes": {1, 2}})


def test_what_is_handed_on_may_be_one_line_each() -> None:
    to = [{"namespace": "shop-agents", "serviceAccount": "worker"}]
    asked = ask("p", "o", "shop: get pods", delegation={"to": to, "access": ["shop: get pods/log"]})
    assert asked.delegation is not None
    assert asked.delegation["to"] == to
    assert rights(asked.delegation["access"][0]) == {("shop", "get", "", "pods/log", None)}
