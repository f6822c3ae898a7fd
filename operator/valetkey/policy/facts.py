"""Facts: everything that a decision reads beside the request and the policies, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from valetkey.kinds.identity import Identity

SHORTEST: Final = timedelta(seconds=1)
"""The least that is worth opening a grant for; a live one goes on to its very end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """One rule of a ClusterRole, as RBAC has it; absent lists are empty."""

    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a person said on the request, or on another one of its task, by an AccessApproval."""

    name: str
    uid: str
    policy: str
    """The policy that it is for."""
    verdict: Literal["Approve", "Deny"]
    username: str
    groups: tuple[str, ...]
    reason: str | None
    at: datetime
    """When it was created."""
    allowed: bool
    """Whether its author still had the right, when that was asked for this decision."""
    request: str | None = None
    """The other request that it was said on; None where it was this very one."""
    until: datetime | None = None
    """When it ends to cover others than the request that it was said on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWord:
    """An approval of another request of this pod that may cover this one, and all that this depends on."""

    said: Statement
    policy_generation: int
    """The generation of the policy that whoever speaks has seen."""
    asked: Mapping[str, Any]
    """The spec of the request that it was said on, as the API server has it."""
    denied_by: str | None
    """Who has denied that request, and may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentFacts:
    """The live grant that a request says it works for: what of it may be handed on, to whom, and until when."""

    namespace: str
    name: str
    uid: str
    """Of its request."""
    task: Mapping[str, Any]
    """As its agent says it."""
    account: str
    """The ServiceAccount of its agent."""
    act: tuple[tuple[str, str], ...]
    """Whose work that is: namespace and name of each account that handed it on, the nearest first."""
    to: tuple[tuple[str, str], ...]
    """The accounts that it may be handed on to."""
    launchers: tuple[tuple[str, str], ...] = ()
    """The accounts that asked for it, or for work before it, on behalf of others."""
    among: tuple[tuple[str, str], ...]
    """Every account that may have got some of the work, from its very beginning."""
    pod_templates: bool
    """Whether the risk PodTemplates goes with it."""
    depth: int
    """How often it may be handed on; 0 is not at all."""
    access: tuple[Mapping[str, Any], ...]
    """What may be handed on: each as a request would ask for it."""
    not_after: datetime
    """When the grant ends at the latest."""

    def over(self, now: datetime, *, live: bool) -> bool:
        """Whether it is too late to begin work for it, or where that is live, to go on."""
        return self.not_after <= now if live else self.not_after - now < SHORTEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreviewed:
    """One use of a break-glass policy by this ServiceAccount that nobody has reviewed yet."""

    request: str
    """Namespace and name of the request."""
    uid: str
    """Its uid."""
    at: datetime
    review_by: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was known at the moment of a decision; recorded whole, so that it can be replayed."""

    identity: Identity
    """The pod that receives the access."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of each known namespace."""
    cluster: str
    cluster_roles: Mapping[str, tuple[RoleRule, ...]]
    """Rules of each ClusterRole that may be handed out."""
    active: Mapping[str, int]
    """By policy: live or opening grants of this ServiceAccount, this request's own not counted."""
    opened: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)
    """By policy that limits how often it grants: when grants of this ServiceAccount were opened within the last hour,
    this request's own not counted."""
    unreviewed: Mapping[str, tuple[Unreviewed, ...]] = field(default_factory=dict)
    """By break-glass policy: its uses by this ServiceAccount that nobody has reviewed, this request's not counted."""
    limit_active: int
    """The limit for policies that name none."""
    approvals: tuple[Statement, ...]
    """What people have said on this very request, whether it counts or not.

    Of a live grant's they are those of today: who approved held the right once, at the start; who denies holds it now.
    """
    parent: ParentFacts | None = None
    """What is granted to the request that this one says it works for, while that is live; None where it says none."""
    requester: Identity | None = None
    """The pod that asks, where it is another; of a live grant's its labels may not be known any more."""
    covering: tuple[TaskWord, ...] = ()
    """What people have said on other requests for the whole of their task, whether it counts for this one or not."""
    live: bool
    """Whether a grant of this request lives already, so that what is asked is whether it may go on."""
    now: datetime
