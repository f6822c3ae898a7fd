"""Ledger: when grants were opened under policies that limit how often; nothing that an agent does shortens it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.base import Metadata, Model, Name, Time, Uid

REMEMBERS: Final = timedelta(hours=1)
"""For how long a grant is remembered; no policy looks back further."""
MOST_OPENED: Final = 2048
"""Grants in one ledger: with the longest names there are they take as much as etcd stores of one object."""


class Opened(Model):
    """One grant, counted from when it was decided."""

    request: Uid = Field(description="The request's uid; each counts once.")
    policy: Name = Field(description="The policy that decided, by name: one that is created anew goes on counting.")
    service_account: Name = Field(description="The agent's ServiceAccount.")
    at: Time = Field(description="When it was decided.")


class LedgerSpec(Model):
    """What was granted in one namespace within the last hour."""

    namespace: Name = Field(description="The agents' namespace; the ledger's own name is its uid.")
    opened: tuple[Opened, ...] = Field(
        default=(), max_length=MOST_OPENED, description="Grants of policies with limits.perHour or limits.cooldown."
    )


class Ledger(BaseModel):
    """How often policies that limit that have granted in one namespace; written by the operator alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metadata: Metadata
    spec: LedgerSpec
