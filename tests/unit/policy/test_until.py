"""A policy that has ended is as if it were not there; what it granted ends with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.policy.given import NOW, decided, deny, facts, policy, request
from valetkey.policy.decide import Approved, Decision, Denied, Undecided
from valetkey.reasons import Reason

UNTIL = NOW + timedelta(hours=4)
TEXT = "2026-11-23T18:00:00Z"
TICK, SECOND = timedelta(microseconds=1), timedelta(seconds=1)
BROKEN = [{"name": "broken", "expression": "1 +", "message": "m"}]
BY_LABELS = [{"name": "s", "namespaceSelector": {"matchLabels": {"team": "shop"}}}]


def at(moment: datetime, *policies: Any, live: bool = False, **task: Any) -> Decision:
    return decided(request(task), *policies, known=facts(now=moment, live=live))


def denied(decision: Decision) -> tuple[str, str]:
    assert isinstance(decision, Denied), decision
    return decision.denial.reason, decision.denial.message


def test_what_is_granted_ends_with_the_policy_where_that_comes_first() -> None:
    decision = at(UNTIL - 2 * SECOND, policy(until=TEXT))
    assert isinstance(decision, Approved)
    assert (decision.ttl, decision.until) == (timedelta(minutes=5), UNTIL)
    assert decision.not_after(UNTIL - 2 * SECOND) == UNTIL
    # It may be opened later than it was decided: it ends no later for that.
    assert decision.not_after(UNTIL - SECOND) == UNTIL
    assert decision.not_after(UNTIL - timedelta(minutes=5)) == UNTIL
    assert decision.not_after(UNTIL - timedelta(minutes=6)) == UNTIL - timedelta(minutes=1)


def test_an_allow_grants_while_a_second_is_left_and_not_with_less() -> None:
    assert isinstance(at(UNTIL - SECOND, policy(until=TEXT)), Approved)
    reason, message = denied(at(UNTIL - SECOND + TICK, policy(until=TEXT)))
    assert reason == Reason.NO_POLICY_MATCHED
    assert message.startswith(f"Policy shop-fixers ends at {TEXT} and grants no more, and no other is about this agent")


def test_a_live_grant_may_go_on_to_the_very_end_and_not_beyond() -> None:
    assert isinstance(at(UNTIL - TICK, policy(until=TEXT), live=True), Approved)
    assert denied(at(UNTIL, policy(until=TEXT), live=True))[0] == Reason.NO_POLICY_MATCHED


def test_an_allow_that_has_ended_leaves_the_next_one_to_grant_and_to_tell() -> None:
    ended = policy("a-ended", until=TEXT)
    decision = at(UNTIL, ended, policy("b"))
    assert isinstance(decision, Approved)
    assert (decision.policy.name, decision.until) == ("b", None)
    other = policy("b", purposes=[{"name": "inspection"}], access=[{"name": "e", "kubernetes": in_web()}])
    decision = at(UNTIL, ended, other)
    assert isinstance(decision, Denied)
    assert (decision.denial.reason, decision.policy) == (Reason.PURPOSE_UNKNOWN, "b")
    assert decision.denial.allowed == "purpose: inspection"


def in_web() -> dict[str, Any]:
    return {
        "scopes": [{"namespaces": ["web"], "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}]
    }


def test_the_contact_of_a_policy_that_has_ended_is_told() -> None:
    decision = at(UNTIL, policy(until=TEXT))
    assert isinstance(decision, Denied)
    assert (decision.policy, decision.denial.contact) == ("shop-fixers", "#shop-platform")


def test_a_deny_forbids_to_the_very_end_and_not_beyond() -> None:
    lock = deny(until=TEXT)
    assert denied(at(UNTIL - TICK, policy(), lock))[0] == Reason.POLICY_DENIED
    assert isinstance(at(UNTIL, policy(), lock), Approved)


def test_a_deny_that_has_ended_leaves_nobody_undecided() -> None:
    for lock in (deny(until=TEXT, validations=BROKEN), deny(until=TEXT, subjects=BY_LABELS)):
        before = decided(request(), policy(), lock, known=facts(now=UNTIL - TICK, namespaces={}))
        assert isinstance(before, Undecided)
        assert isinstance(decided(request(), policy(), lock, known=facts(now=UNTIL, namespaces={})), Approved)


def test_an_allow_that_has_ended_leaves_nobody_undecided_and_is_not_named_as_skipped() -> None:
    unknown = facts(now=UNTIL, namespaces={})
    assert isinstance(decided(request(), policy(until=TEXT, subjects=BY_LABELS), known=unknown), Denied)
    reason, message = denied(at(UNTIL, policy("broken", until=TEXT, validations=BROKEN)))
    assert reason == Reason.NO_POLICY_MATCHED
    assert "broken" not in message


@pytest.mark.parametrize("text", ["2026-11-23T18:00:00Z", "2026-11-23T19:00:00+01:00", "2026-11-23T13:00:00.000-05:00"])
def test_a_policy_ends_at_one_moment_wherever_it_was_written(text: str) -> None:
    assert policy(until=text).spec.until == UNTIL.astimezone(UTC)


@pytest.mark.parametrize("text", ["2026-11-23T18:00:00", "2026-11-23", "tonight"])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"spec\.until"):
        policy(until=text)
