"""Cases: does policy decide as whoever wrote it expects? Pure: a case brings all that its decision reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import Requester, RequestSpec, Subject, Task
from valetkey.kinds.base import Duration, Model, Name, Time, format_duration
from valetkey.kinds.delegation import Account, Delegation, Parent
from valetkey.kinds.delivery import Delivery, SecretDelivery
from valetkey.kinds.identity import Identity
from valetkey.policy.compile import Policies
from valetkey.policy.coverage import LONGEST
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting, decide
from valetkey.policy.facts import Facts, ParentFacts, RoleRule, Statement, TaskWord, Unreviewed
from valetkey.policy.lineage import facts_of

Outcome = Literal["Approved", "Denied", "Undecided", "Waiting"]


class Agent(Model):
    """Who asks."""

    namespace: Name = Field(description="The agent's namespace.")
    service_account: Name = Field(description="The ServiceAccount that its pod runs as.")
    pod_name: Name = Field(default="agent-0", description="Its pod.")
    node_name: Name = Field(default="node-1", description="The node that its pod is on.")
    labels: dict[str, str] = Field(default_factory=dict, description="The labels of its pod.")


class Known(Model):
    """What is known of the cluster; a case changes what its file says."""

    cluster: str | None = Field(default=None, description="The cluster's name. Default: none.")
    now: Time | None = Field(default=None, description="The time. Default: 2026-01-01T12:00:00Z.")
    namespaces: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Labels of namespaces, by name; one that is not here is not known."
    )
    cluster_roles: dict[str, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="Rules of the ClusterRoles that may be handed out, by name."
    )
    active: dict[str, int] = Field(default_factory=dict, description="Live grants of the agent's account, by policy.")
    opened: dict[str, tuple[Time, ...]] = Field(
        default_factory=dict, description="When grants of the agent's account were opened lately, by policy."
    )
    unreviewed: dict[str, tuple[Time, ...]] = Field(
        default_factory=dict,
        description="By when what break-glass policies granted to the agent's account is to be reviewed, by policy.",
    )


class Request(Model):
    """What is asked, as in an AccessRequest."""

    task: Task = Field(description="The task.")
    access: Access = Field(description="What the task needs.")
    ttl: Duration | None = Field(default=None, description="For how long.")
    delegation: Delegation | None = Field(default=None, description="What is handed on, and to whom.")
    delivery: Delivery = Field(
        default=Delivery(secret=SecretDelivery()), description="How the credential reaches the pod. Default: a Secret."
    )


class Covers(Model):
    """An earlier request of the same pod, whose task a person approved whole."""

    request: Request = Field(description="That request.")
    until: Time | None = Field(default=None, description="Until when its task was approved. Default: for an hour.")


class Said(Model):
    """What a person said on the request, who may."""

    by: str = Field(min_length=1, max_length=320, description="The user name.")
    policy: str = Field(description="The policy that asks.")
    verdict: Literal["Approve", "Deny"] = Field(default="Approve", description="Approve or Deny. Default Approve.")
    covers: Covers | None = Field(
        default=None, description="With covers: Task on another request, a minute ago, and not on this one: that."
    )


class ParentCase(Model):
    """The live request that another works for, as it was granted."""

    agent: Agent = Field(description="Who asked it.")
    request: Request = Field(description="What was asked; what it hands on is in its delegation.")
    ends_in: Duration = Field(default=timedelta(minutes=5), description="When its grant ends. Default 5m.")
    act: tuple[Account, ...] = Field(default=(), description="Who handed that on, the nearest first.")


class Case(Model):
    """One request, and what is to become of it."""

    name: str = Field(min_length=1, max_length=256, description="What it shows; a sentence.")
    agent: Agent = Field(description="Who asks.")
    request: Request = Field(description="What is asked.")
    facts: Known = Field(default=Known(), description="What is known, beside and before what the file says.")
    approvals: tuple[Said, ...] = Field(default=(), description="What people have said on it.")
    parent: ParentCase | None = Field(default=None, description="The live request that it works for.")
    expect: Outcome = Field(description="What is decided.")
    policy: str | None = Field(default=None, description="The policy that decides. Left out: whichever.")
    reason: str | None = Field(default=None, description="The reason of a denial, or why it is undecided.")
    ttl: Duration | None = Field(default=None, description="How long an approved grant lives.")


class CaseFile(Model):
    """A file of cases."""

    kind: Literal["PolicyTest"] = Field(description="PolicyTest.")
    facts: Known = Field(default=Known(), description="What is known, for all cases of this file.")
    cases: Annotated[tuple[Case, ...], Field(min_length=1)] = Field(description="The cases.")


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
    agent = case.agent
    return RequestSpec(
        task=asked.task,
        access=asked.access,
        ttl=asked.ttl,
        parent=None if case.parent is None else _named(case.parent),
        delegation=asked.delegation,
        delivery=asked.delivery,
        subject=Subject(pod_name=agent.pod_name, pod_uid="uid"),
        requester=Requester(
            username=f"system:serviceaccount:{agent.namespace}:{agent.service_account}",
            service_account=agent.service_account,
            pod_name=agent.pod_name,
            pod_uid="uid",
            node_name=agent.node_name,
            credential_id="JTI=test",
        ),
    )


def _facts(case: Case, file: Known, policies: Policies) -> Facts:
    own, agent = case.facts, case.agent
    at = own.now or file.now or datetime(2026, 1, 1, 12, tzinfo=UTC)
    return Facts(
        identity=Identity(
            namespace=agent.namespace,
            pod_name=agent.pod_name,
            pod_uid="uid",
            node_name=agent.node_name,
            service_account=agent.service_account,
            labels={"valetkey.dev/agent": "true"} | agent.labels,
        ),
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
