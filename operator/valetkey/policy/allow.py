"""Does one Allow grant this request, and if not, how near did it come?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum
from functools import partial

from valetkey.kinds.accessrequest import Denial, RequestSpec
from valetkey.kinds.agentpolicy import AccessCeiling, PolicySpec, Purpose, Risk
from valetkey.kinds.taskgrant import ApprovalReference, PolicyReference
from valetkey.policy import approvals, coverage, delegations, emergencies, limits, lineage, refusals
from valetkey.policy.ceiling import SCOPES, Ceiling, Gap, find_gap
from valetkey.policy.compile import CompiledPolicy
from valetkey.policy.denials import denial, of_handed_on
from valetkey.policy.expressions import EvaluationError, Expression
from valetkey.policy.facts import SHORTEST, Facts
from valetkey.policy.outcomes import Approved, Waiting
from valetkey.policy.parameters import ParameterError, check_parameters
from valetkey.policy.question import Question
from valetkey.reasons import Reason


class Stage(IntEnum):
    """How far a request came with a policy; further is nearer."""

    OVER = 0
    SUBJECT = 1
    VIA = 2
    PURPOSE = 3
    PARAMETERS = 4
    ACCESS = 5
    RISKS = 6
    DELEGATION = 7
    TTL = 8
    DELIVERY = 9
    VALIDATIONS = 10
    LIMITS = 11


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this policy does not grant the request."""

    policy: str
    stage: Stage
    fit: tuple[int, ...]
    """Of two refusals at the stage of access, the one with the higher fit is nearer."""
    tell: Callable[[], Denial]
    """Words it for the agent: of many refusals, only the nearest is told."""


@dataclass(frozen=True, slots=True)
class Failed:
    """This policy cannot say whether it grants the request: one of its rules is neither true nor false."""

    policy: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Fit:
    """The entry that the request lies within."""

    entry: AccessCeiling

    @property
    def risks(self) -> tuple[Risk, ...]:
        return self.entry.kubernetes.risks if self.entry.kubernetes is not None else ()


def consider(compiled: CompiledPolicy, question: Question) -> Approved | Waiting | Refusal | Failed:
    """What an Allow that is about this agent says; the first thing that stands in the way.

    People are asked last, of a new request alone: a live grant held that once, as it did the limits.
    """
    policy, request, facts = compiled.policy, question.request, question.facts
    name, spec = policy.metadata.name, policy.spec

    def refused(stage: Stage, tell: Callable[[], Denial], fit: tuple[int, ...] = ()) -> Refusal:
        return Refusal(name, stage, fit, lambda: tell().model_copy(update={"contact": spec.contact}))

    if is_over(spec, facts):
        return refused(Stage.OVER, partial(refusals.over, name, spec))
    if facts.requester is not None and facts.requester.service_account not in (spec.on_behalf_of or ()):
        return refused(Stage.SUBJECT, partial(refusals.subject_not_allowed, name, facts.requester, facts.identity))
    if spec.via is not None and request.requester.via not in spec.via:
        return refused(Stage.VIA, partial(refusals.via_not_allowed, name, spec.via[0]))
    purpose = _purpose(spec, request.task.purpose)
    if purpose is None:
        return refused(Stage.PURPOSE, partial(refusals.purpose_unknown, request))
    try:
        check_parameters(request.task.parameters, purpose)
    except ParameterError as error:
        return refused(Stage.PARAMETERS, partial(refusals.parameters_invalid, error))
    fitting = _entry(name, compiled.ceilings, question, handed_on=False)
    if not isinstance(fitting, _Fit):
        stage, tell, fit = fitting
        return refused(stage, tell, fit)
    handed_on = _handed_on(name, compiled, question, fitting)
    if isinstance(handed_on, tuple):
        stage, tell, fit = handed_on
        return refused(stage, tell, fit)
    ttl = spec.ttl_default if request.ttl is None else request.ttl
    if ttl > spec.ttl_max:
        return refused(Stage.TTL, partial(refusals.ttl_too_long, name, spec))
    ways = spec.delivery or ("Secret", "Sealed")
    if request.delivery.way not in ways:
        return refused(Stage.DELIVERY, partial(refusals.delivery_not_allowed, name, ways[0]))
    for rule in compiled.rules:
        try:
            holds = _holds(rule.expression, question)
        except EvaluationError:
            return Failed(name, rule.validation.name)
        if not holds:
            return refused(Stage.VALIDATIONS, partial(denial, Reason.VALIDATION_FAILED, rule.validation.message))
    full = emergencies.refused(name, spec, facts) or limits.reached(name, spec, facts)
    if full is not None:
        return refused(Stage.LIMITS, partial(_same, full))  # worded already: it is seldom reached
    given: tuple[ApprovalReference, ...] = ()
    wait: timedelta | None = None
    ends = [spec.until, facts.parent and facts.parent.not_after]
    if spec.approval is not None and not facts.live:
        try:
            people = compiled.approval_when is None or not _holds(compiled.approval_when, question, nowhere=True)
        except EvaluationError:
            return Failed(name, "approval.when")
        if people:
            answer = approvals.asked(name, spec.approval, request, facts)
            if isinstance(answer, Waiting):
                void = (*answer.void, *coverage.told(request, facts, policy))
                return replace(
                    answer, void=void, policy_generation=policy.metadata.generation, covers=spec.approval.covers
                )
            given, wait = answer, spec.approval.wait
        else:
            given = coverage.resting(request, facts, name)
        ends.append(coverage.over_at(request, facts, name))
    reference = PolicyReference(name=name, uid=policy.metadata.uid, generation=policy.metadata.generation)
    return Approved(
        reference,
        fitting.entry.name,
        ttl,
        min((end for end in ends if end), default=None),
        pod_templates=_goes_with(fitting, facts),
        backstop=spec.backstop == "Job",
        heartbeat=None if spec.heartbeat is None else spec.heartbeat.within,
        outlives_restarts=spec.container_restart == "Keep",
        remembers=spec.limits.remembers,
        review_within=None if spec.break_glass is None else spec.break_glass.review,
        act=lineage.act(facts.parent),
        among=lineage.among(facts.parent),
        launchers=lineage.launchers(facts),
        delegates_pod_templates=handed_on,
        approvals=given,
        wait=wait,
    )


def _holds(expression: Expression, question: Question, *, nowhere: bool = False) -> bool:
    """Whether it is true of what is asked for and of each access that is handed on; with `nowhere`, of none of them."""
    if expression.is_true(question.values) is nowhere:
        return False
    return not question.handed_on or not any(expression.is_true(one.values) is nowhere for one in question.handed_on)


def is_over(spec: PolicySpec, facts: Facts) -> bool:
    """Whether the Allow grants nothing any more; a new grant needs some time before the policy's end."""
    return spec.over(facts.now) if facts.live or spec.until is None else spec.until - facts.now < SHORTEST


def _purpose(spec: PolicySpec, name: str) -> Purpose | None:
    return next((purpose for purpose in spec.purposes or () if purpose.name == name), None)


def _goes_with(fit: _Fit, facts: Facts) -> bool:
    """Whether the risk that pod templates are changed is accepted; who works for another has it from that alone."""
    return Risk.POD_TEMPLATES in fit.risks and (facts.parent is None or facts.parent.pod_templates)


def _handed_on(
    name: str, compiled: CompiledPolicy, question: Question, own: _Fit
) -> tuple[Stage, Callable[[], Denial], tuple[int, ...]] | bool:
    """What stands against what the request works for or hands on; each access that is handed on by itself.

    If nothing does, whether the risk that pod templates are changed goes with all of it.
    """
    fits = []
    told = delegations.refused(name, compiled.policy.spec.delegation, question.request)
    if told is not None:
        return Stage.DELEGATION, partial(_same, told), ()
    for at, one in enumerate(question.handed_on):
        fitting = _entry(name, compiled.ceilings, one, handed_on=True)
        if not isinstance(fitting, _Fit):
            stage, tell, fit = fitting
            return stage, partial(_of_handed_on, tell, at), fit
        fits.append(fitting)
    return question.request.delegation is not None and all(_goes_with(fit, question.facts) for fit in fits or (own,))


def _same(told: Denial) -> Denial:
    return told


def _of_handed_on(tell: Callable[[], Denial], at: int) -> Denial:
    return of_handed_on(tell(), at)


def _entry(
    name: str, ceilings: tuple[Ceiling, ...], question: Question, *, handed_on: bool
) -> _Fit | tuple[Stage, Callable[[], Denial], tuple[int, ...]]:
    """The first entry that the request lies within, risks included; otherwise how the nearest one falls short."""
    request, facts = question.request, question.facts
    parameters = request.task.parameters
    risky: tuple[AccessCeiling, str, Risk] | None = None
    nearest: tuple[Gap, AccessCeiling] | None = None
    unknown = None
    for ceiling in ceilings:
        if ceiling.entry.handed_on is not None and not handed_on:
            continue
        entry, gap = ceiling.entry, find_gap(question.asked, ceiling, parameters)
        if gap is not None:
            if nearest is None or gap.fit > nearest[0].fit:
                nearest = gap, entry
            continue
        unknown = unknown or _unknown_role(request, facts)
        if unknown is not None:
            continue
        fit = _Fit(entry)
        refused = next((one for one in question.risks if one.risk not in fit.risks), None)
        if refused is None:
            return fit
        risky = risky or (entry, refused.field, refused.risk)
    if risky is not None:
        return Stage.RISKS, partial(refusals.risk_not_allowed, name, request, facts, *risky), ()
    if unknown is not None:
        return Stage.ACCESS, partial(refusals.role_unknown, *unknown), (1, 0, 0)
    if nearest is None:
        return Stage.ACCESS, partial(denial, Reason.ACCESS_BEYOND_POLICY, f"Policy {name} allows no access."), (0, 0, 0)
    return Stage.ACCESS, partial(refusals.beyond, name, request, facts, *nearest), nearest[0].fit


def _unknown_role(request: RequestSpec, facts: Facts) -> tuple[str, str] | None:
    """A ClusterRole whose rules are not known, and its field: no policy hands it out, for its risks cannot be told."""
    scopes = request.access.kubernetes.scopes if request.access.kubernetes is not None else ()
    for at, scope in enumerate(scopes):
        if scope.cluster_role is not None and scope.cluster_role not in facts.cluster_roles:
            return scope.cluster_role, f"{SCOPES}[{at}].clusterRole"
    return None
