"""What could be asked for instead, ready to paste into a request?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from valetkey.kinds.access import Access, KubernetesAccess, Rule, Scope
from valetkey.kinds.agentpolicy import AccessCeiling, CeilingScope, Risk
from valetkey.policy.facts import RoleRule
from valetkey.policy.rights import ANY, Rights
from valetkey.policy.risks import risks_of, risks_of_role
from valetkey.policy.substitution import substitute

MAX_TEXT: Final = 2048
_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")

_Roles = Mapping[str, tuple[RoleRule, ...]]


def of_ceiling(
    ceiling: AccessCeiling, parameters: Mapping[str, Any], asked: Access, cluster_roles: _Roles
) -> str | None:
    """The entry as an access that a request may ask for; the whole of it, or the part for the places asked for."""
    if ceiling.kubernetes is None or asked.kubernetes is None:
        return None
    accepted = frozenset(ceiling.kubernetes.risks)
    places = {scope.namespace for scope in asked.kubernetes.scopes}
    whole = [
        part
        for scope in ceiling.kubernetes.scopes
        for part in _parts(scope, parameters, places, accepted, cluster_roles)
    ]
    return _text(whole) or _text(part for part in whole if part.namespace in places)


def without_risks(asked: Access, accepted: Iterable[Risk], cluster_roles: _Roles) -> str | None:
    """What is left of the access without the rights that carry other risks than the accepted."""
    safe = frozenset(accepted)
    scopes = asked.kubernetes.scopes if asked.kubernetes is not None else ()
    return _text(
        part
        for scope in scopes
        for part in _safe_scopes(scope.namespace, scope.rules or (), _role_of(scope), safe, cluster_roles)
    )


def _role_of(scope: Scope) -> tuple[str, ...]:
    return (scope.cluster_role,) if scope.cluster_role is not None else ()


def _parts(
    scope: CeilingScope,
    parameters: Mapping[str, Any],
    places: set[str | None],
    accepted: frozenset[Risk],
    cluster_roles: _Roles,
) -> Iterator[Scope]:
    namespaces: Iterable[str | None] = sorted(substitute(scope.namespaces or (), parameters)[0])
    if scope.cluster:
        # The cluster's scope includes every namespace: offer it no wider than was asked.
        namespaces = sorted(places, key=lambda place: place or "")
    rules = [rule for rule in (_filled(rule, parameters) for rule in scope.rules or ()) if rule is not None]
    for namespace in namespaces:
        here = [rule for rule in rules if rule.non_resource_urls is None or namespace is None]
        yield from _safe_scopes(namespace, here, scope.cluster_roles or (), accepted, cluster_roles)


def _filled(rule: Rule, parameters: Mapping[str, Any]) -> Rule | None:
    if rule.resource_names is None:
        return rule
    names = tuple(sorted(substitute(rule.resource_names, parameters)[0]))
    return rule.model_copy(update={"resource_names": names}) if names else None


def _safe_scopes(
    namespace: str | None,
    rules: Iterable[Rule],
    roles: Iterable[str],
    accepted: frozenset[Risk],
    cluster_roles: _Roles,
) -> Iterator[Scope]:
    safe = [part for rule in rules for part in _safe_rules(rule, accepted)]
    if safe:
        yield Scope.model_construct(namespace=namespace, rules=tuple(safe), cluster_role=None)
    for role in roles:
        if risks_of_role(cluster_roles.get(role)) <= accepted:
            yield Scope.model_construct(namespace=namespace, rules=None, cluster_role=role)


def _safe_rules(rule: Rule, accepted: frozenset[Risk]) -> Iterator[Rule]:
    """The rule as it is, or split by resource with the verbs that carry no other risk."""
    if risks_of(Rights.of(rule)) <= accepted:
        yield rule
        return
    by_verbs: dict[tuple[str, ...], list[str]] = {}
    for resource in rule.resources or ():
        verbs = _VERBS if ANY in rule.verbs else rule.verbs
        one = rule.model_copy(update={"resources": (resource,)})
        safe = tuple(
            verb for verb in verbs if risks_of(Rights.of(one.model_copy(update={"verbs": (verb,)}))) <= accepted
        )
        if safe:
            by_verbs.setdefault(safe, []).append(resource)
    for safe, resources in by_verbs.items():
        yield rule.model_copy(update={"resources": tuple(resources), "verbs": safe})


def _text(scopes: Iterable[Scope]) -> str | None:
    """One line of YAML in flow style, if there is something to paste and a request could hold it."""
    kubernetes = KubernetesAccess.model_construct(scopes=tuple(scopes))
    access = Access.model_construct(kubernetes=kubernetes).to_api()
    text = "access: " + json.dumps(access, ensure_ascii=False)
    try:
        Access.model_validate(access)
    except ValidationError:
        return None
    return text if len(text) <= MAX_TEXT else None
