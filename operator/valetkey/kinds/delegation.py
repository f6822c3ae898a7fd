"""Delegation: work that one request hands on to other agents, who ask for themselves and get no more than it gives."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from valetkey.kinds.access import Access, Namespace
from valetkey.kinds.base import Model, Name, ruled

MOST_DEPTH: Final = 4
_BY_ACCOUNT: Final[dict[str, Any]] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["namespace", "serviceAccount"],
}


class Account(Model):
    """Agents that run as one ServiceAccount."""

    namespace: Namespace = Field(description="Its namespace.")
    service_account: Name = Field(description="Its name.")

    @property
    def username(self) -> str:
        """The name that the API server knows it by."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.service_account}"


_Depth = Annotated[int, Field(ge=1, le=MOST_DEPTH)]


class Parent(Model):
    """The AccessRequest that this one works for."""

    namespace: Namespace = Field(description="Its namespace.")
    name: Name = Field(description="Its name.")
    uid: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")] = Field(
        description="Its uid, which whoever hands work on passes along with it."
    )

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.name}"


class Delegation(Model):
    """What may be handed on, and to whom.

    Each of them asks for itself, names this request as its parent, and is decided by the policies about it.
    """

    to: Annotated[tuple[Account, ...], Field(min_length=1, max_length=16)] = Field(
        description="To agents of these accounts, and to no others, however often it is handed on.",
        json_schema_extra=_BY_ACCOUNT,
    )
    max_depth: _Depth | None = Field(
        default=None,
        description=f"How often it may be handed on: 1, by this request alone; 2, by who gets it once more; at most "
        f"{MOST_DEPTH}. Default 1.",
    )
    access: Annotated[tuple[Access, ...], Field(min_length=1, max_length=4)] | None = Field(
        default=None,
        description="What each of them may get: whatever lies within one of these. It need not be asked for here, and "
        "policy decides on each as if it were. Left out: what spec.access asks for.",
    )

    @property
    def depth(self) -> int:
        """How often it may be handed on."""
        return self.max_depth or 1


class DelegationLimits(Model):
    """Whether what is granted may be handed on, or has to have been."""

    model_config = ruled(
        ("has(self.to) || !has(self.maxDepth)", "maxDepth says how often something is handed on: name to whom (to)"),
        ("has(self.to) || has(self.required)", "delegation says to whom (to), that it is required, or both"),
    )

    to: Annotated[tuple[Account, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None,
        description="Requests may hand work on to these accounts. Left out: to nobody.",
        json_schema_extra=_BY_ACCOUNT,
    )
    max_depth: _Depth | None = Field(
        default=None, description="The largest spec.delegation.maxDepth that a request may have. Default 1."
    )
    required: bool | None = Field(
        default=None, description="Only what works for another request (spec.parent) is granted. Default false."
    )

    @property
    def depth(self) -> int:
        """How often it may be handed on; 0 where to nobody."""
        return 0 if self.to is None else self.max_depth or 1
