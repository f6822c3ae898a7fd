"""How much at once and how often: what a policy's limits grant, and when they grant again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.unit.policy.given import NOW, decided, facts, policy, request, unusable
from valetkey.policy.decide import Approved, Decision, Denied
from valetkey.policy.facts import Facts
from valetkey.reasons import Reason

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def ago(*before: timedelta) -> Facts:
    return facts(opened={"shop-fixers": tuple(NOW - one for one in before)})


def with_limits(known: Facts, **limits: Any) -> Decision:
    return decided(request(), policy(limits=limits), known=known)


def retry_after(decision: Decision) -> timedelta | None:
    assert isinstance(decision, Denied)
    assert decision.denial.reason == Reason.LIMIT_REACHED
    return decision.denial.retry_after


def test_so_many_grants_in_an_hour_and_not_one_more() -> None:
    assert isinstance(with_limits(ago(MINUTE, 2 * MINUTE), perHour=3), Approved)
    refused = with_limits(ago(MINUTE, 2 * MINUTE, 30 * MINUTE), perHour=3)
    assert retry_after(refused) == 30 * MINUTE
    assert isinstance(refused, Denied)
    assert refused.denial.message == (
        "Policy shop-fixers grants a ServiceAccount 3 times an hour, and has: ask again in 30m."
    )


def test_an_hour_ends_to_the_moment() -> None:
    assert retry_after(with_limits(ago(HOUR - timedelta(milliseconds=1)), perHour=1)) == SECOND
    assert isinstance(with_limits(ago(HOUR), perHour=1), Approved)


def test_where_more_were_granted_than_a_limit_that_was_lowered_enough_of_them_must_be_over() -> None:
    assert retry_after(with_limits(ago(MINUTE, 2 * MINUTE, 3 * MINUTE), perHour=1)) == 59 * MINUTE
    assert retry_after(with_limits(ago(3 * MINUTE, MINUTE, 2 * MINUTE), perHour=2)) == 58 * MINUTE


@pytest.mark.parametrize(("before", "rest"), [(SECOND, 9 * SECOND), (9.5 * SECOND, SECOND), (10 * SECOND, None)])
def test_the_next_grant_comes_when_the_last_one_was_long_enough_ago(before: timedelta, rest: timedelta | None) -> None:
    decision = with_limits(ago(before, MINUTE), cooldown="10s")
    assert isinstance(decision, Approved) if rest is None else retry_after(decision) == rest


def test_what_other_policies_granted_does_not_count() -> None:
    assert isinstance(with_limits(facts(opened={"other": (NOW,)}), perHour=1, cooldown="1h"), Approved)


def test_who_has_had_their_share_of_one_policy_gets_the_next_ones() -> None:
    one, two = policy("shop-fixers", limits={"perHour": 1}), policy("zzz")
    decision = decided(request(), one, two, known=ago(MINUTE))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "zzz"
    assert decision.remembers == 0


def test_what_is_to_be_remembered_says_so() -> None:
    for limits, number in (({"perHour": 3}, 3), ({"cooldown": "1s"}, 1), ({"active": 1}, 0)):
        granted = with_limits(facts(), **limits)
        assert isinstance(granted, Approved)
        assert granted.remembers == number


def test_where_both_limits_are_reached_the_longer_wait_is_told() -> None:
    before = (HOUR - SECOND, SECOND)
    refused = with_limits(ago(*before), perHour=2, cooldown="30m")
    assert retry_after(refused) == 30 * MINUTE - SECOND
    assert isinstance(with_limits(facts(now=NOW + 30 * MINUTE, opened=dict(ago(*before).opened)), perHour=2), Approved)


def test_a_clock_that_was_set_back_forgets_nothing() -> None:
    ahead: datetime = NOW + timedelta(minutes=5)
    assert retry_after(with_limits(facts(opened={"shop-fixers": (ahead,)}), perHour=1)) == 65 * MINUTE


@pytest.mark.parametrize("cooldown", ["0s", "500ms", "1h1s"])
def test_a_pause_that_the_ledger_cannot_keep_is_refused(cooldown: str) -> None:
    assert unusable(policy(limits={"cooldown": cooldown})).message == "spec.limits.cooldown: at least 1s and at most 1h"
