"""Why was it decided so? Each policy, each of its rules, what it read and what it said; for who writes policies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.base import format_duration
from valetkey.policy import allow, deny
from valetkey.policy.compile import CompiledPolicy, Policies, Uncompiled
from valetkey.policy.coverage import counted
from valetkey.policy.expressions import EvaluationError, Values
from valetkey.policy.facts import Facts
from valetkey.policy.outcomes import Approved, Waiting
from valetkey.policy.question import Question
from valetkey.policy.subjects import Selected, selected

Says = Literal["grants", "waits", "refuses", "denies", "does not apply", "cannot say", "cannot be used"]


@dataclass(frozen=True, slots=True)
class RuleSaid:
    """What one rule of a policy said."""

    name: str
    of: str
    """What it was asked about: spec.access, or an access that is handed on."""
    says: Literal["true", "false", "neither"]
    read: Mapping[str, Any]
    """What it read, by variable."""


@dataclass(frozen=True, slots=True)
class PolicySaid:
    """What one policy said, asked by itself."""

    policy: str
    effect: Literal["Allow", "Deny"]
    rehearsed: bool
    """Whether it is in Audit mode, and so decides nothing."""
    says: Says
    why: str
    rules: tuple[RuleSaid, ...]


def explain(request: RequestSpec, policies: Policies, facts: Facts) -> tuple[PolicySaid, ...]:
    """What every policy says to a request, in order of name."""
    question = Question.of(request, counted(request, policies, facts))
    return tuple(_of(one, question) for one in policies.all)


def _of(one: CompiledPolicy | Uncompiled, whole: Question) -> PolicySaid:
    """What one says, which reads the words for it alone where it is an Allow, as in a decision."""
    spec, name = one.policy.spec, one.policy.metadata.name
    question = whole.heard(name) if spec.effect == "Allow" else whole
    says, why = _said(one, question)
    rules: tuple[RuleSaid, ...] = ()
    if isinstance(one, CompiledPolicy) and says != "does not apply":
        handed_on = ((f"spec.delegation.access[{at}]", other) for at, other in enumerate(question.handed_on))
        rules = tuple(
            said for of, other in (("spec.access", question), *handed_on) for said in _rules(one, other.values, of)
        )
    return PolicySaid(name, spec.effect, spec.mode == "Audit", says, why, rules)


def _said(one: CompiledPolicy | Uncompiled, question: Question) -> tuple[Says, str]:
    if isinstance(one, Uncompiled):
        return "cannot be used", one.message
    if one.policy.spec.over(question.facts.now):
        return "does not apply", f"it ended at {one.policy.spec.until}"
    match selected(one.policy, question.facts):
        case Selected.NO:
            return "does not apply", "it is about other agents"
        case Selected.UNKNOWN:
            return "cannot say", "it depends on labels of the agent's namespace, which are not known"
    if one.policy.spec.effect == "Deny":
        told = deny.refuses(one, question)
        if told is None:
            return "does not apply", "it shares no purpose or right with the request, or one of its rules is false"
        return "denies", told.message
    match allow.consider(one, question):
        case Approved() as approved:
            return "grants", f"entry {approved.entry}, for {format_duration(approved.ttl)}"
        case allow.Failed() as failed:
            return "cannot say", f"rule {failed.rule} is neither true nor false for this request"
        case Waiting(needed=needed, approved_by=approved):
            return "waits", f"{len(approved)} of {needed} people have approved"
        case refusal:
            told = refusal.tell()
            return "refuses", f"{told.reason}: {told.message}"


def _rules(one: CompiledPolicy, values: Values, of: str) -> tuple[RuleSaid, ...]:
    said = []
    for rule in one.rules:
        try:
            says: Literal["true", "false", "neither"] = "true" if rule.expression.is_true(values) else "false"
        except EvaluationError:
            says = "neither"
        words = set(re.findall(r"[A-Za-z_]+", rule.validation.expression))
        read = {name: value for name, value in values.named.items() if name in words}
        said.append(RuleSaid(rule.validation.name, of, says, read))
    return tuple(said)
