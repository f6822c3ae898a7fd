"""A selector selects what metav1.LabelSelector selects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import deny, facts, policy
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.subjects import Selected, selected


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ({"any": True}, Selected.YES),
        ({"namespace": "shop-agents"}, Selected.YES),
        ({"namespace": "shop"}, Selected.NO),
        ({"serviceAccount": "fixer"}, Selected.YES),
        ({"namespace": "shop-agents", "serviceAccount": "other"}, Selected.NO),
        ({"podSelector": {"matchLabels": {"team": "shop"}}}, Selected.YES),
        ({"podSelector": {"matchLabels": {"team": "web"}}}, Selected.NO),
        ({"podSelector": {}}, Selected.YES),
        ({"namespaceSelector": {"matchLabels": {"team": "shop"}}}, Selected.YES),
        ({"namespaceSelector": {"matchLabels": {"team": "web"}}}, Selected.NO),
        ({"podSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}]}}, Selected.YES),
        ({"podSelector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["shop"]}]}}, Selected.NO),
        (
            {"podSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["shop"]}]}},
            Selected.NO,
        ),
        ({"podSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["shop"]}]}}, Selected.YES),
        ({"podSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, Selected.YES),
        ({"podSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}}, Selected.NO),
        ({"podSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}, Selected.NO),
        ({"podSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}, Selected.YES),
        ({}, Selected.UNKNOWN),
    ],
)
def test_a_subject_selects_whom_it_describes(subject: dict[str, Any], expected: Selected) -> None:
    one = policy(subjects=[{"name": "s", **subject}])
    assert selected(one, facts()) is expected
    # What a decision leaves out by the namespace alone would not have been selected.
    asked = Policies.of([compile_policy(one)]).of_namespace("shop-agents")
    assert asked.all or expected is Selected.NO


def test_a_policy_about_another_namespace_by_name_is_not_asked_at_all() -> None:
    elsewhere = [{"name": "s", "namespace": "shop"}]
    policies = Policies.of(compile_policy(one) for one in (policy("a", subjects=elsewhere), policy("b"), deny("c")))
    assert [one.policy.metadata.name for one in policies.of_namespace("shop-agents").all] == ["b", "c"]
    assert policies.of_namespace("shop-agents") is policies.of_namespace("shop-agents")


def test_labels_that_are_not_known_are_not_guessed() -> None:
    unknown = facts(namespaces={})
    by_labels = {"name": "s", "namespaceSelector": {"matchLabels": {"team": "shop"}}}
    assert selected(policy(subjects=[by_labels]), unknown) is Selected.UNKNOWN
    assert selected(policy(subjects=[{**by_labels, "namespace": "other"}]), unknown) is Selected.NO
    assert selected(policy(subjects=[by_labels, {"name": "t", "any": True}]), unknown) is Selected.YES


def test_without_subjects_a_deny_is_about_everyone_and_an_allow_about_nobody() -> None:
    assert selected(deny(), facts()) is Selected.YES
    assert selected(policy(subjects=None), facts()) is Selected.NO
