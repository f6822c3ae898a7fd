"""May this request have what it asks for?

Pure: the same request, policies and facts give the same decision, so that one can be replayed from the log.
A Deny that shares a right with the request always wins. Otherwise the first Allow, by name, that grants it now is used.
What cannot be known is Undecided, and Undecided never grants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valetkey.kinds.accessrequest import Denial, RequestSpec
from valetkey.policy import allow, deny
from valetkey.policy.compile import CompiledPolicy, Policies
from valetkey.policy.denials import add_note, denial
from valetkey.policy.facts import Facts
from valetkey.policy.outcomes import Approved, Decision, Denied, Undecided
from valetkey.policy.parameters import ParameterError, check_size
from valetkey.policy.shapes import ShapeError, check_access
from valetkey.policy.subjects import Selected, selected
from valetkey.policy.variables import variables
from valetkey.reasons import Reason

__all__ = ["Approved", "Decision", "Denied", "Undecided", "decide"]


def decide(request: RequestSpec, policies: Policies, facts: Facts) -> Decision:
    """The decision on a request whose identity was verified."""
    unreadable = _unreadable(request)
    if unreadable is not None:
        return Denied(unreadable, None)
    values = variables(request, facts)
    return _by_deny(request, policies, facts, values) or _by_allow(request, policies, facts, values)


def _unreadable(request: RequestSpec) -> Denial | None:
    """Why no policy is asked at all: the request is too large or can be read in more ways than one."""
    try:
        check_access(request.access)
        check_size(request.task.parameters)
    except ShapeError as error:
        text = str(error)
        return denial(Reason.ACCESS_BEYOND_POLICY, f"{error.field}: {text}.", field=error.field)
    except ParameterError as error:
        return denial(Reason.PARAMETERS_INVALID, error.message, field=error.field)
    return None


def _by_deny(
    request: RequestSpec, policies: Policies, facts: Facts, values: Mapping[str, Any]
) -> Denied | Undecided | None:
    unknown: str | None = None
    for compiled in policies.usable("Deny"):
        if compiled.policy.spec.over(facts.now):
            continue
        about = selected(compiled.policy, facts)
        told = None if about is Selected.NO else deny.refuses(compiled, request, facts, values)
        if told is None:
            continue
        if about is Selected.YES:
            return Denied(told, compiled.policy.metadata.name)
        unknown = unknown or compiled.policy.metadata.name
    if unknown is not None:
        return _namespace_unknown(facts, unknown)
    for broken in policies.unusable("Deny"):
        if selected(broken.policy, facts) is not Selected.NO and not broken.policy.spec.over(facts.now):
            return Undecided(
                Reason.POLICIES_NOT_READY,
                f"Policy {broken.policy.metadata.name} may deny this and cannot be used: nothing is granted until it "
                "is mended.",
            )
    return None


def _by_allow(
    request: RequestSpec, policies: Policies, facts: Facts, values: Mapping[str, Any]
) -> Approved | Denied | Undecided:
    refusals: list[allow.Refusal] = []
    failed: allow.Failed | None = None
    unknown: str | None = None
    about_agent: list[CompiledPolicy] = []
    for compiled in policies.usable("Allow"):
        match selected(compiled.policy, facts):
            case Selected.NO:
                continue
            case Selected.UNKNOWN:
                if not allow.is_over(compiled.policy.spec, facts):
                    unknown = unknown or compiled.policy.metadata.name
                continue
        about_agent.append(compiled)
        match allow.consider(compiled, request, facts, values):
            case Approved() as approved:
                return approved
            case allow.Refusal() as refusal:
                refusals.append(refusal)
            case allow.Failed() as failure:
                failed = failed or failure
    if failed is not None:
        return Undecided(
            Reason.EVALUATION_FAILED,
            f"Rule {failed.rule} of policy {failed.policy} could not be evaluated for this request.",
        )
    if unknown is not None:
        return _namespace_unknown(facts, unknown)
    skipped = _skipped(policies, facts)
    if not refusals:
        return Denied(add_note(_no_policy(facts), skipped), None)
    # max keeps the first of equals, and policies come in order of name.
    nearest = max(refusals, key=lambda refusal: (refusal.stage, refusal.fit))
    told = nearest.denial
    if nearest.stage is allow.Stage.PURPOSE:
        told = told.model_copy(update={"allowed": _purposes(about_agent, facts)})
    return Denied(add_note(told, skipped), nearest.policy)


def _namespace_unknown(facts: Facts, policy: str) -> Undecided:
    return Undecided(
        Reason.POLICIES_NOT_READY,
        f"Whether policy {policy} is about this agent is not known yet: the labels of namespace "
        f"{facts.identity.namespace} are not.",
    )


def _no_policy(facts: Facts) -> Denial:
    identity = facts.identity
    return denial(
        Reason.NO_POLICY_MATCHED,
        f"No policy is about agents that run as {identity.namespace}/{identity.service_account}: nothing can be asked "
        "for until a policy names them. Ask those who run this cluster.",
    )


def _purposes(about_agent: list[CompiledPolicy], facts: Facts) -> str | None:
    specs = [one.policy.spec for one in about_agent]
    names = sorted(
        {purpose.name for spec in specs if not allow.is_over(spec, facts) for purpose in spec.purposes or ()}
    )
    text = "purpose: " + " | ".join(names)
    return text if len(text) <= 2048 else None


def _skipped(policies: Policies, facts: Facts) -> str:
    """Names the Allows about this agent that cannot be used."""
    names = [
        broken.policy.metadata.name
        for broken in policies.unusable("Allow")
        if selected(broken.policy, facts) is not Selected.NO and not allow.is_over(broken.policy.spec, facts)
    ]
    if not names:
        return ""
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"Skipped, since it cannot be used as written: {shown}."
