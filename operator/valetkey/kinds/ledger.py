"""Ledger: what was granted by policies that limit how often, or in emergencies; no agent's doing makes it forget."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.base import Metadata, Model, Name, Time, Uid

REMEMBERS: Final = timedelta(hours=1)
"""For how long a grant is remembered; no policy looks back further."""
MOST_OPENED: Final = 2048
"""Grants in one ledger: with the longest names there are they and MOST_EMERGENCIES fit into what etcd stores."""

MOST_EMERGENCIES: Final = 256
"""Uses of break-glass policies in one ledger."""
MOST_UNREVIEWED: Final = 4
"""Of one account by one policy: beyond these somebody has to look first."""


class Opened(Model):
    """One grant, counted from when it was decided."""

    request: Uid = Field(description="The request's uid; each counts once.")
    policy: Name = Field(description="The policy that decided, by name: one that is created anew goes on counting.")
    service_account: Name = Field(description="The agent's ServiceAccount.")
    at: Time = Field(description="When it was decided.")


class Emergency(Model):
    """One use of a break-glass policy that nobody has reviewed yet."""

    request: Uid = Field(description="The request's uid.")
    name: Name = Field(description="The request's name.")
    policy: Name = Field(description="The policy that decided, by name.")
    service_account: Name = Field(description="The agent's ServiceAccount.")
    at: Time = Field(description="When it was decided.")
    review_by: Time = Field(description="By when it has to be reviewed.")


class LedgerSpec(Model):
    """What was granted in one namespace: within the last hour, and in emergencies until somebody has reviewed it."""

    namespace: Name = Field(description="The agents' namespace; the ledger's own name is its uid.")
    opened: tuple[Opened, ...] = Field(
        default=(), max_length=MOST_OPENED, description="Grants of policies with limits.perHour or limits.cooldown."
    )
    emergencies: Annotated[tuple[Emergency, ...], Field(max_length=MOST_EMERGENCIES)] | None = Field(
        default=None, description="Uses of policies with breakGlass that nobody has reviewed yet."
    )


class Ledger(BaseModel):
    """What was granted lately, or in an emergency, in one namespace; written by the operator alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metadata: Metadata
    spec: LedgerSpec
