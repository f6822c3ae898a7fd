"""Policies for emergencies: used when nothing else grants, short, and not again before somebody has looked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.policy.given import DEPLOYMENTS, NOW, decided, deny, facts, policy, request, unusable
from tests.unit.policy.test_approvals import said
from tests.unit.policy.test_defaults import WITHOUT_NAMES
from valetkey.kinds.agentpolicy import AgentPolicy, PolicySpec
from valetkey.kinds.demands import BreakGlass
from valetkey.kinds.ledger import MOST_UNREVIEWED
from valetkey.policy.backwards import who_can
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting
from valetkey.policy.facts import Unreviewed
from valetkey.reasons import Reason

HOUR = timedelta(hours=1)


def glass(name: str = "a-glass", **spec: Any) -> AgentPolicy:
    """A policy for emergencies, whose name comes before those of others."""
    return policy(name, **{"breakGlass": {}, "ttl": {"default": "5m", "max": "2h"}, **spec})


def approved(decision: Decision) -> Approved:
    assert isinstance(decision, Approved), decision
    return decision


def refused(decision: Decision) -> str:
    assert isinstance(decision, Denied), decision
    return decision.denial.reason


def used(due: timedelta, request_: str = "shop-agents/earlier") -> Unreviewed:
    return Unreviewed(request=request_, uid="its-uid", at=NOW + due - 24 * HOUR, review_by=NOW + due)


EMERGENCY: dict[str, Any] = {"purposes": [{"name": "emergency"}], "access": WITHOUT_NAMES}
URGENT = {"task": {"purpose": "emergency", "parameters": {}}}


def test_it_is_used_for_a_purpose_that_no_other_policy_knows_and_for_no_other() -> None:
    alone = approved(decided(request(), glass()))
    assert (alone.reason, alone.review_within) == (Reason.BREAK_GLASS_USED, 24 * HOUR)
    other = approved(decided(request(), glass(), policy("z-other")))
    assert (other.policy.name, other.reason, other.review_within) == ("z-other", Reason.POLICY_MATCHED, None)
    asks = decided(request(), glass(), policy("z-other", approval={}))
    assert isinstance(asks, Waiting)
    assert asks.policy == "z-other"
    own = glass(**EMERGENCY)
    assert approved(decided(request(**URGENT), own, policy("z-other", approval={}))).policy.name == "a-glass"


@pytest.mark.parametrize(
    "spec",
    [
        {"ttl": {"default": "1m"}},
        {"access": [{"name": "other", "kubernetes": {"scopes": [{"namespaces": ["web"], "rules": [DEPLOYMENTS]}]}}]},
        {"validations": [{"name": "no", "expression": "cluster == 'east'", "message": "m"}]},
        {"limits": {"active": 1}},
        {"via": ["Door"]},
    ],
)
def test_what_another_policy_that_knows_the_purpose_refuses_is_no_emergency(spec: dict[str, Any]) -> None:
    known = facts(active={"z-other": 1})
    decision = decided(request(ttl="4m"), glass(), policy("z-other", **spec), known=known)
    assert isinstance(decision, Denied)
    assert decision.policy == "z-other"
    assert approved(decided(request(ttl="4m"), glass(), known=known)).policy.name == "a-glass"


def test_what_another_policy_cannot_say_is_no_emergency() -> None:
    failing = policy(
        "z-other", validations=[{"name": "x", "expression": "claims.task.parameters.x == 1", "message": "m"}]
    )
    by_labels = [{"name": "l", "namespaceSelector": {"matchLabels": {"team": "shop"}}}]
    unknown = policy("z-other", subjects=by_labels)
    assert isinstance(decided(request(), glass(), failing), Undecided)
    assert isinstance(decided(request(), glass(), unknown, known=facts(namespaces={})), Undecided)
    over = policy("z-other", until="2026-01-01T00:00:00Z")
    elsewhere = policy("z-other", subjects=[{"name": "e", "namespace": "elsewhere"}])
    for other in (over, elsewhere):
        assert approved(decided(request(), glass(), other)).policy.name == "a-glass"


def test_of_two_for_emergencies_the_first_that_grants_is_used() -> None:
    short = glass("a-glass", breakGlass={"maxTTL": "1m"})
    assert approved(decided(request(ttl="4m"), short, glass("b-glass"))).policy.name == "b-glass"


def test_a_guardrail_that_people_have_to_content_is_not_passed_by_it() -> None:
    unspoken = '!approvals.exists(a, a.verdict == "Approve")'
    guard = deny(validations=[{"name": "u", "expression": unspoken, "message": "m"}])
    assert refused(decided(request(), glass(), guard)) == Reason.POLICY_DENIED
    waits = decided(request(), glass(), policy("z-other", approval={}), guard)
    assert isinstance(waits, Waiting)
    spoken = facts(approvals=(said(policy="z-other"),))
    assert (
        approved(decided(request(), glass(), policy("z-other", approval={}), guard, known=spoken)).review_within is None
    )


def test_while_another_waits_for_people_whom_a_guardrail_asks_for_it_is_not_used_either() -> None:
    unspoken = '!approvals.exists(a, a.verdict == "Approve")'
    guard = deny(validations=[{"name": "u", "expression": unspoken, "message": "m"}])
    spoken = facts(approvals=(said(policy="a-glass"),))
    others = (policy("b-plain"), policy("z-other", approval={}))
    decision = decided(request(), glass(), *others, guard, known=spoken)
    assert isinstance(decision, Waiting)
    assert decision.policy == "z-other"
    assert refused(decided(request(), glass(), others[0], guard, known=spoken)) == Reason.POLICY_DENIED
    assert approved(decided(request(), glass(), guard, known=spoken)).policy.name == "a-glass"


def test_a_deny_wins_over_it() -> None:
    assert refused(decided(request(), glass(), deny())) == Reason.POLICY_DENIED


@pytest.mark.parametrize(
    ("break_glass", "ttl", "default", "longest"),
    [
        ({}, {"default": "5m", "max": "2h"}, 5, 15),
        ({"maxTTL": "2m"}, {}, 2, 2),
        ({"maxTTL": "1h"}, {"max": "30m"}, 5, 30),
    ],
)
def test_it_lives_no_longer_than_it_says_whatever_ttl_says(
    break_glass: dict[str, str], ttl: dict[str, str], default: int, longest: int
) -> None:
    one = glass(breakGlass=break_glass, ttl=ttl)
    assert approved(decided(request(), one)).ttl == timedelta(minutes=default)
    assert approved(decided(request(ttl=f"{longest}m"), one)).ttl == timedelta(minutes=longest)
    assert refused(decided(request(ttl=f"{longest}m1s"), one)) == Reason.TTL_TOO_LONG


def test_what_was_not_reviewed_in_time_keeps_it_from_being_used_again() -> None:
    early = facts(unreviewed={"a-glass": (used(HOUR),)})
    assert approved(decided(request(), glass(), known=early))
    late = facts(unreviewed={"a-glass": (used(HOUR), used(timedelta(), "shop-agents/forgotten"))})
    decision = decided(request(), glass(), known=late)
    assert refused(decision) == Reason.REVIEW_OVERDUE
    assert isinstance(decision, Denied)
    command = "`kubectl valetkey review shop-agents/forgotten --uid its-uid --policy a-glass` with a --reason"
    assert command in decision.denial.message
    assert approved(decided(request(), glass(), known=facts(unreviewed={"another": (used(-HOUR),)})))
    assert approved(decided(request(), glass(), known=facts(unreviewed={"a-glass": (used(-HOUR),)}, live=True)))


def test_no_more_than_a_few_uses_wait_for_their_review() -> None:
    few = facts(unreviewed={"a-glass": (used(HOUR),) * (MOST_UNREVIEWED - 1)})
    assert approved(decided(request(), glass(), known=few))
    many = facts(unreviewed={"a-glass": (used(HOUR),) * MOST_UNREVIEWED})
    assert refused(decided(request(), glass(), known=many)) == Reason.REVIEW_OVERDUE


def test_without_break_glass_a_policy_is_as_any_other_and_with_it_a_day_and_a_quarter_of_an_hour_are_meant() -> None:
    assert PolicySpec(effect="Allow").break_glass is None
    assert approved(decided(request(), policy())).review_within is None
    assert (BreakGlass().review, BreakGlass().longest) == (24 * HOUR, timedelta(minutes=15))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"approval": {}}, "spec.breakGlass"),
        ({"breakGlass": {"maxTTL": "61m"}}, "spec.breakGlass.maxTTL"),
        ({"breakGlass": {"maxTTL": "0s"}}, "spec.breakGlass.maxTTL"),
        ({"breakGlass": {"reviewWithin": "169h"}}, "spec.breakGlass.reviewWithin"),
        ({"breakGlass": {"reviewWithin": "0s"}}, "spec.breakGlass.reviewWithin"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: dict[str, Any], field: str) -> None:
    assert unusable(glass(**spec)).message.startswith(f"{field}: ")


def test_it_belongs_to_an_allow_and_is_told_when_policies_are_read_backwards() -> None:
    assert unusable(deny(breakGlass={})).message.startswith("spec.breakGlass: it belongs to an Allow")
    (may,) = who_can(Policies.of([compile_policy(glass())]), "patch", "deployments", "apps", "shop")
    assert may.conditions == ("in an emergency, reviewed afterwards",)


def test_a_policy_that_does_not_let_this_pod_ask_for_another_knows_the_purpose_all_the_same() -> None:
    launcher = replace(facts().identity, service_account="launcher", pod_name="l", pod_uid="l")
    known = facts(requester=launcher)
    own = glass(onBehalfOf=["launcher"])
    assert refused(decided(request(), own, policy("z-other"), known=known)) == Reason.SUBJECT_NOT_ALLOWED
    assert approved(decided(request(), own, known=known)).policy.name == "a-glass"
