"""Facts: everything that a decision reads beside the request and the policies, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from valetkey.kinds.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """One rule of a ClusterRole, as RBAC has it; absent lists are empty."""

    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was known at the moment of a decision; recorded whole, so that it can be replayed."""

    identity: Identity
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of each known namespace."""
    cluster: str
    cluster_roles: Mapping[str, tuple[RoleRule, ...]]
    """Rules of each ClusterRole that may be handed out."""
    active: Mapping[str, int]
    """By policy: live or opening grants of this ServiceAccount, this request's own not counted."""
    limit_active: int
    """The limit for policies that name none."""
    live: bool
    """Whether a grant of this request lives already, so that what is asked is whether it may go on."""
    now: datetime
