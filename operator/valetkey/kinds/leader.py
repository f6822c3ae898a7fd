"""Leader: which of the operator's replicas writes; all fields but one are those of a Lease (coordination.k8s.io/v1).

It is a kind of its own because the guard `fence` has it as its parameter. The API server's informer of a built-in kind
never starts again once the last policy that reads it was deleted, so a chart installed anew would be judged by what the
Lease said before (Kubernetes 1.36, apiserver/pkg/admission/plugin/policy/generic/policy_source.go).
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.base import Metadata, Model, Time

MOST_TRANSITIONS: Final = 2**31 - 1
"""As of a Lease; after it comes 0."""


class LeaderSpec(Model):
    """Who leads, and since when."""

    holder_identity: str = Field(
        max_length=512, description="The pod that leads, <name>_<uid>; empty where the last one has let go."
    )
    lease_duration_seconds: int = Field(ge=1, le=60, description="How long it leads after its last renewal.")
    acquire_time: Time = Field(description="Since when it leads.")
    renew_time: Time = Field(description="When it last said that it does.")
    lease_transitions: int = Field(ge=0, le=MOST_TRANSITIONS, description="How often another came to lead.")
    restored_at: Time | None = Field(
        default=None,
        description="When the cluster's store was last found to have been restored; what was made before is over.",
    )


class Leader(BaseModel):
    """Which of the operator's replicas leads; made and renewed by the operator."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metadata: Metadata
    spec: LeaderSpec
