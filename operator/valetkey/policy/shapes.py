"""Is an access written so that it means what it seems to mean?

The API server checks most of this with rules in the kinds; a decision does not rely on it.
"""

from __future__ import annotations

import re
from typing import Final

from valetkey.kinds.access import Access, Rule, Scope
from valetkey.kinds.agentpolicy import AccessCeiling, CeilingScope, PolicySpec
from valetkey.kinds.subjects import SelectorRequirement, SubjectSelector
from valetkey.policy.substitution import referenced

MAX_WORDS: Final = 1024
_RESOURCE: Final = re.compile(r"(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)(/[^*].*)?")
_GROUP: Final = re.compile(r"\*|([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?")
_VERB: Final = re.compile(r"\*|[a-z0-9][-a-z0-9:]*")


class ShapeError(ValueError):
    """Something is written in a way that could be misread; `field` says where."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def check_access(access: Access, field: str = "spec.access") -> None:
    """Raises ShapeError unless every scope and rule of a request can be read in one way only."""
    if access.kubernetes is None:
        raise ShapeError(field, "access has exactly one member: kubernetes")
    words, scopes = 0, f"{field}.kubernetes.scopes"
    for at, scope in enumerate(access.kubernetes.scopes):
        _check_scope(scope, f"{scopes}[{at}]")
        for index, rule in enumerate(scope.rules or ()):
            where = f"{scopes}[{at}].rules[{index}]"
            _check_rule(rule, where)
            if rule.non_resource_urls is not None and scope.namespace is not None:
                raise ShapeError(where, "nonResourceURLs exist in cluster scope only: leave namespace out")
            words += sum(map(len, _lists(rule)))
    if words > MAX_WORDS:
        raise ShapeError(scopes, f"the rules have {words} words in all, at most {MAX_WORDS} are read: ask for less")


def check_ceiling(ceiling: AccessCeiling, field: str) -> None:
    """Raises ShapeError unless an entry of a policy can be read in one way only."""
    if ceiling.kubernetes is None:
        raise ShapeError(field, "an entry has exactly one kind of access: kubernetes")
    for at, scope in enumerate(ceiling.kubernetes.scopes):
        where = f"{field}.kubernetes.scopes[{at}]"
        _check_ceiling_scope(scope, where)
        for index, rule in enumerate(scope.rules or ()):
            _check_rule(rule, f"{where}.rules[{index}]")
            if rule.non_resource_urls is not None and not scope.cluster:
                raise ShapeError(f"{where}.rules[{index}]", "nonResourceURLs exist in cluster scope only")
            fixed = (*(rule.api_groups or ()), *(rule.resources or ()), *(rule.non_resource_urls or ()), *rule.verbs)
            _check_references(f"{where}.rules[{index}]", fixed, rule.resource_names or ())
        _check_references(where, scope.cluster_roles or (), scope.namespaces or ())


def check_subjects(spec: PolicySpec) -> None:
    """Raises ShapeError unless every subject says whom it selects."""
    for at, subject in enumerate(spec.subjects or ()):
        _check_subject(subject, f"spec.subjects[{at}]")


def _check_scope(scope: Scope, field: str) -> None:
    if (scope.rules is None) == (scope.cluster_role is None):
        raise ShapeError(field, "a scope has rules or a clusterRole, one of the two")


def _check_ceiling_scope(scope: CeilingScope, field: str) -> None:
    if (scope.namespaces is None) == (scope.cluster is None):
        raise ShapeError(field, "a scope has namespaces or cluster, one of the two")
    if scope.rules is None and scope.cluster_roles is None:
        raise ShapeError(field, "a scope has rules, clusterRoles or both")


def _check_rule(rule: Rule, field: str) -> None:
    if (rule.resources is None) == (rule.non_resource_urls is None):
        raise ShapeError(field, "a rule names resources or nonResourceURLs, one of the two")
    if (rule.resources is None) != (rule.api_groups is None):
        raise ShapeError(field, 'resources need apiGroups (the core group is "")')
    if rule.resource_names is not None and rule.resources is None:
        raise ShapeError(field, "resourceNames belong to resources")
    if any(not words for words in _lists(rule)):
        raise ShapeError(field, "a list is empty: leave the field out or fill it")
    for group in rule.api_groups or ():
        if group in ("core", "v1") or not _GROUP.fullmatch(group):
            raise ShapeError(f"{field}.apiGroups", 'an API group has no version, and the core group is ""')
    for resource in rule.resources or ():
        if not _RESOURCE.fullmatch(resource):
            raise ShapeError(
                f"{field}.resources",
                "a resource is its plural in lower case, with a subresource as pods/log; RBAC knows no pods/*",
            )
    for verb in rule.verbs:
        if not _VERB.fullmatch(verb):
            raise ShapeError(f"{field}.verbs", 'a verb is a word in lower case, or "*"')


def _lists(rule: Rule) -> list[tuple[str, ...]]:
    lists = (rule.api_groups, rule.resources, rule.resource_names, rule.non_resource_urls, rule.verbs)
    return [words for words in lists if words is not None]


def _check_references(field: str, fixed: tuple[str, ...], open_to_parameters: tuple[str, ...]) -> None:
    if any("$" in word for word in fixed):
        raise ShapeError(field, "$name stands for a parameter in namespaces and resourceNames only")
    if any("$" in word and referenced(word) is None for word in open_to_parameters):
        raise ShapeError(field, "$name stands for a whole word: nothing comes before or after it")


def _check_subject(subject: SubjectSelector, field: str) -> None:
    narrowing = (subject.namespace, subject.namespace_selector, subject.service_account, subject.pod_selector)
    if (subject.any is None) == all(criterion is None for criterion in narrowing):
        raise ShapeError(field, "a subject has any: true, or something to select by")
    for selector in (subject.namespace_selector, subject.pod_selector):
        for requirement in selector.match_expressions if selector is not None else ():
            _check_requirement(requirement, field)


def _check_requirement(requirement: SelectorRequirement, field: str) -> None:
    compares = requirement.operator in ("In", "NotIn")
    if compares != bool(requirement.values):
        raise ShapeError(field, "In and NotIn need values, Exists and DoesNotExist have none")
