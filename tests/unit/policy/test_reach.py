"""A policy that selects no served namespace is told apart from one that does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import deny, policy
from valetkey.policy.reach import reaches

SERVED = ("shop-agents", "web-agents", "gone-agents")
NAMESPACES = {"shop-agents": {"team": "shop"}, "web-agents": {}, "payments": {"team": "payments"}}


def by_labels(team: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"team": team}}}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ({"any": True}, True),
        ({"namespace": "shop-agents"}, True),
        ({"namespace": "gone-agents"}, True),
        ({"namespace": "shop-agnts"}, False),
        ({"namespace": "payments"}, False),
        (by_labels("shop"), True),
        (by_labels("shpo"), False),
        (by_labels("payments"), False),
        ({"namespaceSelector": {}}, True),
        ({"serviceAccount": "whoever-comes"}, True),
        ({"podSelector": {"matchLabels": {"whatever": "comes"}}}, True),
        ({"namespace": "shop-agents", "serviceAccount": "whoever-comes"}, True),
        ({**by_labels("shpo"), "serviceAccount": "fixer"}, False),
    ],
)
def test_a_subject_selects_served_namespaces_by_name_or_by_labels(subject: dict[str, Any], expected: bool) -> None:
    for made in (policy, deny):
        assert reaches(made(subjects=[{"name": "s", **subject}]), SERVED, NAMESPACES) is expected


def test_one_subject_that_selects_something_is_enough() -> None:
    subjects = [{"name": "a", "namespace": "shop-agnts"}, {"name": "b", "namespace": "web-agents"}]
    assert reaches(policy(subjects=subjects), SERVED, NAMESPACES)


def test_a_deny_without_subjects_is_about_everyone() -> None:
    assert reaches(deny(), SERVED, NAMESPACES)


def test_a_selector_selects_no_namespace_whose_labels_are_not_known() -> None:
    assert not reaches(policy(subjects=[{"name": "s", "namespaceSelector": {}}]), SERVED, {})
