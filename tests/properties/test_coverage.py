"""Words for whole tasks never weaken a policy, and a grant is held to those that it was given on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.properties.test_approvals import RULES
from tests.unit.policy import given as build
from tests.unit.policy.test_approvals import ITSELF, UNSPOKEN, rule, said
from tests.unit.policy.test_coverage import LATER, word
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy import coverage
from valetkey.policy.compile import Policies
from valetkey.policy.decide import Approved, Decision, Waiting, decide
from valetkey.policy.facts import Facts, Statement, TaskWord

MINUTE = timedelta(minutes=1)

asked = st.builds(
    lambda when, needed, covers: {"approvals": needed, "covers": covers} | ({} if when is None else {"when": when}),
    st.sampled_from((None, None, None, "false", "size(approvals) == 0")),
    st.sampled_from((1, 1, 2, 3)),
    st.sampled_from(("Task", "Task", "Task", "Request")),
)
allows = st.lists(asked, min_size=1, max_size=2).map(
    lambda drawn: [
        build.policy(f"allow-{at}", ttl={"default": "15m"}, approval=approval) for at, approval in enumerate(drawn)
    ]
)
denies = st.sampled_from((None, None, *RULES[3:], UNSPOKEN)).map(
    lambda one: [] if one is None else [build.deny("deny", validations=rule(one))]
)
own_words = st.sampled_from(("ann", "bob", None, None)).map(
    lambda one: () if one is None else (said(one, policy="allow-0", minute=5),)
)
OTHERS: tuple[dict[str, Any], ...] = (
    *[{}] * 8,
    {"allowed": False},
    {"denied_by": "eve"},
    {"policy_generation": 2},
    {"asked": build.request({"parameters": {"deployment": "web"}})},
    {"asked": build.request(access=build.in_shop(build.PODS))},
)
words = st.lists(
    st.tuples(
        st.sampled_from(("ann", "bob", "kim", "ann", "bob", ITSELF)),
        st.sampled_from(("allow-0", "allow-0", "allow-0", "allow-1", "elsewhere")),
        st.sampled_from((5, 12, 20, 60)),
        st.sampled_from(OTHERS),
    ),
    min_size=1,
    max_size=6,
).map(
    lambda drawn: tuple(
        word(username, policy=policy, uid=f"w{at}", name=f"w{at}", until=until * MINUTE, **changes)
        for at, (username, policy, until, changes) in enumerate(drawn)
    )
)


def with_words(own: tuple[Statement, ...], beside: tuple[TaskWord, ...]) -> Facts:
    return build.facts(now=LATER, approvals=own, covering=beside)


def of(*policies: AgentPolicy) -> Policies:
    return Policies.of(map(build.usable, policies))


def rank(decision: Decision) -> int:
    """How much is granted: nothing, not yet, or what is asked."""
    return 2 if isinstance(decision, Approved) else isinstance(decision, Waiting)


@settings(max_examples=400, deadline=None)
@given(allows, denies, own_words, words)
def test_a_grant_rests_on_all_that_its_policy_heard_ends_with_the_first_and_goes_on_with_the_same_words(
    allow: list[AgentPolicy], guards: list[AgentPolicy], own: tuple[Statement, ...], beside: tuple[TaskWord, ...]
) -> None:
    request, policies, facts = build.request(), of(*allow, *guards), with_words(own, beside)
    decision = decide(request, policies, facts)
    resting = [one for one in decision.approvals if one.request] if isinstance(decision, Approved) else []
    event(f"{type(decision).__name__} on {len(resting)} words beside")
    if not isinstance(decision, Approved):
        return
    by_uid = {one.said.uid: one.said for one in beside}
    heard = [
        {
            one.uid
            for one in coverage.counted(request, policies, facts, fewest=fewest).approvals
            if one.until and one.policy == decision.policy.name
        }
        for fewest in (True, False)
    ]
    assert {one.uid for one in resting} in (*heard, set())
    assert len({one.username for one in decision.approvals}) == len(decision.approvals)
    for one in resting:
        assert one.username != ITSELF
        until = by_uid[one.uid].until
        assert until is not None
        assert LATER < decision.not_after(LATER) <= until
    if not resting:
        assert decision.not_after(LATER) == LATER + 15 * MINUTE
    live = tuple(replace(by_uid[one.uid], until=None) for one in resting)
    again = replace(facts, approvals=(*own, *live), covering=(), live=True)
    assert isinstance(decide(request, policies.narrowed(decision.policy.uid), again), Approved)


@settings(max_examples=300, deadline=None)
@given(allows, denies, own_words, words)
def test_they_never_make_an_answer_worse_and_those_that_do_not_count_change_none(
    allow: list[AgentPolicy], guards: list[AgentPolicy], own: tuple[Statement, ...], beside: tuple[TaskWord, ...]
) -> None:
    request, policies, facts = build.request(), of(*allow, *guards), with_words(own, beside)
    without, decision = decide(request, policies, replace(facts, covering=())), decide(request, policies, facts)
    assert rank(decision) >= rank(without)
    counting = tuple(
        one for one in beside if coverage.not_counting(one, request, policies.enforced(one.said.policy), facts) is None
    )
    event(f"{len(counting)} of {len(beside)} count, {type(without).__name__} then {type(decision).__name__}")
    same: Any = decide(request, policies, replace(facts, covering=counting))
    assert _unnamed(same) == _unnamed(decision)
    assert rank(decision) == rank(without) or counting


def _unnamed(decision: Decision) -> Decision:
    return replace(decision, void=()) if isinstance(decision, Waiting) else decision
