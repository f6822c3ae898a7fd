"""People's words never weaken a policy: nothing is granted that a Deny forbids, or that too few have approved."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.unit.policy import given as build
from tests.unit.policy.test_approvals import ITSELF, rule, said
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy import deny
from valetkey.policy.approvals import counting
from valetkey.policy.compile import Policies
from valetkey.policy.decide import Approved, Denied, Waiting, decide
from valetkey.policy.facts import Facts, Statement
from valetkey.policy.question import Question

RULES = (
    "true",
    "false",
    "claims.task.parameters.absent == 1",
    'approvals.all(a, a.verdict != "Approve")',
    '!approvals.exists(a, a.approver.username == "ann" && a.policy == "allow-0")',
    "size(approvals) < 2",
)
WHENS = (None, "true", "false", "size(approvals) == 0", "claims.task.parameters.absent == 1")

approvals = st.none() | st.builds(
    lambda when, needed: {"approvals": needed} | ({} if when is None else {"when": when}),
    st.sampled_from(WHENS),
    st.integers(1, 3),
)
allows = st.lists(approvals, min_size=1, max_size=3).map(
    lambda drawn: [build.policy(f"allow-{at}", **_given(one)) for at, one in enumerate(drawn)]
)
denies = st.lists(st.lists(st.sampled_from(RULES), max_size=2), max_size=2).map(
    lambda drawn: [
        build.deny(f"deny-{at}", validations=[rule(one)[0] | {"name": f"r{n}"} for n, one in enumerate(rules)])
        for at, rules in enumerate(drawn)
    ]
)
statements = st.lists(
    st.builds(
        lambda username, verdict, policy, allowed, minute, uid: said(
            username, verdict, policy=policy, allowed=allowed, minute=minute, uid=f"u{uid}", name=f"n{uid}"
        ),
        st.sampled_from(("ann", "bob", "kim", ITSELF)),
        st.sampled_from(("Approve", "Approve", "Approve", "Deny")),
        st.sampled_from(("allow-0", "allow-1", "deny-0", "elsewhere")),
        st.booleans() | st.just(True),
        st.integers(0, 3),
        st.integers(),
    ),
    max_size=5,
    unique_by=lambda one: one.uid,
).map(tuple)


def _given(approval: dict[str, Any] | None) -> dict[str, Any]:
    return {} if approval is None else {"approval": approval}


def known(words: tuple[Statement, ...]) -> Facts:
    return build.facts(approvals=words)


@settings(max_examples=300, deadline=None)
@given(allows, denies, statements)
def test_what_is_granted_no_deny_forbids_and_as_many_people_as_are_asked_have_approved(
    allow: list[AgentPolicy], guards: list[AgentPolicy], words: tuple[Statement, ...]
) -> None:
    request, facts = build.request(), known(words)
    compiled = {one.metadata.name: build.usable(one) for one in (*allow, *guards)}
    decision = decide(request, Policies.of(compiled.values()), facts)
    event(type(decision).__name__)
    granting = decision.policy.name if isinstance(decision, Approved) else None
    question = Question.of(request, facts)
    question = question if granting is None else question.heard(granting)
    denying = ((name, one) for name, one in compiled.items() if name.startswith("deny"))
    refusing = [name for name, one in denying if deny.refuses(one, question) is not None]
    if isinstance(decision, Approved):
        assert not refusing
        spec = compiled[decision.policy.name].policy.spec
        people = {one.username for one in decision.approvals}
        uids = {one.uid for one in counting(request, facts) if one.verdict == "Approve"}
        assert {one.uid for one in decision.approvals} <= uids
        assert ITSELF not in people
        if spec.approval is not None and (spec.approval.when in (None, "true")):
            assert len(people) == len(decision.approvals) == spec.approval.needed
    if isinstance(decision, Waiting):
        assert not [name for name in refusing if not compiled[name].reads_approvals]
        assert len(decision.approved_by) < decision.needed
    if any(one.verdict == "Deny" and one.policy in compiled for one in counting(request, facts)):
        assert isinstance(decision, Denied)


@settings(max_examples=200, deadline=None)
@given(allows, denies, statements, st.sampled_from(RULES))
def test_one_more_deny_never_grants_what_waits_or_is_denied(
    allow: list[AgentPolicy], guards: list[AgentPolicy], words: tuple[Statement, ...], more: str
) -> None:
    before = build.decided(build.request(), *allow, *guards, known=known(words))
    guard = build.deny("a-first", validations=rule(more))
    after = build.decided(build.request(), *allow, *guards, guard, known=known(words))
    event(f"{type(before).__name__} then {type(after).__name__}")
    assert isinstance(before, Approved) or not isinstance(after, Approved)


@settings(max_examples=200, deadline=None)
@given(allows, denies, statements)
def test_what_does_not_count_changes_nothing(
    allow: list[AgentPolicy], guards: list[AgentPolicy], words: tuple[Statement, ...]
) -> None:
    request = build.request()
    heard = counting(request, known(words))
    everything = build.decided(request, *allow, *guards, known=known(words))
    counted = build.decided(request, *allow, *guards, known=known(heard))
    if isinstance(everything, Waiting):
        assert isinstance(counted, Waiting)
        assert everything.approved_by == counted.approved_by
    else:
        assert everything == counted
