"""Is this policy about this agent? Yes, no, or not known."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.identity import Identity
from valetkey.kinds.subjects import Selector, SelectorRequirement, SubjectSelector
from valetkey.policy.facts import Facts


class Selected(Enum):
    """Whether a policy selects an agent."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def selected(policy: AgentPolicy, facts: Facts) -> Selected:
    """Whether the policy is about the agent; unknown where it depends on labels that are not known."""
    if policy.spec.subjects is None:
        return Selected.YES if policy.spec.effect == "Deny" else Selected.NO
    identities = [facts.identity]
    if policy.spec.effect == "Deny" and facts.requester is not None:
        identities.append(facts.requester)  # who may have nothing asks for nobody else, either
    answers = [_matches(subject, identity, facts) for identity in identities for subject in policy.spec.subjects]
    return next((answer for answer in (Selected.YES, Selected.UNKNOWN) if answer in answers), Selected.NO)


def _matches(subject: SubjectSelector, identity: Identity, facts: Facts) -> Selected:
    if subject.namespace is not None and subject.namespace != identity.namespace:
        return Selected.NO
    if subject.service_account is not None and subject.service_account != identity.service_account:
        return Selected.NO
    if subject.pod_selector is not None and not selects(subject.pod_selector, identity.labels):
        return Selected.NO
    if subject.namespace_selector is not None:
        labels = facts.namespaces.get(identity.namespace)
        if labels is None:
            return Selected.UNKNOWN
        if not selects(subject.namespace_selector, labels):
            return Selected.NO
    # An entry that says nothing does not compile; whether it means everyone or nobody, nobody knows.
    criteria = (
        subject.any,
        subject.namespace,
        subject.service_account,
        subject.pod_selector,
        subject.namespace_selector,
    )
    return Selected.UNKNOWN if all(criterion is None for criterion in criteria) else Selected.YES


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels, as metav1.LabelSelector does."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: SelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
