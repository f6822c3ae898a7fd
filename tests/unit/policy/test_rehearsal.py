"""A policy in Audit mode changes no decision, and says what it would have changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import NOW, decided, deny, facts, policy, request
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.decide import Approved, Denied, decide
from valetkey.policy.facts import Facts
from valetkey.policy.rehearsal import Rehearsal, rehearse
from valetkey.reasons import Reason

ELSEWHERE = [{"name": "other", "namespace": "other-agents"}]
BY_LABELS = [{"name": "s", "namespaceSelector": {"matchLabels": {"team": "shop"}}}]


def rule(expression: str) -> list[dict[str, str]]:
    return [{"name": "rule", "expression": expression, "message": "Not now."}]


def audit(name: str = "a-audit", **spec: Any) -> AgentPolicy:
    return policy(name, mode="Audit", **spec)


def audit_deny(name: str = "a-audit", **spec: Any) -> AgentPolicy:
    return deny(name, mode="Audit", **spec)


def rehearsed(
    *policies: AgentPolicy, asked: RequestSpec | None = None, known: Facts | None = None
) -> tuple[Rehearsal, ...]:
    known, asked = known or facts(), asked or request()
    compiled = Policies.of(compile_policy(one) for one in policies)
    return rehearse(asked, compiled, known, decide(asked, compiled, known))


@pytest.mark.parametrize(
    "silent",
    [
        audit(),
        audit(validations=rule("claims.task.parameters.absent == 1")),
        audit(validations=rule("1 +")),
        audit_deny(),
        audit_deny(validations=rule("1 +")),
        audit_deny(subjects=BY_LABELS),
    ],
)
@pytest.mark.parametrize("enforced", [(), (policy(),), (policy(), deny()), (policy(ttl={"max": "1s"}),)])
@pytest.mark.parametrize("known", [facts(), facts(namespaces={})])
def test_a_policy_in_audit_mode_never_changes_a_decision(
    silent: AgentPolicy, enforced: tuple[AgentPolicy, ...], known: Facts
) -> None:
    assert decided(request(), *enforced, silent, known=known) == decided(request(), *enforced, known=known)


@pytest.mark.parametrize("mode", [None, "Enforce"])
def test_a_policy_that_says_nothing_of_its_mode_is_enforced(mode: str | None) -> None:
    assert isinstance(decided(request(), policy(mode=mode)), Approved)
    assert isinstance(decided(request(), policy(), deny(mode=mode)), Denied)
    assert rehearsed(policy(mode=mode), deny(mode=mode)) == ()


@pytest.mark.parametrize(
    ("enforced", "silent", "says", "differs", "message"),
    [
        ((), audit(), "Allowed", True, "entry restart, for 5m"),
        ((policy(),), audit(), "Allowed", False, "entry restart, for 5m"),
        ((policy(), deny()), audit(), "Allowed", False, "entry restart, for 5m"),
        ((), audit(validations=rule("false")), "NotMatched", False, "Not now."),
        ((), audit(validations=rule("claims.task.parameters.x == 1")), "Undecided", True, "Rule rule of policy a-"),
        ((policy(),), audit(validations=rule("claims.task.parameters.x == 1")), "Undecided", False, "Rule rule of"),
        ((policy(),), audit_deny(), "Denied", True, "Policy a-audit denies every access"),
        ((), audit_deny(), "Denied", False, "Policy a-audit denies every access"),
        ((policy(), deny()), audit_deny(), "Denied", False, "Policy a-audit denies every access"),
        ((policy(),), audit_deny(validations=rule("false")), "NotMatched", False, "it is about another purpose or"),
        ((policy(),), audit_deny(purposes=[{"name": "other"}]), "NotMatched", False, "it is about another purpose or"),
        ((policy(),), audit_deny(validations=rule("claims.task.parameters.x == 1")), "Denied", True, "Policy a-audit"),
        ((policy(),), audit(subjects=ELSEWHERE), None, None, None),
        ((policy(),), audit_deny(subjects=ELSEWHERE), None, None, None),
        ((policy(),), audit_deny(until=NOW), None, None, None),
        ((policy(),), audit_deny(validations=rule("1 +")), None, None, None),
    ],
)
def test_what_it_would_have_said_and_whether_that_would_have_changed_anything(
    enforced: tuple[AgentPolicy, ...], silent: AgentPolicy, says: str | None, differs: bool | None, message: str | None
) -> None:
    found = rehearsed(*enforced, silent)
    if says is None:
        assert found == ()
        return
    (one,) = found
    assert (one.policy, one.says, one.differs) == ("a-audit", says, differs)
    assert message is not None
    assert one.message.startswith(message)


def test_whom_it_is_about_is_undecided_where_that_is_not_known() -> None:
    unknown = facts(namespaces={"shop": {}})
    (one,) = rehearsed(policy(), audit_deny(subjects=BY_LABELS), known=unknown)
    assert (one.says, one.differs) == ("Undecided", True)


def test_each_is_rehearsed_by_itself() -> None:
    """Two that contradict: neither hears of the other."""
    allowed, denied = rehearsed(audit("a"), audit_deny("b"))
    assert (allowed.policy, allowed.says, allowed.differs) == ("a", "Allowed", True)
    assert (denied.policy, denied.says, denied.differs) == ("b", "Denied", False)


def test_a_request_that_no_policy_is_asked_about_matches_none() -> None:
    huge = request({"parameters": {"blob": "x" * 2**20}})
    found = rehearsed(audit("a"), audit_deny("b"), asked=huge)
    assert [(one.says, one.differs) for one in found] == [("NotMatched", False)] * 2


def test_no_more_than_sixteen_are_rehearsed_and_those_about_others_do_not_count() -> None:
    others = [audit_deny(f"a-{at:02}", subjects=ELSEWHERE) for at in range(20)]
    many = [audit_deny(f"b-{at:02}") for at in range(20)]
    assert [one.policy for one in rehearsed(*others, *many)] == [f"b-{at:02}" for at in range(16)]


def test_a_live_grant_is_held_to_its_policy_only_while_that_is_enforced() -> None:
    live = facts(live=True)
    for mode, expected in (("Enforce", Approved), ("Audit", Denied)):
        known = Policies.of(compile_policy(one) for one in (policy(mode=mode), audit_deny()))
        decision = decide(request(), known.narrowed("uid-shop-fixers"), live)
        assert isinstance(decision, expected)
        if isinstance(decision, Denied):
            assert decision.denial.reason == Reason.NO_POLICY_MATCHED
