"""Does a request lie within one ceiling, or do the two share a right?

A place is a namespace, or the cluster, which includes every namespace and what lies in none. A ceiling's rules add up
within one entry, place by place; two entries never add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from valetkey.kinds.access import Access, Scope
from valetkey.kinds.agentpolicy import AccessCeiling, CeilingScope
from valetkey.policy.facts import RoleRule
from valetkey.policy.rights import Dimension, Rights, missing, overlaps, uncovered
from valetkey.policy.substitution import referenced, substitute

SCOPES: Final = "spec.access.kubernetes.scopes"
_FITTING: Final[Mapping[Dimension, int]] = {
    "nonResourceURLs": 0,
    "resources": 0,
    "apiGroups": 1,
    "resourceNames": 2,
    "verbs": 3,
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a request leaves a ceiling; of two gaps, the one with the higher `fit` is nearer to the ceiling."""

    field: str
    fit: tuple[int, int, int]
    """Rules that are covered; whether the place is; lists of the first uncovered rule that are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, its words read once for all policies."""

    scopes: tuple[tuple[Scope, tuple[Rights, ...]], ...] | None
    """Each scope and its rules; None where the access is of a kind that is not known here."""

    @classmethod
    def of(cls, access: Access) -> Asked:
        """The access, ready for comparison."""
        if access.kubernetes is None:
            return cls(None)
        return cls(tuple((scope, tuple(map(Rights.of, scope.rules or ()))) for scope in access.kubernetes.scopes))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One entry of a policy, its words read once for all decisions."""

    entry: AccessCeiling
    scopes: tuple[_Scope, ...]

    @classmethod
    def of(cls, entry: AccessCeiling) -> Ceiling:
        """The entry, ready for use."""
        scopes = entry.kubernetes.scopes if entry.kubernetes is not None else ()
        return cls(entry, tuple(map(_Scope.of, scopes)))


@dataclass(frozen=True, slots=True)
class _Scope:
    """One scope of a ceiling, each `$name` in it as it is written or, once it is filled in, with what it stands for."""

    namespaces: frozenset[str] | None
    """None is the cluster's scope."""
    rules: tuple[Rights, ...]
    roles: frozenset[str]
    plain: bool
    """Whether no `$name` is in it, so that it means the same to every request."""
    open_ended: bool = False
    """Whether a namespace stands for a parameter that is not there, and so for any."""

    @classmethod
    def of(cls, scope: CeilingScope) -> _Scope:
        rules = tuple(map(Rights.of, scope.rules or ()))
        names = (name for rule in rules for name in rule.names or ())
        return cls(
            namespaces=None if scope.cluster else frozenset(scope.namespaces or ()),
            rules=rules,
            roles=frozenset(scope.cluster_roles or ()),
            plain=not any(map(referenced, (*names, *(scope.namespaces or ())))),
        )

    def filled(self, parameters: Mapping[str, Any], *, missing_is_any: bool) -> _Scope:
        """With these parameters; one that is missing is nothing, or in a Deny anything."""
        if self.plain:
            return self
        namespaces, open_ended = substitute(self.namespaces or (), parameters)
        rules = []
        for rule in self.rules:
            if rule.names is not None:
                names, any_name = substitute(rule.names, parameters)
                # Without this an empty list would be left, which RBAC reads as any name: wanted in a Deny only.
                rule = rule.of_names(None if any_name and missing_is_any else names)
            rules.append(rule)
        return _Scope(
            namespaces=None if self.namespaces is None else namespaces,
            rules=tuple(rules),
            roles=self.roles,
            plain=True,
            open_ended=open_ended and missing_is_any,
        )

    def covers_place(self, namespace: str | None) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    def meets_place(self, namespace: str | None) -> bool:
        return self.open_ended or namespace is None or self.namespaces is None or namespace in self.namespaces


def find_gap(asked: Asked, ceiling: Ceiling, parameters: Mapping[str, Any]) -> Gap | None:
    """Where the access leaves this entry; None where all that it permits is permitted by this one entry."""
    if asked.scopes is None or ceiling.entry.kubernetes is None:
        return Gap("spec.access", (0, 0, 0))
    filled = [scope.filled(parameters, missing_is_any=False) for scope in ceiling.scopes]
    first: Gap | None = None
    covered = 0
    for at, (scope, rules) in enumerate(asked.scopes):
        here = [one for one in filled if one.covers_place(scope.namespace)]
        for gap in _gaps_of(scope, rules, f"{SCOPES}[{at}]", here):
            covered += gap is None
            first = first or gap
    return first and Gap(first.field, (covered, *first.fit[1:]))


def shared_field(
    asked: Asked,
    ceiling: Ceiling,
    parameters: Mapping[str, Any],
    cluster_roles: Mapping[str, tuple[RoleRule, ...]],
) -> str | None:
    """The first field of the access that shares a right with this entry, if any does.

    What is not known counts as shared, since only a Deny asks.
    A ClusterRole that is asked for is compared by name and by its rules; one that the ceiling names, by name: such a
    Deny keeps the role from being handed out, rules keep its rights from being handed out.
    """
    if asked.scopes is None or ceiling.entry.kubernetes is None:
        # Of different kinds they share nothing; of a kind that is not known here, they share everything.
        return None if asked.scopes is not None or ceiling.entry.kubernetes is not None else "spec.access"
    filled = [scope.filled(parameters, missing_is_any=True) for scope in ceiling.scopes]
    for at, (scope, own_rules) in enumerate(asked.scopes):
        here = [one for one in filled if one.meets_place(scope.namespace)]
        rules = [rule for one in here for rule in one.rules]
        field = f"{SCOPES}[{at}]"
        if scope.cluster_role is not None and here:
            known = cluster_roles.get(scope.cluster_role)
            named = any(scope.cluster_role in one.roles for one in here)
            of_role = [Rights.of_role(rule) for rule in known or ()]
            if known is None or named or _share(of_role, rules, scope):
                return f"{field}.clusterRole"
        for index, rule in enumerate(own_rules):
            if _share([rule], rules, scope):
                return f"{field}.rules[{index}]"
    return None


def _share(asked: Sequence[Rights], rules: Sequence[Rights], scope: Scope) -> bool:
    # A path exists in the cluster's scope only: in a namespace, a rule on paths permits nothing.
    return any(overlaps(one, other, urls=scope.namespace is None) for one in asked for other in rules)


def _gaps_of(scope: Scope, asked: Sequence[Rights], field: str, here: Sequence[_Scope]) -> list[Gap | None]:
    """One for each rule of the scope, None where it is covered; a ClusterRole counts as one rule."""
    if not here:
        place = "" if scope.namespace is None else ".namespace"
        return [Gap(f"{field}{place}", (0, 0, 0))] * max(1, len(asked))
    gaps: list[Gap | None] = []
    if scope.cluster_role is not None:
        named = any(scope.cluster_role in one.roles for one in here)
        gaps.append(None if named else Gap(f"{field}.clusterRole", (0, 1, 0)))
    rules = [rule for one in here for rule in one.rules]
    for index, one in enumerate(asked):
        gaps.append(_gap_of_rule(one, rules, f"{field}.rules[{index}]") if uncovered(one, rules) else None)
    return gaps


def _gap_of_rule(asked: Rights, rules: Sequence[Rights], field: str) -> Gap:
    """The list in which the nearest rule of the ceiling falls short."""
    short: list[Dimension] = [dimension for rule in rules if (dimension := missing(asked, rule)) is not None]
    nearest = max(short, key=_FITTING.__getitem__, default=None)
    if nearest is None:
        return Gap(field, (0, 1, 0))
    return Gap(f"{field}.{nearest}", (0, 1, _FITTING[nearest]))
