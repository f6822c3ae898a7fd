"""What every issuer promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple, Protocol

from valetkey.kinds.credential import Credential
from valetkey.kinds.taskgrant import MadeObject, Order, Plan

Proof = Literal["Refused", "Absent"]
"""How it is known that a credential is gone: it was tried and refused, or what it stands on is not there any more."""


class Found(NamedTuple):
    """Something that an issuer made, as it lies there."""

    owner: str
    """The uid of the request that it was made for."""
    made: MadeObject


class Issuer(Protocol):
    """Makes one kind of credential, and unmakes it.

    Methods raise AccessError and nothing else; no message holds a secret. A call that takes longer than a minute, and
    `disable` sooner, is cancelled, wherever it is: so each may find what an earlier one has left half done.
    """

    @property
    def name(self) -> str:
        """The member of the access union that it serves."""
        ...

    @property
    def overrun(self) -> timedelta:
        """How long a credential may outlive its `expires_at` with valetkey gone."""
        ...

    def plan(self, order: Order) -> Plan:
        """The names of everything that will exist; pure, and different orders never share a name."""
        ...

    async def issue(self, order: Order, plan: Plan) -> Credential:
        """Makes exactly what the plan names and compares it with the order; again, it replaces."""
        ...

    async def renew(self, order: Order, plan: Plan) -> Credential:
        """Makes the next credential of a grant that lives on."""
        ...

    async def disable(self, plan: Plan, made: Sequence[MadeObject]) -> None:
        """Takes away what the credential is authorized by, unproved, ahead of all else; succeeds if nothing is there.

        It is tried before each `revoke`, and may be nothing where that is as quick.
        """
        ...

    async def revoke(self, plan: Plan, made: Sequence[MadeObject]) -> Proof:
        """Unmakes the rest and gives the proof that whatever the plan names is gone; succeeds if nothing is there.

        What `disable` has failed to take away, it takes away too, before it says that it was there and is tried again.
        `made` says with which uids; what it does not list is looked up by name.
        """
        ...

    def found(self) -> AsyncIterator[Found]:
        """Whatever is there and provably this issuer's own, what gives rights first."""
        ...

    async def unmake(self, found: Found) -> Proof:
        """Unmakes one such thing, and no other of its name, and gives the proof that it is gone."""
        ...
