"""Cases: does policy decide as whoever wrote it expects? Pure: a case brings all that its decision reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from valetkey.kinds.accessrequest import Requester, RequestSpec, Subject
from valetkey.kinds.base import format_duration
from valetkey.kinds.delegation import Parent
from valetkey.kinds.identity import Identity
from valetkey.policy.casefile import Agent, Case, CaseFile, Covers, Known, ParentCase, Request, Said
from valetkey.policy.compile import Policies
from valetkey.policy.coverage import LONGEST
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting, decide
from valetkey.policy.facts import Facts, ParentFacts, RoleRule, Statement, TaskWord, Unreviewed
from valetkey.policy.lineage import facts_of


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case."""

    case: Case
    got: str
    wrong: str
    """What differs from what was expected; empty where nothing does."""


def run(file: CaseFile, policies: Policies) -> Iterable[Result]:
    """Decides every case of a file."""
    for case in file.cases:
        decision = decide(_request(case, case.request), policies, _facts(case, file.facts, policies))
        yield Result(case, _told(decision), _difference(case, decision))


def _request(case: Case, asked: Request) -> RequestSpec:
    agent, asks = case.agent, case.asked_by or case.agent
    return RequestSpec(
        task=asked.task,
        access=asked.access,
        ttl=asked.ttl,
        parent=None if case.parent is None else _named(case.parent),
        delegation=asked.delegation,
        delivery=asked.delivery,
        subject=Subject(pod_name=agent.pod_name, pod_uid="uid"),
        requester=Requester(
            username=f"system:serviceaccount:{asks.namespace}:{asks.service_account}",
            service_account=asks.service_account,
            pod_name=asks.pod_name,
            pod_uid="uid",
            node_name=asks.node_name,
            credential_id="JTI=test",
            via=case.via,
        ),
    )


def _identity(agent: Agent) -> Identity:
    return Identity(
        namespace=agent.namespace,
        pod_name=agent.pod_name,
        pod_uid="uid",
        node_name=agent.node_name,
        service_account=agent.service_account,
        labels={"valetkey.dev/agent": "true"} | agent.labels,
    )


def _facts(case: Case, file: Known, policies: Policies) -> Facts:
    own, agent = case.facts, case.agent
    at = own.now or file.now or datetime(2026, 1, 1, 12, tzinfo=UTC)
    return Facts(
        identity=_identity(agent),
        requester=None if case.asked_by is None else _identity(case.asked_by),
        namespaces=file.namespaces | own.namespaces,
        cluster=own.cluster if own.cluster is not None else file.cluster or "",
        cluster_roles=_roles(file.cluster_roles | own.cluster_roles),
        active=file.active | own.active,
        opened=file.opened | own.opened,
        unreviewed={name: tuple(map(_use, by)) for name, by in (file.unreviewed | own.unreviewed).items()},
        limit_active=20,
        approvals=tuple(_statement(said, at) for said in case.approvals if said.covers is None),
        covering=tuple(_covering(case, said, said.covers, at, policies) for said in case.approvals if said.covers),
        parent=None if case.parent is None else _parent(case.parent, at),
        live=False,
        now=at,
    )


def _named(parent: ParentCase) -> Parent:
    return Parent(namespace=parent.agent.namespace, name="parent", uid="parent")


def _parent(parent: ParentCase, now: datetime) -> ParentFacts:
    return facts_of(
        _named(parent),
        task=parent.request.task,
        account=parent.agent.service_account,
        act=parent.act,
        among=(),
        pod_templates=False,
        access=parent.request.access,
        delegation=parent.request.delegation,
        not_after=now + parent.ends_in,
    )


def _use(review_by: datetime) -> Unreviewed:
    return Unreviewed(request="agents/earlier", uid="uid", at=review_by - timedelta(hours=24), review_by=review_by)


def _statement(said: Said, at: datetime) -> Statement:
    return Statement(
        name=said.by,
        uid=said.by,
        policy=said.policy,
        verdict=said.verdict,
        username=said.by,
        groups=(),
        reason=None,
        at=at,
        allowed=True,
    )


def _covering(case: Case, said: Said, covers: Covers, at: datetime, policies: Policies) -> TaskWord:
    """Said a minute ago, of the policy as it is."""
    policy, before = policies.enforced(said.policy), _statement(said, at - timedelta(minutes=1))
    until = min(covers.until or at + timedelta(hours=1), before.at + LONGEST)
    return TaskWord(
        said=replace(before, request=covers.request.task.id, until=until),
        policy_generation=0 if policy is None else policy.metadata.generation,
        asked=_request(case, covers.request).to_api(),
        denied_by=None,
    )


_FIELDS: Final = {
    "apiGroups": "api_groups",
    "resources": "resources",
    "resourceNames": "resource_names",
    "nonResourceURLs": "non_resource_urls",
    "verbs": "verbs",
}


def _roles(roles: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, tuple[RoleRule, ...]]:
    return {name: tuple(_role_rule(rule) for rule in rules) for name, rules in roles.items()}


def _role_rule(rule: Mapping[str, Any]) -> RoleRule:
    return RoleRule(**{_FIELDS[field]: tuple(values) for field, values in rule.items() if field in _FIELDS})


def _difference(case: Case, decision: Decision) -> str:
    got = {
        "expect": type(decision).__name__,
        "policy": _policy(decision),
        "reason": _reason(decision),
        "ttl": format_duration(decision.ttl) if isinstance(decision, Approved) else None,
    }
    expected = {
        "expect": case.expect,
        "policy": case.policy,
        "reason": case.reason,
        "ttl": None if case.ttl is None else format_duration(case.ttl),
    }
    wrong = [
        f"{field} is {got[field]}, not {value}" for field, value in expected.items() if value not in (None, got[field])
    ]
    return "; ".join(wrong)


def _policy(decision: Decision) -> str | None:
    if isinstance(decision, Approved):
        return decision.policy.name
    return decision.policy if isinstance(decision, Denied | Waiting) else None


def _reason(decision: Decision) -> str | None:
    match decision:
        case Denied(denial=denial):
            return denial.reason
        case Undecided(reason=reason):
            return reason
        case _:
            return None


def _told(decision: Decision) -> str:
    """A decision in words."""
    match decision:
        case Approved(policy=policy, entry=entry):
            return f"Approved by {policy.name}, entry {entry}"
        case Denied(denial=denial):
            return f"Denied, {denial.reason}: {denial.message}"
        case Waiting(policy=asks, needed=needed, approved_by=approved):
            return f"Waiting: policy {asks} asks for {needed}, {len(approved)} have approved"
        case Undecided(reason=reason, message=message):
            return f"Undecided, {reason}: {message}"
