"""A policy that could be misread, or that cannot be evaluated, is not used."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import DEPLOYMENTS, PODS, deny, policy, unusable, usable
from valetkey.policy.compile import Policies
from valetkey.reasons import Reason


def purposes(**parameters: Any) -> list[dict[str, Any]]:
    return [{"name": "remediation", "parameters": {"deployment": {"type": "string", "required": True}, **parameters}}]


def entry(*rules: dict[str, Any], **scope: Any) -> list[dict[str, Any]]:
    return [{"name": "e", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": list(rules)} | scope]}}]


def rules(expression: str) -> list[dict[str, str]]:
    return [{"name": "rule", "expression": expression, "message": "no"}]


def test_a_sound_policy_compiles() -> None:
    assert usable(policy(validations=rules("true"))).rules[0].validation.name == "rule"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 +", Reason.EXPRESSION_INVALID),
        ("unknown.word", Reason.EXPRESSION_INVALID),
        ('"a string"', Reason.EXPRESSION_INVALID),
        ("(" * 50 + "true" + ")" * 50, Reason.EXPRESSION_TOO_COSTLY),
    ],
)
def test_an_expression_that_does_not_compile_says_which_and_where(expression: str, reason: Reason) -> None:
    broken = unusable(policy(validations=[*rules("true"), {"name": "two", "expression": expression, "message": "m"}]))
    assert broken.reason is reason
    assert broken.message.startswith("spec.validations[1].expression (two): line 1, column ")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"subjects": None}, "spec.subjects"),
        ({"purposes": None, "access": entry(PODS)}, "spec.purposes"),
        ({"access": None}, "spec.access"),
        ({"subjects": [{"name": "nobody"}]}, "spec.subjects[0]"),
        ({"subjects": [{"name": "both", "any": True, "namespace": "shop"}]}, "spec.subjects[0]"),
        (
            {
                "subjects": [
                    {"name": "s", "podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": []}]}}
                ]
            },
            "spec.subjects[0]",
        ),
        ({"ttl": {"default": "10m", "max": "5m"}}, "spec.ttl"),
        ({"ttl": {"max": "1m"}}, "spec.ttl"),
        ({"purposes": [{"name": "remediation"}]}, "spec.access[0]"),
        ({"purposes": purposes(deployment={"type": "string"})}, "spec.access[0]"),
        ({"purposes": purposes(deployment={"type": "integer", "required": True})}, "spec.access[0]"),
        ({"purposes": [*purposes(), {"name": "other"}]}, "spec.access[0]"),
        ({"purposes": purposes(x={"type": "string", "pattern": "[a-"})}, "spec.purposes[0].parameters.x.pattern"),
        ({"purposes": purposes(x={"type": "string", "pattern": "a)|(?:b"})}, "spec.purposes[0].parameters.x.pattern"),
        ({"purposes": purposes(x={"type": "integer", "pattern": "1"})}, "spec.purposes[0].parameters.x"),
        ({"purposes": purposes(x={"type": "boolean", "enum": ["true"]})}, "spec.purposes[0].parameters.x"),
        ({"purposes": purposes(x={"type": "number", "maxLength": 3})}, "spec.purposes[0].parameters.x"),
        ({"purposes": purposes(x={"type": "string", "minimum": 3})}, "spec.purposes[0].parameters.x"),
        ({"purposes": purposes(x={"type": "integer", "minimum": 3, "maximum": 2})}, "spec.purposes[0].parameters.x"),
        (
            {"purposes": purposes(x={"type": "string", "pattern": "[a-z]+", "enum": ["A"]})},
            "spec.purposes[0].parameters.x.enum",
        ),
        ({"access": [{"name": "none"}]}, "spec.access[0]"),
        ({"access": entry(PODS, cluster=True)}, "spec.access[0].kubernetes.scopes[0]"),
        (
            {"access": entry({**PODS, "resources": ["pods/*"]})},
            "spec.access[0].kubernetes.scopes[0].rules[0].resources",
        ),
        ({"access": entry({**PODS, "resources": ["Pods"]})}, "spec.access[0].kubernetes.scopes[0].rules[0].resources"),
        ({"access": entry({**PODS, "apiGroups": ["core"]})}, "spec.access[0].kubernetes.scopes[0].rules[0].apiGroups"),
        (
            {"access": entry({**DEPLOYMENTS, "apiGroups": ["apps/v1"]})},
            "spec.access[0].kubernetes.scopes[0].rules[0].apiGroups",
        ),
        ({"access": entry({**PODS, "verbs": ["Get"]})}, "spec.access[0].kubernetes.scopes[0].rules[0].verbs"),
        ({"access": entry({**PODS, "verbs": ["$deployment"]})}, "spec.access[0].kubernetes.scopes[0].rules[0].verbs"),
        (
            {"access": entry({**PODS, "resourceNames": ["web-$deployment"]})},
            "spec.access[0].kubernetes.scopes[0].rules[0]",
        ),
        (
            {"access": entry({"nonResourceURLs": ["/healthz"], "verbs": ["get"]})},
            "spec.access[0].kubernetes.scopes[0].rules[0]",
        ),
    ],
)
def test_an_allow_that_could_be_misread_is_not_used_and_says_where(spec: dict[str, Any], field: str) -> None:
    broken = unusable(policy(**spec))
    assert broken.reason is Reason.EXPRESSION_INVALID
    assert broken.message.startswith(f"{field}: ")


def test_a_deny_may_leave_out_whom_for_what_and_which_access() -> None:
    usable(deny())


def test_a_deny_that_accepts_risks_is_not_used() -> None:
    access = entry(PODS)
    access[0]["kubernetes"]["risks"] = ["Watch"]
    assert unusable(deny(access=access)).message.startswith("spec.access")


def test_a_deny_that_names_a_way_in_is_not_used() -> None:
    assert unusable(deny(via=["API"])).message.startswith("spec.via: ")


def test_a_deny_that_names_a_backstop_is_not_used() -> None:
    assert unusable(deny(backstop="Job")).message.startswith("spec.backstop: ")


def test_a_deny_whose_parameter_is_misspelt_is_not_used() -> None:
    access = entry({**DEPLOYMENTS, "resourceNames": ["$deploymnt"]})
    assert "deploymnt" in unusable(deny(access=access, purposes=purposes())).message


def test_the_parameter_of_a_namespace_is_checked_too() -> None:
    assert "$space" in unusable(policy(access=entry(PODS, namespaces=["$space"]))).message


def test_a_list_of_strings_may_stand_for_names() -> None:
    usable(policy(purposes=purposes(deployment={"type": "array", "required": True})))


def test_policies_come_in_order_of_name() -> None:
    ordered = Policies.of([usable(policy("b")), unusable(policy("a", access=None)), usable(deny("c"))])
    assert [one.policy.metadata.name for one in ordered.all] == ["a", "b", "c"]
