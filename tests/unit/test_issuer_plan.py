"""The plan of a Kubernetes credential: pure, never shared by two orders, and made of names that Kubernetes takes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.world import World
from valetkey.errors import InvalidError
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.taskgrant import Order, Plan, PlannedObject
from valetkey.reasons import Reason

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
GRANTS = "valetkey-grants"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

TARGETS = ("shop", "web", "a", "a-very-long-name-of-a-namespace-in-which-rights-are-handed-out")

scopes = st.fixed_dictionaries(
    {},
    optional={"namespace": st.sampled_from(TARGETS)},
).flatmap(
    lambda place: st.sampled_from(
        [
            {**place, "clusterRole": "log-reader"},
            {**place, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        ]
    )
)


def order(uid: str, scopes: list[dict[str, Any]], pod_templates: bool, backstop: bool = False) -> Order:
    subject = {"namespace": "shop", "podName": "one", "podUID": "p", "nodeName": "n", "serviceAccount": "fixer"}
    return Order.model_validate(
        {
            "requestUID": uid,
            "subject": subject,
            "task": {"id": "t", "purpose": "fix"},
            "policy": {"name": "fix", "uid": "u", "generation": 1},
            "decision": "d",
            "access": {"kubernetes": {"scopes": scopes}},
            "line": "",
            "podTemplates": pod_templates,
            "backstop": backstop,
            "openedAt": NOW,
            "notAfter": NOW + timedelta(minutes=5),
        }
    )


uids = st.uuids().map(str)
orders = st.builds(order, uids, st.lists(scopes, min_size=1, max_size=8), st.booleans(), st.booleans())


def issuer() -> KubernetesIssuer:
    return KubernetesIssuer(
        World(),
        namespace=GRANTS,
        targets=TARGETS,
        server="https://api",
        certificate_authority="CA",
        clock=lambda: NOW,
    )


def objects(plan: Plan) -> list[PlannedObject]:
    assert plan.kubernetes is not None
    timer = [plan.kubernetes.timer] if plan.kubernetes.timer is not None else []
    return [plan.kubernetes.account, *plan.kubernetes.objects, *timer]


def names(plan: Plan) -> set[tuple[str, str | None, str]]:
    return {(entry.kind, entry.namespace, entry.name) for entry in objects(plan)}


@given(orders)
def test_the_same_order_has_the_same_plan_whoever_computes_it(one: Order) -> None:
    again = Order.model_validate(one.to_api())
    assert issuer().plan(one) == issuer().plan(one) == issuer().plan(again)


@given(orders)
def test_the_plan_survives_being_stored(one: Order) -> None:
    plan = issuer().plan(one)
    assert Plan.model_validate(plan.to_api()) == plan


@given(orders, orders)
def test_orders_of_different_requests_share_no_name(one: Order, other: Order) -> None:
    if one.request_uid != other.request_uid:
        assert not names(issuer().plan(one)) & names(issuer().plan(other))


@given(orders)
def test_no_name_is_planned_twice(one: Order) -> None:
    plan = issuer().plan(one)
    assert len(names(plan)) == len(objects(plan))


@given(orders)
def test_every_name_is_one_that_kubernetes_takes(one: Order) -> None:
    for entry in objects(issuer().plan(one)):
        assert NAME.fullmatch(entry.name)
        assert len(entry.name) <= 253
        assert all(len(label) <= 63 for label in entry.name.split("."))


@given(orders)
def test_every_name_tells_of_its_request_and_of_nothing_that_an_agent_chose(one: Order) -> None:
    for entry in objects(issuer().plan(one)):
        pattern = rf"valetkey-(t-)?{one.request_uid}(-\d)?"
        assert re.fullmatch(pattern, entry.name)


@given(orders)
def test_only_the_account_of_a_grant_that_may_change_pod_templates_is_named_so(one: Order) -> None:
    account, *others = objects(issuer().plan(one))
    assert (account.kind, account.namespace) == ("ServiceAccount", GRANTS)
    assert account.name.startswith("valetkey-t-") == one.pod_templates
    assert not any(entry.name.startswith("valetkey-t-") for entry in others)


@given(orders)
def test_each_scope_has_its_binding_and_a_role_where_rules_were_ordered(one: Order) -> None:
    assert one.access.kubernetes is not None
    expected = []
    for scope in one.access.kubernetes.scopes:
        prefix = "" if scope.namespace else "Cluster"
        if scope.rules is not None:
            expected.append((f"{prefix}Role", scope.namespace))
        expected.append((f"{prefix}RoleBinding", scope.namespace))
    plan = issuer().plan(one).kubernetes
    assert plan is not None
    assert [(entry.kind, entry.namespace) for entry in plan.objects] == expected


@given(orders)
def test_a_timer_is_planned_beside_the_account_exactly_where_it_was_ordered(one: Order) -> None:
    plan = issuer().plan(one).kubernetes
    assert plan is not None
    expected = PlannedObject(kind="Job", namespace=GRANTS, name=f"valetkey-{one.request_uid}")
    assert plan.timer == (expected if one.backstop else None)


RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]


@pytest.mark.parametrize("place", [{"rules": RULES}, {"clusterRole": "log-reader"}])
def test_nothing_is_planned_where_the_operator_could_not_unmake_it(place: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="kube-system") as refused:
        issuer().plan(order("u", [{"namespace": "shop", **place}, {"namespace": "kube-system", **place}], False))
    assert refused.value.reason == Reason.ORDER_INVALID
