"""What a policy leaves out, and what that means: each row of the table of defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.policy.given import DEPLOYMENTS, NOW, decided, deny, facts, in_shop, policy, request, unusable
from tests.unit.policy.test_coverage import word
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.delegation import Account, Delegation, DelegationLimits
from valetkey.kinds.demands import Approval
from valetkey.policy.decide import Approved, Decision, Denied, Waiting
from valetkey.policy.facts import Facts
from valetkey.reasons import Reason

ANY_NAME = {key: value for key, value in DEPLOYMENTS.items() if key != "resourceNames"}
WITHOUT_NAMES = [{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [ANY_NAME]}]}}]


def granted(known: Facts | None = None, /, asked: dict[str, Any] | None = None, **spec: Any) -> Approved:
    decision = decided(request(**(asked or {})), policy(**spec), known=known)
    assert isinstance(decision, Approved), decision
    return decision


def refused(decision: Decision) -> str:
    assert isinstance(decision, Denied), decision
    return decision.denial.reason


@pytest.mark.parametrize("field", ["subjects", "purposes", "access"])
def test_whom_for_what_and_which_access_an_allow_says_and_a_deny_may_leave_out_for_any(field: str) -> None:
    without: dict[str, Any] = {field: None}
    assert unusable(policy(**without)).message.startswith(f"spec.{field}: an Allow says")
    others: dict[str, Any] = {"subjects": [{"name": "all", "any": True}], "purposes": [{"name": "remediation"}]}
    others["access"] = WITHOUT_NAMES
    del others[field]
    assert refused(decided(request(), policy(), deny(**others))) == Reason.POLICY_DENIED


@pytest.mark.parametrize("name", ["checkout", "anything-else"])
def test_without_resource_names_a_ceiling_means_any_name(name: str) -> None:
    asked = {"access": in_shop({**DEPLOYMENTS, "resourceNames": [name]})}
    assert granted(asked=asked, access=WITHOUT_NAMES)
    assert granted(asked={"access": in_shop(ANY_NAME)}, access=WITHOUT_NAMES)


def test_without_an_approval_nobody_is_asked_and_without_when_always() -> None:
    assert granted().approvals == ()
    assert isinstance(decided(request(), policy(approval={})), Waiting)
    assert (Approval().needed, Approval().wait) == (1, timedelta(minutes=30))


def test_without_covers_a_word_is_of_its_own_request_alone() -> None:
    assert Approval().covers_task is False
    known = facts(now=NOW + timedelta(minutes=10), covering=(word(),))
    for approval in ({}, {"covers": "Request"}):
        assert isinstance(decided(request(), policy(approval=approval), known=known), Waiting)
    assert isinstance(decided(request(), policy(approval={"covers": "Task"}), known=known), Approved)


def test_without_a_ttl_a_grant_lives_five_minutes_and_no_longer_may_be_asked_for() -> None:
    assert granted(ttl=None).ttl == timedelta(minutes=5)
    assert refused(decided(request(ttl="5m1s"), policy(ttl=None))) == Reason.TTL_TOO_LONG
    assert refused(decided(request(ttl="3m1s"), policy(ttl={"default": "3m"}))) == Reason.TTL_TOO_LONG
    assert granted(asked={"ttl": "9m"}, ttl={"max": "9m"}).ttl == timedelta(minutes=9)
    assert granted(ttl={"max": "9m"}).ttl == timedelta(minutes=5)


def test_without_limits_the_charts_own_holds_for_each_policy_and_nothing_says_how_often() -> None:
    assert granted(facts(active={"shop-fixers": 19, "another": 50}, limit_active=20))
    full = facts(active={"shop-fixers": 20}, limit_active=20)
    assert refused(decided(request(), policy(), known=full)) == Reason.LIMIT_REACHED
    often = facts(opened={"shop-fixers": (NOW,) * 500})
    assert granted(often).remembers == 0


def test_without_until_a_policy_does_not_end() -> None:
    assert granted(facts(now=NOW + timedelta(days=36500))).until is None


def test_without_a_delegation_nothing_is_handed_on_and_nothing_has_to_have_been() -> None:
    worker = {"namespace": "shop-agents", "serviceAccount": "worker"}
    assert PolicySpec(effect="Allow").delegation is None
    assert granted()
    assert refused(decided(request(delegation={"to": [worker]}), policy())) == Reason.ACCESS_BEYOND_POLICY
    assert (Delegation(to=(Account(**worker),)).depth, DelegationLimits(to=(Account(**worker),)).depth) == (1, 1)


def test_without_a_mode_a_policy_is_enforced() -> None:
    assert PolicySpec(effect="Allow").enforced
    assert refused(decided(request(), policy(), deny())) == Reason.POLICY_DENIED
    assert isinstance(decided(request(), policy(), deny(mode="Audit")), Approved)


def test_without_a_backstop_there_is_no_timer() -> None:
    assert granted().backstop is False
    assert granted(backstop="Job").backstop is True


def test_without_a_delivery_every_way_is_allowed() -> None:
    assert PolicySpec(effect="Allow").delivery is None
    assert granted(delivery=None)


@pytest.mark.parametrize(
    "rights",
    [{"resources": ["pods/exec"], "verbs": ["create"]}, {"resources": ["secrets"], "verbs": ["get"]}],
    ids=lambda rights: rights["resources"][0],
)
def test_without_risks_none_is_accepted(rights: dict[str, Any]) -> None:
    rule = {"apiGroups": [""], **rights}
    scopes = [{"namespaces": ["shop"], "rules": [rule]}]
    entry: dict[str, Any] = {"name": "risky", "kubernetes": {"scopes": scopes}}
    asked = request(access=in_shop(rule))
    assert refused(decided(asked, policy(access=[entry]))) == Reason.RISK_NOT_ALLOWED
    entry["kubernetes"]["risks"] = ["Exec", "Secrets"]
    assert isinstance(decided(asked, policy(access=[entry])), Approved)
