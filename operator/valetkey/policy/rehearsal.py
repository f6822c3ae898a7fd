"""What would the policies in Audit mode have said, and would it have changed the outcome?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.base import format_duration
from valetkey.policy.compile import CompiledPolicy, Policies
from valetkey.policy.decide import Approved, Decision, Undecided, Waiting, decide
from valetkey.policy.facts import Facts
from valetkey.policy.subjects import Selected, selected

# Each is a decision of its own: without it, whoever may write policies slows down every one and fills the log.
MOST: Final = 16


Word = Literal["Allowed", "Denied", "Undecided", "Waiting", "NotMatched"]
"""An Allow that does not grant and a Deny that does not forbid have not matched."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What one policy in Audit mode would have said to a request."""

    policy: str
    says: Word
    """Its own word, whatever others say."""
    differs: bool
    """Whether the outcome, had it been enforced, would have been another: approved, denied, undecided or waiting."""
    message: str
    """Why, for people."""


def rehearse(request: RequestSpec, policies: Policies, facts: Facts, decision: Decision) -> tuple[Rehearsal, ...]:
    """What each policy in Audit mode that is about this agent would have said; the first 16 by name.

    Each is asked by itself, and then with those that are enforced, never with another one in Audit mode.
    """
    about_agent = (
        one
        for one in policies.rehearsed()
        if not one.policy.spec.over(facts.now) and selected(one.policy, facts) is not Selected.NO
    )
    return tuple(_rehearsal(one, request, policies, facts, decision) for one in islice(about_agent, MOST))


def _rehearsal(
    one: CompiledPolicy, request: RequestSpec, policies: Policies, facts: Facts, decision: Decision
) -> Rehearsal:
    spec = one.policy.spec.model_copy(update={"mode": None})
    enforced = replace(one, policy=one.policy.model_copy(update={"spec": spec}))
    says, message = _word(enforced, decide(request, Policies((enforced,)), facts))
    beside = Policies(tuple(enforced if other is one else other for other in policies.all))
    differs = type(decide(request, beside, facts)) is not type(decision)
    return Rehearsal(one.policy.metadata.name, says, differs, message)


def _word(one: CompiledPolicy, alone: Decision) -> tuple[Word, str]:
    if isinstance(alone, Approved):
        return "Allowed", f"entry {alone.entry}, for {format_duration(alone.ttl)}"
    if isinstance(alone, Waiting):
        return "Waiting", f"for {alone.needed} to approve, of whom {len(alone.approved_by)} have"
    if isinstance(alone, Undecided):
        return "Undecided", alone.message
    if one.policy.spec.effect == "Allow":
        return "NotMatched", alone.denial.message
    if alone.policy is None:
        return "NotMatched", "it is about another purpose or other rights, or one of its rules is false"
    return "Denied", alone.denial.message
