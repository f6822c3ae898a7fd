"""May this request have what it asks for?

Pure: the same request, policies and facts give the same decision, so that one can be replayed from the log.
A Deny that shares a right with the request always wins. Otherwise the first Allow, by name, that grants it now is used;
if none does, the first that waits for people. Policies for emergencies (breakGlass) come after all others, and are used
only where none of those knows the purpose: what one of them refuses, or cannot say, is no emergency. What cannot be
known is Undecided, and Undecided never grants.
What works for another request takes that one's leave first (`lineage`).

A person who may approve for a policy about this agent and says Deny ends it, whatever policies say. A Deny whose rules
read `approvals` may only refuse because nobody has spoken yet: while an Allow waits for people, it is not asked. That
weakens nothing, for nothing is granted before every Deny was asked about the facts that it is granted on.

An Allow's own rules, and every Deny that is asked about what it would grant, read the words for that Allow and no
others: one for a policy that is not there, not enforced, over or about others opens nothing. So a live grant, which is
held to its own Allow, is held to the same words as on the day that it was granted.

What people have said on other requests of the task is heard only where nothing is granted without it, and never makes
of an answer a worse one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from valetkey.kinds.accessrequest import Denial, RequestSpec
from valetkey.policy import allow, coverage, deny, lineage
from valetkey.policy.approvals import counting
from valetkey.policy.compile import CompiledPolicy, Policies
from valetkey.policy.denials import add_note, denial
from valetkey.policy.facts import Facts
from valetkey.policy.outcomes import Approved, Decision, Denied, Undecided, Waiting
from valetkey.policy.parameters import ParameterError, check_size
from valetkey.policy.question import Question
from valetkey.policy.shapes import ShapeError, check_access
from valetkey.policy.subjects import Selected, selected
from valetkey.reasons import Reason

__all__ = ["Approved", "Decision", "Denied", "Undecided", "Waiting", "decide"]

_Said = Approved | Waiting | allow.Refusal | allow.Failed
"""What one Allow says."""


def decide(request: RequestSpec, policies: Policies, facts: Facts) -> Decision:
    """The decision on a request whose identity was verified."""
    policies = policies.of_namespace(facts.identity.namespace)
    unreadable = _unreadable(request)
    if unreadable is not None:
        return Denied(unreadable, None)
    denied = _by_person(request, policies, facts) or _by_parent(request, facts)
    if denied is not None:
        return denied
    alone = _by_policies(request, policies, facts)
    if isinstance(alone, Approved) or not facts.covering:
        return alone
    decision: Decision = alone
    for fewest in (True, False):
        covered = coverage.counted(request, policies, facts, fewest=fewest)
        if covered is facts:
            return alone
        decision = _by_policies(request, policies, covered)
        if isinstance(decision, Approved):
            return decision
    return decision if isinstance(decision, Waiting) else alone


def _by_policies(request: RequestSpec, policies: Policies, facts: Facts) -> Decision:
    question = Question.of(request, facts)
    outcome = _by_allow(question, policies)
    denies = policies.usable("Deny")
    granting = _granting(outcome)
    refused = _by_deny(denies, question if granting is None else question.heard(granting), policies)
    if refused is None:
        return outcome
    whoever_speaks = tuple(one for one in denies if not one.reads_approvals)
    whatever_is_said = _by_deny(whoever_speaks, question, policies)
    if isinstance(outcome, Approved) and whatever_is_said is None:
        return _by_another(denies, question, policies) or refused
    return (whatever_is_said or outcome) if isinstance(outcome, Approved | Waiting) else refused


def _unreadable(request: RequestSpec) -> Denial | None:
    """Why no policy is asked at all: the request is too large or can be read in more ways than one."""
    try:
        check_access(request.access)
        for at, access in enumerate(request.handed_on):
            check_access(access, f"spec.delegation.access[{at}]")
        lineage.check_size(request)
        check_size(request.task.parameters)
    except ShapeError as error:
        text = str(error)
        return denial(Reason.ACCESS_BEYOND_POLICY, f"{error.field}: {text}.", field=error.field)
    except ParameterError as error:
        return denial(Reason.PARAMETERS_INVALID, error.message, field=error.field)
    return None


def _by_person(request: RequestSpec, policies: Policies, facts: Facts) -> Denied | None:
    """The first Deny of a person, for a policy that is about this agent."""
    for said in counting(request, facts):
        policy = policies.enforced(said.policy) if said.verdict == "Deny" else None
        if policy is None or policy.spec.over(facts.now) or selected(policy, facts) is not Selected.YES:
            continue
        why = f": {said.reason}" if said.reason else "."
        return Denied(
            denial(
                Reason.PERSON_DENIED,
                f"{said.username} denied it for policy {said.policy}{why}",
                contact=policy.spec.contact,
            ),
            said.policy,
        )
    return None


def _by_parent(request: RequestSpec, facts: Facts) -> Denied | None:
    told = lineage.refused(request, facts)
    return None if told is None else Denied(told, None)


def _granting(outcome: Decision) -> str | None:
    """The Allow that grants, or would once people have spoken."""
    match outcome:
        case Approved(policy=reference):
            return reference.name
        case Waiting(policy=name):
            return name
    return None


def _by_another(
    denies: tuple[CompiledPolicy, ...], question: Question, policies: Policies
) -> Approved | Waiting | None:
    """The first Allow whose own words content every Deny; or else the first that waits for people."""
    waiting: Waiting | None = None
    for compiled, said in _candidates(question, policies):
        if isinstance(said, Approved):
            heard = question.heard(compiled.policy.metadata.name)
            if _by_deny(denies, heard, policies) is None:
                return said
        if isinstance(said, Waiting):
            waiting = waiting or said
    return waiting


def _candidates(question: Question, policies: Policies) -> Iterator[tuple[CompiledPolicy, _Said | None]]:
    """Each Allow about the agent and what it says; None where it is not known whether it is about the agent.

    Those for emergencies come last, and not at all where another is, or may be, for this purpose.
    """
    facts, known = question.facts, False
    for compiled in policies.usable("Allow"):
        emergency = compiled.policy.spec.break_glass is not None
        if known and emergency:
            return
        match selected(compiled.policy, facts):
            case Selected.YES:
                said = allow.consider(compiled, question.heard(compiled.policy.metadata.name))
                known |= not emergency and _knows_the_purpose(compiled, question)
                yield compiled, said
            case Selected.UNKNOWN if not allow.is_over(compiled.policy.spec, facts):
                known = True
                yield compiled, None


def _by_deny(denies: Iterable[CompiledPolicy], question: Question, policies: Policies) -> Denied | Undecided | None:
    """What these Denies say, and those that cannot be used."""
    facts = question.facts
    unknown: str | None = None
    for compiled in denies:
        if compiled.policy.spec.over(facts.now):
            continue
        about = selected(compiled.policy, facts)
        told = None if about is Selected.NO else deny.refuses(compiled, question)
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


def _by_allow(question: Question, policies: Policies) -> Decision:
    facts = question.facts
    waiting: Waiting | None = None
    refusals: list[allow.Refusal] = []
    failed: allow.Failed | None = None
    unknown: str | None = None
    about_agent: list[CompiledPolicy] = []
    for compiled, said in _candidates(question, policies):
        if said is None:
            unknown = unknown or compiled.policy.metadata.name
            continue
        about_agent.append(compiled)
        match said:
            case Approved() as approved:
                return approved
            case Waiting() as waits:
                waiting = waiting or waits
            case allow.Refusal() as refusal:
                refusals.append(refusal)
            case allow.Failed() as failure:
                failed = failed or failure
    if waiting is not None:
        return waiting
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
    # max keeps the first of equals, and policies come in order of name, those for emergencies last.
    nearest = max(refusals, key=lambda refusal: (refusal.stage, refusal.fit))
    told = nearest.tell()
    if nearest.stage is allow.Stage.PURPOSE:
        told = told.model_copy(update={"allowed": _purposes(about_agent, facts)})
    return Denied(add_note(told, skipped), nearest.policy)


def _knows_the_purpose(compiled: CompiledPolicy, question: Question) -> bool:
    """Whether an Allow is for this purpose, though it may not be for who asks, nor for the way that they came."""
    spec, purpose = compiled.policy.spec, question.request.task.purpose
    return not allow.is_over(spec, question.facts) and any(one.name == purpose for one in spec.purposes or ())


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
