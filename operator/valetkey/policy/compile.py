"""Can this policy be used, and if not, what is wrong with it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final, Literal

from valetkey.kinds.agentpolicy import (
    AccessCeiling,
    AgentPolicy,
    Parameter,
    PolicySpec,
    Purpose,
)
from valetkey.kinds.demands import Approval, BreakGlass, Validation
from valetkey.kinds.ledger import REMEMBERS
from valetkey.policy.ceiling import Ceiling
from valetkey.policy.expressions import (
    Expression,
    ExpressionError,
    check_pattern,
    compile_expression,
    matches_whole,
)
from valetkey.policy.shapes import ShapeError, check_ceiling, check_subjects
from valetkey.policy.substitution import referenced
from valetkey.reasons import Reason

MIN_WITHIN: Final = timedelta(seconds=15)
MAX_WITHIN: Final = timedelta(hours=1)
MIN_WAIT: Final = timedelta(seconds=1)
SHORTEST_COOLDOWN: Final = timedelta(seconds=1)
MAX_WAIT: Final = timedelta(hours=24)
MAX_REVIEW: Final = timedelta(hours=168)
MAX_EMERGENCY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """A validation, compiled."""

    validation: Validation
    expression: Expression


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy that can be used."""

    policy: AgentPolicy
    ceilings: tuple[Ceiling, ...]
    """Its entries, in order."""
    rules: tuple[Rule, ...]
    approval_when: Expression | None = None
    """Where it asks people, if it does not always; compiled."""

    @property
    def reads_approvals(self) -> bool:
        """Whether one of its rules asks what people have said."""
        return any(rule.expression.reads_approvals for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Uncompiled:
    """A policy that cannot be used, and why; it still says whom it is about."""

    policy: AgentPolicy
    reason: Reason
    message: str


@dataclass(frozen=True)
class Policies:
    """Every policy, by name; each name once. Decisions look at those that are enforced, and at no others."""

    all: tuple[CompiledPolicy | Uncompiled, ...]

    @classmethod
    def of(cls, policies: Iterable[CompiledPolicy | Uncompiled]) -> Policies:
        """The collection in order of name."""
        return cls(tuple(sorted(policies, key=lambda compiled: compiled.policy.metadata.name)))

    def of_namespace(self, namespace: str) -> Policies:
        """Those that may be about agents of a namespace: all but what selects others by name alone."""
        known = self._of_namespaces.get(namespace)
        if known is None:
            known = Policies(tuple(one for one in self.all if _may_be_about(namespace, one.policy.spec)))
            self._of_namespaces[namespace] = known
        return known

    def narrowed(self, uid: str) -> Policies:
        """Every Deny, and of the Allows only the one of that uid: what a live grant is held to."""
        return Policies(
            tuple(one for one in self.all if one.policy.spec.effect == "Deny" or one.policy.metadata.uid == uid)
        )

    def enforced(self, name: str) -> AgentPolicy | None:
        """The policy of that name, if it is enforced, can be used or not."""
        return next(
            (one.policy for one in self.all if one.policy.metadata.name == name and one.policy.spec.enforced), None
        )

    def usable(self, effect: Literal["Allow", "Deny"]) -> tuple[CompiledPolicy, ...]:
        """Those that can be used and are enforced, of one effect; those for emergencies last."""
        return self._allows if effect == "Allow" else self._denies

    def unusable(self, effect: Literal["Allow", "Deny"]) -> Iterator[Uncompiled]:
        """Those that cannot be used and would be enforced, of one effect."""
        return (one for one in self._broken if one.policy.spec.effect == effect)

    def rehearsed(self) -> Iterator[CompiledPolicy]:
        """Those that can be used and are not enforced."""
        for one in self.all:
            if isinstance(one, CompiledPolicy) and not one.policy.spec.enforced:
                yield one

    @cached_property
    def longest_wait(self) -> timedelta:
        """The longest that one in use lets a request wait for people; nothing where none does."""
        approvals = (one.policy.spec.approval for one in self._allows)
        return max((approval.wait for approval in approvals if approval is not None), default=timedelta())

    @cached_property
    def needs_ledger(self) -> bool:
        """Whether one in use limits how often it grants, or is for emergencies."""
        specs = [one.policy.spec for one in self._allows]
        return any(spec.limits.remembers or spec.break_glass is not None for spec in specs)

    @cached_property
    def _of_namespaces(self) -> dict[str, Policies]:
        return {}

    @cached_property
    def _allows(self) -> tuple[CompiledPolicy, ...]:
        allows = (one for one in self._usable if one.policy.spec.effect == "Allow")
        return tuple(sorted(allows, key=lambda one: one.policy.spec.break_glass is not None))

    @cached_property
    def _denies(self) -> tuple[CompiledPolicy, ...]:
        return tuple(one for one in self._usable if one.policy.spec.effect == "Deny")

    @property
    def _usable(self) -> Iterator[CompiledPolicy]:
        return (one for one in self.all if isinstance(one, CompiledPolicy) and one.policy.spec.enforced)

    @cached_property
    def _broken(self) -> tuple[Uncompiled, ...]:
        return tuple(one for one in self.all if isinstance(one, Uncompiled) and one.policy.spec.enforced)


def _may_be_about(namespace: str, spec: PolicySpec) -> bool:
    return spec.subjects is None or any(subject.namespace in (None, namespace) for subject in spec.subjects)


def compile_policy(policy: AgentPolicy) -> CompiledPolicy | Uncompiled:
    """Makes a policy ready for use, or says where and what is wrong."""
    spec = policy.spec
    try:
        _check_whole(spec)
        check_subjects(spec)
        for at, purpose in enumerate(spec.purposes or ()):
            _check_purpose(purpose, f"spec.purposes[{at}]")
        for at, ceiling in enumerate(spec.access or ()):
            check_ceiling(ceiling, f"spec.access[{at}]")
            _check_references(ceiling, spec, f"spec.access[{at}]")
        rules = tuple(_compiled(validation, at) for at, validation in enumerate(spec.validations))
        when = _compiled_when(spec.approval)
    except ShapeError as error:
        return Uncompiled(policy, Reason.EXPRESSION_INVALID, f"{error.field}: {error}")
    except ExpressionError as error:
        return Uncompiled(policy, error.reason, str(error))
    return CompiledPolicy(policy, tuple(map(Ceiling.of, spec.access or ())), rules, when)


def _compiled(validation: Validation, at: int) -> Rule:
    try:
        return Rule(validation, compile_expression(validation.expression))
    except ExpressionError as error:
        raise ExpressionError(error.reason, f"spec.validations[{at}].expression ({validation.name}): {error}") from None


def _compiled_when(approval: Approval | None) -> Expression | None:
    if approval is None or approval.when is None:
        return None
    try:
        return compile_expression(approval.when)
    except ExpressionError as error:
        raise ExpressionError(error.reason, f"spec.approval.when: {error}") from None


def _check_whole(spec: PolicySpec) -> None:
    if spec.effect == "Allow":
        for field, value in (("subjects", spec.subjects), ("purposes", spec.purposes), ("access", spec.access)):
            if not value:
                raise ShapeError(f"spec.{field}", "an Allow says whom, for what and which access")
    elif spec.approval is not None:
        raise ShapeError("spec.approval", "it belongs to an Allow; a Deny may read approvals in its validations")
    elif spec.delegation is not None:
        raise ShapeError("spec.delegation", "it belongs to an Allow; a Deny holds for what is handed on, too")
    elif spec.break_glass is not None:
        raise ShapeError("spec.breakGlass", "it belongs to an Allow")
    elif any(ceiling.handed_on for ceiling in spec.access or ()):
        raise ShapeError("spec.access", "handedOn belongs to an Allow; a Deny holds for what is handed on, too")
    elif spec.backstop is not None:
        raise ShapeError("spec.backstop", "it belongs to an Allow; a Deny makes nothing that would need a timer")
    elif spec.on_behalf_of is not None:
        raise ShapeError("spec.onBehalfOf", "it belongs to an Allow; a Deny holds for whoever asks and for whom, too")
    elif spec.via is not None:
        raise ShapeError("spec.via", "it belongs to an Allow; a Deny holds for whatever way a request comes in")
    elif spec.heartbeat is not None or spec.container_restart is not None:
        raise ShapeError("spec", "heartbeat and containerRestart belong to an Allow; a Deny keeps nothing alive")
    elif any(ceiling.kubernetes is not None and ceiling.kubernetes.risks for ceiling in spec.access or ()):
        raise ShapeError("spec.access", "risks are accepted by an Allow; a Deny names the rights")
    if spec.break_glass is not None:
        _check_break_glass(spec.break_glass, spec)
    if any(ceiling.handed_on for ceiling in spec.access or ()) and (spec.delegation is None or not spec.delegation.to):
        raise ShapeError("spec.access", "handedOn: Only gives nothing where delegation.to names nobody")
    if spec.ttl_default > spec.ttl_max:
        raise ShapeError("spec.ttl", "default is longer than max")
    if spec.heartbeat is not None and not MIN_WITHIN <= spec.heartbeat.within <= MAX_WITHIN:
        raise ShapeError("spec.heartbeat.within", "at least 15s and at most 1h")
    cooldown = spec.limits.cooldown
    if cooldown is not None and not SHORTEST_COOLDOWN <= cooldown <= REMEMBERS:
        raise ShapeError("spec.limits.cooldown", "at least 1s and at most 1h")
    if spec.approval is not None and not MIN_WAIT <= spec.approval.wait <= MAX_WAIT:
        raise ShapeError("spec.approval.timeout", "at least 1s and at most 24h")


def _check_break_glass(break_glass: BreakGlass, spec: PolicySpec) -> None:
    if spec.approval is not None:
        raise ShapeError("spec.breakGlass", "it is for when nobody can be asked: leave approval out")
    if not MIN_WAIT <= break_glass.review <= MAX_REVIEW:
        raise ShapeError("spec.breakGlass.reviewWithin", "at least 1s and at most 168h")
    if not MIN_WAIT <= break_glass.longest <= MAX_EMERGENCY:
        raise ShapeError("spec.breakGlass.maxTTL", "at least 1s and at most 1h")


def _check_purpose(purpose: Purpose, field: str) -> None:
    for name, parameter in purpose.parameters.items():
        where = f"{field}.parameters.{name}"
        text = parameter.type in ("string", "array")
        number = parameter.type in ("integer", "number")
        if not text and (parameter.pattern, parameter.enum, parameter.max_length) != (None, None, None):
            raise ShapeError(where, "pattern, enum and maxLength belong to strings")
        if not number and (parameter.minimum, parameter.maximum) != (None, None):
            raise ShapeError(where, "minimum and maximum belong to numbers")
        if parameter.minimum is not None and parameter.maximum is not None and parameter.minimum > parameter.maximum:
            raise ShapeError(where, "minimum is greater than maximum")
        _check_pattern(parameter, where)


def _check_pattern(parameter: Parameter, where: str) -> None:
    if parameter.pattern is None:
        return
    try:
        check_pattern(parameter.pattern)
    except ExpressionError as error:
        raise ShapeError(f"{where}.pattern", str(error)) from None
    for value in parameter.enum or ():
        if not matches_whole(parameter.pattern, value):
            raise ShapeError(f"{where}.enum", "a value does not match the pattern")


def _check_references(ceiling: AccessCeiling, spec: PolicySpec, field: str) -> None:
    """Every `$name` stands for text in every purpose; under Allow it is always there."""
    for name in sorted(_references(ceiling)):
        for purpose in spec.purposes or ():
            parameter = purpose.parameters.get(name)
            if parameter is None or parameter.type not in ("string", "array"):
                raise ShapeError(field, f"${name} is no parameter of strings in purpose {purpose.name}")
            if spec.effect == "Allow" and not parameter.required:
                raise ShapeError(field, f"${name} is not a required parameter in purpose {purpose.name}")


def _references(ceiling: AccessCeiling) -> set[str]:
    words: list[str] = []
    for scope in ceiling.kubernetes.scopes if ceiling.kubernetes is not None else ():
        words += scope.namespaces or ()
        for rule in scope.rules or ():
            words += rule.resource_names or ()
    return {name for word in words if (name := referenced(word)) is not None}
