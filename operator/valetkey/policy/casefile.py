"""The file of cases, as whoever writes policies writes it: who asks, what is known, and what is to be decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import Task, Via
from valetkey.kinds.base import Duration, Model, Name, Time
from valetkey.kinds.delegation import Account, Delegation
from valetkey.kinds.delivery import Delivery, SecretDelivery

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
    asked_by: Agent | None = Field(default=None, description="Who asks for it, where that is another pod.")
    via: Via = Field(default="API", description="How it comes in: API or Door. Default API.")
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
