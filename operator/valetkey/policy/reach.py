"""Can this policy be about any agent at all?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.subjects import SubjectSelector
from valetkey.policy.subjects import selects

Labels = Mapping[str, str]


def reaches(policy: AgentPolicy, served: Collection[str], namespaces: Mapping[str, Labels]) -> bool:
    """Whether a subject of it selects a served namespace, by name or by the labels of those that exist.

    ServiceAccounts and the labels of pods come and go with agents: they are not looked at.
    """
    if policy.spec.subjects is None:
        return policy.spec.effect == "Deny"
    return any(_selects(subject, served, namespaces) for subject in policy.spec.subjects)


def _selects(subject: SubjectSelector, served: Collection[str], namespaces: Mapping[str, Labels]) -> bool:
    selector = subject.namespace_selector
    if selector is not None:
        return any(name in namespaces and selects(selector, namespaces[name]) for name in served)
    return subject.namespace is None or subject.namespace in served
