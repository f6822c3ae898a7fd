"""Policies and requests that are made to hurt: each is refused, with the reason it gives, and soon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.policy.given import decided, deny, facts, policy, request, unusable
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.schema import KINDS, crd
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting
from valetkey.policy.expressions import ExpressionError, compile_expression
from valetkey.reasons import Reason

TOO_LARGE = "((a{100}){100}){100}"
LIST = {"deployment": {"type": "string", "required": True}, "words": {"type": "array"}}
WORDS = {"deployment": "checkout", "words": ["word"] * 64}
NESTED = (
    "claims.task.parameters.words.all(a, claims.task.parameters.words.all(b, claims.task.parameters.words.all(c, "
    "a == b && b == c)))"
)


def rule(expression: str) -> dict[str, str]:
    return {"name": "rule", "expression": expression, "message": "Not now."}


def purposes(**parameters: Any) -> list[dict[str, Any]]:
    return [{"name": "remediation", "parameters": {**LIST, **parameters}}]


def reason(decision: Decision) -> str:
    assert not isinstance(decision, Approved | Waiting)
    return decision.denial.reason if isinstance(decision, Denied) else decision.reason


def spec_schema() -> dict[str, Any]:
    kind = next(kind for kind in KINDS if kind.model is AgentPolicy)
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def test_ten_thousand_validations_are_refused_by_the_api_server_and_by_the_operator() -> None:
    assert spec_schema()["properties"]["validations"]["maxItems"] == 16
    many = [{**rule("true"), "name": f"rule-{at}"} for at in range(10_000)]
    with pytest.raises(ValidationError, match=r"spec\.validations\n.*at most 16 items"):
        policy(validations=many)


def test_an_expression_of_a_hundred_kilobytes_is_refused_by_the_api_server_and_by_the_operator() -> None:
    assert spec_schema()["properties"]["validations"]["items"]["properties"]["expression"]["maxLength"] == 4096
    huge = f'cluster == "{"a" * 100_000}"'
    with pytest.raises(ValidationError, match=r"expression\n.*at most 4096 characters"):
        policy(validations=[rule(huge)])
    with pytest.raises(ExpressionError, match="more than 4096 characters") as raised:
        compile_expression(huge)
    assert raised.value.reason is Reason.EXPRESSION_TOO_COSTLY


def test_a_pattern_that_would_be_a_huge_program_is_found_when_the_policy_is_written() -> None:
    broken = unusable(policy(purposes=purposes(x={"type": "string", "pattern": TOO_LARGE})))
    assert broken.reason is Reason.EXPRESSION_INVALID
    assert broken.message == (
        "spec.purposes[0].parameters.x.pattern: the pattern is not an RE2 expression, or is too large for one"
    )


def test_a_pattern_longer_than_is_read_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 512 characters"):
        policy(purposes=purposes(x={"type": "string", "pattern": "a" * 513}))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+b", "(.*)*x"])
def test_a_pattern_that_takes_for_ever_elsewhere_decides_at_once(pattern: str) -> None:
    x = {"type": "string", "pattern": pattern, "maxLength": 15_000}
    started = time.monotonic()
    decision = decided(request({"parameters": {**WORDS, "x": "a" * 15_000 + "!"}}), policy(purposes=purposes(x=x)))
    assert time.monotonic() - started < 2
    assert reason(decision) == Reason.PARAMETERS_INVALID


@pytest.mark.parametrize("pattern", ["[", "(?=a)"])
def test_what_matches_cannot_read_grants_nothing_and_forbids(pattern: str) -> None:
    asked, bad = request(), [rule(f'claims.task.purpose.matches("{pattern}")')]
    assert reason(decided(asked, policy(validations=bad))) == Reason.EVALUATION_FAILED
    assert reason(decided(asked, policy(), deny(validations=bad))) == Reason.POLICY_DENIED


@pytest.mark.parametrize(
    "matching", ["claims.task.objective.matches(claims.task.parameters.x)", f"cluster.matches('{TOO_LARGE}')"]
)
def test_a_policy_whose_pattern_an_agent_supplies_or_is_too_large_cannot_be_used(matching: str) -> None:
    assert unusable(policy(purposes=purposes(), validations=[rule(matching)])).reason is Reason.EXPRESSION_TOO_COSTLY


def test_loops_in_loops_over_what_an_agent_supplies_grant_nothing_and_soon() -> None:
    asked = request({"parameters": WORDS})
    nested = policy(purposes=purposes(), validations=[rule(NESTED)])
    assert isinstance(decided(request({"parameters": {**WORDS, "words": ["word"]}}), nested), Approved)
    started = time.monotonic()
    decision = decided(asked, nested)
    assert time.monotonic() - started < 1
    assert isinstance(decision, Undecided)
    assert decision.reason is Reason.EVALUATION_FAILED
    assert "words" not in decision.message


def test_loops_in_loops_over_what_an_agent_supplies_count_as_true_under_a_deny() -> None:
    allowed, against = policy(purposes=purposes()), deny(validations=[rule(f"!({NESTED})")])
    few = request({"parameters": {**WORDS, "words": ["word"]}})
    assert isinstance(decided(few, allowed, against), Approved)
    decision = decided(request({"parameters": WORDS}), allowed, against)
    assert isinstance(decision, Denied)
    assert decision.denial.reason == Reason.POLICY_DENIED
    assert "Its rule rule could not be evaluated, which counts against the request." in decision.denial.message


@pytest.mark.parametrize(("allows", "denies"), [("a", "b"), ("b", "a")])
def test_of_policies_that_contradict_the_deny_wins_whatever_their_names(allows: str, denies: str) -> None:
    allowed = policy(allows)
    assert allowed.spec.access is not None
    decision = decided(request(), allowed, deny(denies, access=[entry.to_api() for entry in allowed.spec.access]))
    assert isinstance(decision, Denied)
    assert (decision.denial.reason, decision.policy) == (Reason.POLICY_DENIED, denies)


def test_of_rules_that_contradict_in_one_policy_none_is_overlooked() -> None:
    both = [rule('cluster == "west"'), {**rule('cluster != "west"'), "name": "two"}]
    assert reason(decided(request(), policy(validations=both))) == Reason.VALIDATION_FAILED
    assert isinstance(decided(request(), policy(), deny(validations=both)), Approved)


def test_a_misspelt_field_in_a_deny_leaves_those_it_selects_undecided_and_no_others() -> None:
    misspelt = [rule('access.kubernetes.scopes.exists(s, s.namespce == "prod")')]
    decision = decided(request(), policy(), deny(validations=misspelt))
    assert reason(decision) == Reason.POLICIES_NOT_READY
    other = [{"name": "other", "namespace": "other-agents"}]
    assert isinstance(decided(request(), policy(), deny(validations=misspelt, subjects=other)), Approved)


@pytest.mark.parametrize(
    "subject",
    [
        {"namespace": "no-such-namespace"},
        {"namespaceSelector": {"matchLabels": {"team": "no-such-team"}}},
        {"namespace": "shop-agents", "podSelector": {"matchLabels": {"team": "no-such-team"}}},
        {"namespace": "shop-agents", "serviceAccount": "no-such-account"},
    ],
)
def test_a_policy_whose_selectors_match_nothing_is_about_nobody(subject: dict[str, Any]) -> None:
    nobody = [{"name": "nobody", **subject}]
    assert reason(decided(request(), policy(subjects=nobody))) == Reason.NO_POLICY_MATCHED
    assert isinstance(decided(request(), policy(), deny(subjects=nobody), known=facts()), Approved)
