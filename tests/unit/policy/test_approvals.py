"""Who has to say yes before a policy grants, whose word counts, and what a guardrail makes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import pytest

from tests.unit.policy.given import NOW, decided, deny, facts, policy, request, unusable, usable
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting, decide
from valetkey.policy.facts import Statement
from valetkey.policy.rehearsal import rehearse
from valetkey.reasons import Reason

ONE: dict[str, Any] = {}
ITSELF = "system:serviceaccount:shop-agents:fixer"
UNSPOKEN = '!approvals.exists(a, a.verdict == "Approve")'


def said(
    username: str = "ann", verdict: Literal["Approve", "Deny"] = "Approve", *, minute: int = 0, **changes: Any
) -> Statement:
    """What a person said on the request, some minutes after it was made."""
    base: dict[str, Any] = {
        "name": f"{username}-says",
        "uid": f"uid-{username}",
        "policy": "shop-fixers",
        "verdict": verdict,
        "username": username,
        "groups": ("people",),
        "reason": None,
        "at": NOW + timedelta(minutes=minute),
        "allowed": True,
    }
    return Statement(**base | changes)


def rule(expression: str) -> list[dict[str, str]]:
    return [{"name": "rule", "expression": expression, "message": "Not now."}]


def asked(*policies: AgentPolicy, words: tuple[Statement, ...] = (), live: bool = False, **known: Any) -> Decision:
    return decided(request(), *policies, known=facts(approvals=words, live=live, **known))


def waiting(decision: Decision) -> Waiting:
    assert isinstance(decision, Waiting), decision
    return decision


def by(decision: Decision) -> list[str]:
    """Whose word an approval rests on."""
    assert isinstance(decision, Approved), decision
    return [one.username for one in decision.approvals]


def test_a_request_waits_until_as_many_people_as_the_policy_asks_have_approved_it() -> None:
    two = policy(approval={"approvals": 2, "timeout": "10m"})
    first = waiting(asked(two))
    assert (first.policy, first.needed, first.approved_by) == ("shop-fixers", 2, ())
    assert first.timeout == timedelta(minutes=10)
    assert waiting(asked(two, words=(said(),))).approved_by == ("ann",)
    decision = asked(two, words=(said(), said("bob")))
    assert isinstance(decision, Approved)
    assert [(one.name, one.uid, one.username) for one in decision.approvals] == [
        ("ann-says", "uid-ann", "ann"),
        ("bob-says", "uid-bob", "bob"),
    ]
    assert (decision.reason, decision.wait) == (Reason.PERSON_APPROVED, timedelta(minutes=10))


def test_one_person_and_half_an_hour_where_the_policy_says_no_more() -> None:
    said_nothing = waiting(asked(policy(approval=ONE)))
    assert (said_nothing.needed, said_nothing.timeout) == (1, timedelta(minutes=30))
    assert by(asked(policy(approval=ONE), words=(said(),))) == ["ann"]


def test_a_policy_that_asks_nobody_waits_for_nobody() -> None:
    decision = asked(policy(), words=(said(),))
    assert isinstance(decision, Approved)
    assert (decision.approvals, decision.wait, decision.reason) == ((), None, Reason.POLICY_MATCHED)


def test_the_same_person_counts_once_however_often_they_approve() -> None:
    again = said(name="ann-again", uid="uid-again", minute=1)
    assert waiting(asked(policy(approval={"approvals": 2}), words=(again, said()))).approved_by == ("ann",)
    decision = asked(policy(approval=ONE), words=(again, said()))
    assert isinstance(decision, Approved)
    assert [one.name for one in decision.approvals] == ["ann-says"]


def test_a_grant_rests_on_the_first_who_approved_and_on_no_more_than_are_asked() -> None:
    words = (said("zoe", minute=0), said("ann", minute=2), said("bob", minute=1))
    assert by(asked(policy(approval={"approvals": 2}), words=words)) == ["zoe", "bob"]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (said(ITSELF), f"{ITSELF} asks itself"),
        (said(allowed=False), "ann may no longer approve for policy shop-fixers"),
        (said(policy="other"), "ann approved for policy other"),
    ],
)
def test_whose_word_does_not_count_is_told_with_the_reason(word: Statement, why: str) -> None:
    found = waiting(asked(policy(approval=ONE), words=(word,)))
    assert (found.approved_by, found.void) == ((), (why,))
    assert by(asked(policy(approval=ONE), words=(word, said("bob")))) == ["bob"]


def test_people_are_asked_only_where_the_policy_says_when() -> None:
    when = policy(approval={"when": "claims.task.parameters.deployment == 'checkout'"})
    waiting(asked(when))
    other = request({"parameters": {"deployment": "web"}})
    assert isinstance(decided(other, policy(approval={"when": "false"}, access=policy().spec.access)), Denied)
    assert isinstance(asked(policy(approval={"when": "namespaces['shop'].labels['env'] == 'prod'"})), Approved)


def test_whether_people_are_asked_cannot_be_told_and_so_nothing_is_granted() -> None:
    decision = asked(policy(approval={"when": "claims.task.parameters.absent == 1"}), words=(said(),))
    assert isinstance(decision, Undecided)
    assert (decision.reason, "approval.when of policy shop-fixers" in decision.message) == (
        Reason.EVALUATION_FAILED,
        True,
    )


@pytest.mark.parametrize(
    ("when", "column"), [("identity.nam == 'x'", "column 9"), ("1", "not BOOL"), ("1 +", "line 1")]
)
def test_an_expression_that_says_nothing_makes_the_policy_useless_and_is_found_by_its_field(
    when: str, column: str
) -> None:
    broken = unusable(policy(approval={"when": when}))
    assert broken.reason == Reason.EXPRESSION_INVALID
    assert broken.message.startswith("spec.approval.when: line 1, column ")
    assert column in broken.message


@pytest.mark.parametrize(
    "broken",
    [deny(approval=ONE), policy(approval={"timeout": "0s"}), policy(approval={"timeout": "24h1s"})],
    ids=["a Deny", "no time", "more than a day"],
)
def test_an_approval_that_makes_no_sense_is_not_used(broken: AgentPolicy) -> None:
    assert unusable(broken).message.startswith("spec.approval")


def test_people_are_asked_last_so_that_nobody_approves_what_is_denied_anyway() -> None:
    strict = policy(approval=ONE, ttl={"default": "1m", "max": "1m"})
    decision = decided(request(ttl="5m"), strict)
    assert isinstance(decision, Denied)
    assert decision.denial.reason == Reason.TTL_TOO_LONG
    full = asked(policy(approval=ONE, limits={"active": 1}), active={"shop-fixers": 1})
    assert isinstance(full, Denied)
    assert full.denial.reason == Reason.LIMIT_REACHED


def test_the_first_policy_that_grants_now_is_used_and_if_none_does_the_first_that_waits() -> None:
    people = policy("a", approval=ONE)
    decision = asked(people, policy("b"))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "b"
    assert waiting(asked(people, policy("b", approval={"approvals": 3}), policy("c", ttl={"max": "1s"}))).policy == "a"


def test_a_live_grant_is_not_asked_about_again() -> None:
    assert isinstance(asked(policy(approval=ONE), live=True), Approved)
    assert isinstance(asked(policy(approval={"when": "claims.task.parameters.absent == 1"}), live=True), Approved)


# -- a person says no ------------------------------------------------------------------------------------------------


def test_one_who_may_approve_and_says_no_ends_it_though_others_say_yes() -> None:
    no = said("bob", "Deny", reason="the freeze is on")
    decision = asked(policy(approval=ONE), words=(said(), no))
    assert isinstance(decision, Denied)
    assert (decision.policy, decision.denial.reason) == ("shop-fixers", Reason.PERSON_DENIED)
    assert decision.denial.message == "bob denied it for policy shop-fixers: the freeze is on"
    assert decision.denial.contact == "#shop-platform"


@pytest.mark.parametrize("live", [False, True])
def test_a_no_stands_though_policy_alone_would_grant_or_nothing_can_be_known(live: bool) -> None:
    no = (said("bob", "Deny", reason="no"),)
    for policies in ((policy(),), (policy(), deny("broken", validations=rule("1 +")))):
        decision = asked(*policies, words=no, live=live)
        assert isinstance(decision, Denied)
        assert decision.denial.reason == Reason.PERSON_DENIED


@pytest.mark.parametrize(
    "no",
    [
        said("bob", "Deny", reason="no", allowed=False),
        said(ITSELF, "Deny", reason="no"),
        said("bob", "Deny", reason="no", policy="elsewhere"),
        said("bob", "Deny", reason="no", policy="unknown"),
        said("bob", "Deny", reason="no", policy="over"),
        said("bob", "Deny", reason="no", policy="silent"),
    ],
    ids=["may not", "itself", "about other agents", "no policy", "a policy that has ended", "one in Audit mode"],
)
def test_a_no_of_somebody_who_has_no_say_here_changes_nothing(no: Statement) -> None:
    others = (
        policy("elsewhere", subjects=[{"name": "x", "namespace": "other-agents"}]),
        policy("over", until=NOW),
        policy("silent", mode="Audit"),
    )
    assert isinstance(asked(policy(), *others, words=(no,)), Approved)


# -- guardrails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "reads"),
    [
        (UNSPOKEN, True),
        ('approvals.all(a, a.verdict != "Approve")', True),
        ("size(approvals) == 0", True),
        ("approvals.exists(a, a.at > now)", True),
        ("claims.task.objective == 'approvals'", False),
        ("[1].exists(approvals, approvals == 2)", False),
        ("identity.labels['approvals'] == 'x'", False),
        ("true", False),
    ],
)
def test_whether_a_policy_reads_what_people_say_is_known_from_its_rules(expression: str, reads: bool) -> None:
    assert usable(deny(validations=rule(expression))).reads_approvals is reads


@pytest.mark.parametrize(
    "expression",
    [
        'approvals.exists(a, a.policy == "shop-fixers" && a.approver.username == "ann")',
        'approvals.exists(a, "people" in a.approver.groups)',
        'approvals.exists(a, a.at == timestamp("2026-11-23T14:00:00Z") && a.at <= now)',
        "size(approvals) == 1",
    ],
)
def test_a_rule_reads_who_said_what_for_which_policy_and_when(expression: str) -> None:
    guard = deny(validations=rule(expression))
    assert isinstance(asked(policy(), guard), Approved)
    assert isinstance(asked(policy(), guard, words=(said(),)), Denied)


def test_a_rule_sees_no_word_that_does_not_count() -> None:
    guard = deny(validations=rule("size(approvals) > 0"))
    assert isinstance(asked(policy(), guard, words=(said(allowed=False), said(ITSELF))), Approved)


def test_a_guardrail_that_wants_a_person_lets_people_be_asked_and_then_is_content() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    people = policy(approval={"approvals": 2})
    waiting(asked(people, guard))
    assert waiting(asked(people, guard, words=(said(),))).approved_by == ("ann",)
    assert by(asked(people, guard, words=(said(), said("bob")))) == ["ann", "bob"]


def test_a_guardrail_that_people_do_not_content_denies_once_they_have_spoken() -> None:
    """Two policies that contradict: one wants ann, the other forbids what she approves."""
    guard = deny(validations=rule('!approvals.exists(a, a.approver.username == "chief")'))
    waiting(asked(policy(approval=ONE), guard))
    decision = asked(policy(approval=ONE), guard, words=(said(),))
    assert isinstance(decision, Denied)
    assert decision.policy == "no-prod"
    assert by(asked(policy(approval=ONE), guard, words=(said("chief"),))) == ["chief"]


def test_a_deny_that_people_cannot_change_is_told_at_once() -> None:
    decision = asked(policy(approval=ONE), deny("z", validations=rule("true")), deny("a", validations=rule(UNSPOKEN)))
    assert isinstance(decision, Denied)
    assert decision.policy == "z"


def test_a_guardrail_without_a_policy_that_asks_people_denies_at_once() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    for live in (False, True):
        assert isinstance(asked(policy(), guard, live=live), Denied)
    assert isinstance(asked(policy(approval={"when": "false"}), guard), Denied)


def test_a_guardrail_makes_a_request_wait_that_another_policy_would_grant_without_people() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    broad, people = policy("a-broad"), policy("b-people", approval=ONE)
    assert waiting(asked(broad, people, guard)).policy == "b-people"
    decision = asked(broad, people, guard, words=(said(policy="b-people"),))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "b-people"


@pytest.mark.parametrize("named", ["ghost", "silent", "over", "elsewhere", "no-prod", "z-other"])
def test_a_word_for_another_policy_than_the_one_that_grants_contents_no_guardrail(named: str) -> None:
    guard, asks_nobody = deny(validations=rule(UNSPOKEN)), policy(approval={"when": "false"})
    others = (
        policy("silent", mode="Audit"),
        policy("over", until=NOW),
        policy("elsewhere", subjects=[{"name": "x", "namespace": "other-agents"}]),
        policy("z-other", ttl={"default": "1s", "max": "1s"}, validations=rule("false")),
    )
    for live in (False, True):
        decision = asked(asks_nobody, guard, *others, words=(said(policy=named),), live=live)
        assert isinstance(decision, Denied)
        assert isinstance(asked(asks_nobody, guard, *others, words=(said(),), live=live), Approved)


def test_a_live_grant_is_held_to_the_words_that_it_was_granted_on() -> None:
    whole = Policies.of(
        compile_policy(one)
        for one in (policy("a-broad"), policy("b-people", approval=ONE), deny(validations=rule(UNSPOKEN)))
    )
    words = (said(policy="b-people"),)
    granted = decide(request(), whole, facts(approvals=words))
    assert isinstance(granted, Approved)
    live = decide(request(), whole.narrowed(granted.policy.uid), facts(approvals=words, live=True))
    assert isinstance(live, Approved)


def test_a_guardrail_ends_a_live_grant_whose_approval_is_gone() -> None:
    guard, people = deny(validations=rule(UNSPOKEN)), policy(approval=ONE)
    assert isinstance(asked(people, guard, words=(said(),), live=True), Approved)
    assert isinstance(asked(people, guard, live=True), Denied)


def test_a_deny_that_cannot_be_used_leaves_it_undecided_though_people_could_be_asked() -> None:
    policies = (policy(approval=ONE), deny("b", validations=rule(UNSPOKEN)), deny("c", validations=rule("1 +")))
    assert isinstance(asked(*policies), Undecided)


# -- beside the rest -------------------------------------------------------------------------------------------------


def test_a_policy_in_audit_mode_that_would_ask_people_says_so() -> None:
    for enforced, differs in (((policy("z"),), False), ((), True)):
        compiled = Policies.of(compile_policy(one) for one in (policy("a", mode="Audit", approval=ONE), *enforced))
        (one,) = rehearse(request(), compiled, facts(), decide(request(), compiled, facts()))
        assert (one.says, one.differs, one.message) == ("Waiting", differs, "for 1 to approve, of whom 0 have")
    guard = deny("a", mode="Audit", validations=rule(UNSPOKEN))
    compiled = Policies.of(compile_policy(one) for one in (guard, policy("z", approval=ONE)))
    (one,) = rehearse(request(), compiled, facts(), decide(request(), compiled, facts()))
    assert (one.says, one.differs) == ("Denied", False)


def test_the_longest_wait_is_that_of_the_policies_that_are_used() -> None:
    def longest(*policies: AgentPolicy) -> timedelta:
        return Policies.of(compile_policy(one) for one in policies).longest_wait

    day = {"timeout": "24h"}
    broken = policy("broken", approval=day, validations=rule("1 +"))
    assert longest() == longest(policy()) == longest(broken, policy("s", mode="Audit", approval=day)) == timedelta()
    assert longest(policy("a", approval=ONE), policy("b", approval={"timeout": "1m"})) == timedelta(minutes=30)
