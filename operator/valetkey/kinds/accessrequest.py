"""AccessRequest: what is asked, by whom, for which task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from valetkey.kinds.access import Access, Scope
from valetkey.kinds.base import (
    AT_LEAST_A_SECOND,
    CONTROL,
    HEARTBEAT,
    Condition,
    Duration,
    Metadata,
    Model,
    Name,
    Seconds,
    Time,
    Uid,
    cel,
)
from valetkey.kinds.delegation import Delegation, Parent
from valetkey.kinds.delivery import Delivery, DeliveryStatus, SecretDelivery

PurposeName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")]

Via = Literal["API", "Door"]
"""How a request comes in: the pod made it itself, or the door for it."""


def _as_stored(parameters: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers beyond 64 bits are what the API server has for them: floats, which it writes as digits alone."""
    return {
        name: float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value
        for name, value in parameters.items()
    }


class Task(Model):
    """The task that the access is for, in the agent's words."""

    id: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$",
        description="The agent's own word for this task; joins requests for people and gives no rights.",
    )
    objective: str = Field(
        min_length=1,
        max_length=1024,
        description="What the task is to achieve, for people and the log; never parsed. One line.",
        json_schema_extra=cel((f"!self.matches({CONTROL!r})", "objective is one line without control characters")),
    )
    purpose: PurposeName = Field(description="A purpose that a policy knows.")
    parameters: Annotated[dict[str, Any], AfterValidator(_as_stored)] = Field(
        default_factory=dict,
        max_length=64,
        description="What the purpose's parameters are this time; each a string, a number, a boolean or a list of 64 "
        "strings at most, and 16384 bytes in all at most.",
    )


class Subject(Model):
    """The pod that receives the credential."""

    pod_name: Name = Field(description="The pod's name.")
    pod_uid: Uid = Field(alias="podUID", description="The pod's uid.")


class Requester(Model):
    """Who asked, as the API server authenticated it; filled in at admission and held to it by a guard."""

    username: str = Field(min_length=1, max_length=320, description="The authenticated user name.")
    service_account: Name = Field(description="The pod's ServiceAccount.")
    pod_name: Name = Field(description="The pod that the token is bound to.")
    pod_uid: Uid = Field(alias="podUID", description="That pod's uid.")
    node_name: Name = Field(description="The node that the token names.")
    credential_id: str = Field(
        alias="credentialID", min_length=1, max_length=128, description="The id of the token that was used."
    )
    via: Via = Field(
        default="API",
        description="How the request came in: API, or Door, where the door that the chart installs made it for a pod.",
    )


class RequestSpec(Model):
    """What is asked; it does not change, but for `outcome`, which may appear once."""

    task: Task = Field(description="The task that the access is for.")
    access: Access = Field(description="What the task needs.")
    ttl: Duration | None = Field(
        default=None,
        description="For how long, such as 5m; left out, the policy's default. At least 1s.",
        json_schema_extra=AT_LEAST_A_SECOND,
    )
    delivery: Delivery = Field(
        default=Delivery(secret=SecretDelivery()), description="How the credential reaches the pod."
    )
    subject: Subject = Field(
        description="The pod that receives it: the one that asks, unless a policy's onBehalfOf lets it ask for "
        "another of its namespace. Filled in at admission."
    )
    requester: Requester = Field(description="Who asked. Filled in at admission.")
    parent: Parent | None = Field(
        default=None,
        description="The live request that this one works for. This one gets no more than its parent hands on, and its "
        "grant ends with its parent's.",
    )
    delegation: Delegation | None = Field(
        default=None, description="What other agents may get who work for this request. Left out: nothing."
    )
    outcome: Literal["Succeeded", "Failed", "Cancelled"] | None = Field(
        default=None, description="Set by the agent when its task is over; the access ends then."
    )

    @property
    def for_another(self) -> bool:
        """Whether the pod that asks is another than the one that receives."""
        asks, receives = self.requester, self.subject
        return (asks.pod_name, asks.pod_uid) != (receives.pod_name, receives.pod_uid)

    @property
    def handed_on(self) -> tuple[Access, ...]:
        """Each access that is handed on and need not be asked for."""
        return self.delegation.access or () if self.delegation is not None else ()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Every scope at this cluster's own API server, asked for or handed on."""
        kinds = (access.kubernetes for access in (self.access, *self.handed_on))
        return tuple(scope for kubernetes in kinds if kubernetes is not None for scope in kubernetes.scopes)


class Denial(Model):
    """Why not, and what would pass, for the agent that reads it."""

    reason: str = Field(max_length=64, description="One word for why.")
    message: str = Field(max_length=2048, description="What to change.")
    field: str | None = Field(default=None, max_length=256, description="The field that stands in the way.")
    allowed: str | None = Field(
        default=None, max_length=2048, description="What the nearest policy allows there: to paste, or to choose from."
    )
    retry_after: Duration | None = Field(
        default=None, description="When the same request may succeed; left out, never."
    )
    contact: str | None = Field(default=None, max_length=256, description="Whom to ask.")


class DecisionStatus(Model):
    """What policy said."""

    id: str = Field(max_length=64, description="Names this decision in the log.")
    outcome: Literal["Approved", "Denied", "Pending"] = Field(
        description="Approved, Denied, or Pending while it waits for people."
    )
    policy: str | None = Field(
        default=None, max_length=253, description="The policy that decided, or that people are asked about."
    )
    policy_generation: int | None = Field(
        default=None, description="While it waits for people, the generation of that policy."
    )
    covers: Literal["Request", "Task"] | None = Field(
        default=None, description="While it waits for people, what a word of theirs may cover at most."
    )
    at: Time = Field(description="When.")
    denial: Denial | None = Field(default=None, description="Why not, and what would pass.")


class GrantReference(Model):
    """The TaskGrant that was opened for this request."""

    name: Name = Field(description="Its name, the same as the request's.")
    uid: Uid = Field(description="Its uid.")


class HeartbeatStatus(Model):
    """How its agent keeps the access."""

    within: Duration = Field(
        description="The pod changes the annotation valetkey.dev/heartbeat of this request at least so often."
    )


class RequestStatus(Model):
    """A projection for people and agents."""

    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Identified, Approved, Ready, Finished.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    decision: DecisionStatus | None = Field(default=None, description="What policy said.")
    agent: str | None = Field(default=None, max_length=512, description="Who asked, for the columns.")
    access: str | None = Field(default=None, max_length=2048, description="What was asked, on one line.")
    grant: GrantReference | None = Field(default=None, description="The TaskGrant that was opened.")
    expires_at: Seconds | None = Field(default=None, description="When the access ends at the latest.")
    dead_at: Seconds | None = Field(
        default=None, description="When the credential is dead even if valetkey is not there to take it away."
    )
    delivery: DeliveryStatus | None = Field(default=None, description="Where the credential is.")
    heartbeat: HeartbeatStatus | None = Field(
        default=None, description="How its agent keeps the access; left out where it need do nothing."
    )


def _same(name: str) -> str:
    """CEL that says a field of the spec did not change; optional values (`.?`) would exceed the cost budget."""
    field = RequestSpec.model_fields[name]
    new, old = f"self.spec.{field.alias}", f"oldSelf.spec.{field.alias}"
    return f"{new} == {old}" if field.is_required() else f"(has({new}) ? has({old}) && {new} == {old} : !has({old}))"


def _heartbeat(annotations: object) -> object:
    """Of what may be 65536 bytes, as much as is looked at."""
    if not isinstance(annotations, dict) or not isinstance(annotations.get(HEARTBEAT), str):
        return {}
    return {HEARTBEAT: annotations[HEARTBEAT][:64]}


class RequestMetadata(Metadata):
    """A request's metadata, with its heartbeat."""

    annotations: Annotated[dict[str, str], BeforeValidator(_heartbeat)] = Field(default_factory=dict)


class AccessRequest(BaseModel):
    """A request for access for one task, by the pod that owns it."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra=cel(
            (
                " && ".join(_same(name) for name in RequestSpec.model_fields if name != "outcome"),
                "spec does not change, but for outcome, which may appear once: create another AccessRequest",
            ),
            (
                "!has(oldSelf.spec.outcome) || (has(self.spec.outcome) && self.spec.outcome == oldSelf.spec.outcome)",
                "outcome has been said and does not change",
            ),
        ),
    )

    metadata: RequestMetadata
    spec: RequestSpec
    status: RequestStatus = RequestStatus()

    @property
    def beat(self) -> str | None:
        """What its pod has last said to show that it still works."""
        return self.metadata.annotations.get(HEARTBEAT)

    @property
    def finished(self) -> Condition | None:
        """The condition that says this request is over, if it is."""
        return next((c for c in self.status.conditions if c.type == "Finished" and c.status == "True"), None)
