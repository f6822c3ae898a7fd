"""Who can? The policies read backwards: from a right to whoever may get it, for which purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from valetkey.kinds.access import Access, KubernetesAccess, Rule, Scope
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.base import format_duration
from valetkey.kinds.subjects import SubjectSelector
from valetkey.policy.ceiling import Asked, shared_field
from valetkey.policy.compile import CompiledPolicy, Policies, Uncompiled


@dataclass(frozen=True, slots=True)
class May:
    """One policy that is about a right."""

    policy: str
    effect: str
    rehearsed: bool
    subjects: tuple[str, ...]
    purposes: tuple[str, ...]
    entry: str
    conditions: tuple[str, ...]
    """What else has to be so: names of rules, a person's approval."""


def who_can(policies: Policies, verb: str, resource: str, group: str, namespace: str | None) -> tuple[May, ...]:
    """Every policy one of whose entries shares this right, whatever name; those of either effect, in order of name.

    An Allow may give it, where its rules are true; a Deny that is here may take it away again. One that cannot be used
    is here whatever its entries: an Allow gives nothing, a Deny holds up whatever it may be about.
    """
    rule = Rule(api_groups=(group,), resources=(resource,), verbs=(verb,))
    access = Access(kubernetes=KubernetesAccess(scopes=(Scope(namespace=namespace, rules=(rule,)),)))
    asked = Asked.of(access)
    return tuple(may for one in policies.all for may in _of(one, asked))


def _of(one: CompiledPolicy | Uncompiled, asked: Asked) -> Iterator[May]:
    spec = one.policy.spec
    if isinstance(one, Uncompiled):
        entries = ["cannot be used"]
    elif spec.access is None:
        entries = ["every access"]
    else:
        shared = (ceiling.entry for ceiling in one.ceilings if shared_field(asked, ceiling, {}, {}) is not None)
        entries = [f"{entry.name} (to hand on only)" if entry.handed_on else entry.name for entry in shared]
    for entry in entries:
        yield May(
            policy=one.policy.metadata.name,
            effect=spec.effect,
            rehearsed=spec.mode == "Audit",
            subjects=tuple(_subject(subject) for subject in spec.subjects or ()) or ("everybody",),
            purposes=tuple(purpose.name for purpose in spec.purposes or ()) or ("any",),
            entry=entry,
            conditions=tuple(_conditions(spec)),
        )


def _conditions(spec: PolicySpec) -> Iterator[str]:
    yield from (validation.name for validation in spec.validations)
    if spec.approval is not None:
        where = "" if spec.approval.when is None else " where `when` is true"
        yield f"approval by {spec.approval.needed}{where}"
    if spec.break_glass is not None:
        yield "in an emergency, reviewed afterwards"
    if spec.delegation is not None and spec.delegation.required:
        yield "for another request"
    if spec.via is not None and len(spec.via) == 1:
        yield f"via {spec.via[0]} alone"
    if spec.limits.per_hour is not None:
        yield f"{spec.limits.per_hour} an hour at most"
    if spec.limits.cooldown is not None:
        yield f"{format_duration(spec.limits.cooldown)} apart"
    if spec.until is not None:
        yield f"until {spec.until:%Y-%m-%dT%H:%MZ}"


def _subject(subject: SubjectSelector) -> str:
    if subject.any:
        return "everybody"
    where = subject.namespace or "(namespaces by label)"
    return f"{where}/{subject.service_account or '*'}" + (" (pods by label)" if subject.pod_selector else "")
