"""TaskGrant: what was allowed, written before anything exists; it names all that its revocation needs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.access import Access
from valetkey.kinds.base import Condition, Duration, Metadata, Model, Name, Time, Uid, cel
from valetkey.kinds.delegation import MOST_DEPTH, Account, Delegation, Parent
from valetkey.kinds.delivery import GrantDelivery


class RequestReference(Model):
    """The AccessRequest that this grant answers."""

    name: Name = Field(description="Its name, the same as the grant's.")
    uid: Uid = Field(description="Its uid.")


class PolicyReference(Model):
    """The policy that decided."""

    name: Name = Field(description="Its name.")
    uid: Uid = Field(description="Its uid.")
    generation: int = Field(description="Its generation at the decision.")


class OrderSubject(Model):
    """The pod that the credential is for, as it was verified."""

    namespace: Name = Field(description="The pod's namespace.")
    pod_name: Name = Field(description="The pod's name.")
    pod_uid: Uid = Field(alias="podUID", description="The pod's uid.")
    node_name: Name = Field(description="The pod's node.")
    service_account: Name = Field(description="The pod's ServiceAccount.")


MOST_LABELS: Final = 128


class OrderRequester(Model):
    """The pod that asked, where it is another than the one that receives, as it was verified."""

    pod_name: Name = Field(description="The pod's name.")
    pod_uid: Uid = Field(alias="podUID", description="The pod's uid.")
    node_name: Name = Field(description="The pod's node.")
    service_account: Name = Field(description="The pod's ServiceAccount.")
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=MOST_LABELS)] = Field(
        description="The pod's labels at the decision: what a Deny about it may go by."
    )


class OrderTask(Model):
    """The task, as far as the grant needs to name it."""

    id: str = Field(max_length=128, description="The agent's word for it.")
    purpose: str = Field(max_length=63, description="Its purpose.")


class ApprovalReference(Model):
    """One person's word that the grant rests on."""

    name: Name = Field(description="The AccessApproval's name; its namespace is the grant's.")
    uid: Uid = Field(description="Its uid.")
    username: str = Field(max_length=320, description="Who approved.")
    request: Name | None = Field(
        default=None, description="The other request that it was said on, where it covers this one as of the same task."
    )


class Order(Model):
    """What policy allowed."""

    request_uid: Uid = Field(alias="requestUID", description="The request's uid; all names are made from it.")
    subject: OrderSubject = Field(description="The pod that the credential is for.")
    requester: OrderRequester | None = Field(
        default=None, description="The pod that asked for it, where that is another."
    )
    task: OrderTask = Field(description="The task.")
    policy: PolicyReference = Field(description="The policy that decided.")
    decision: str = Field(max_length=64, description="The decision's id in the log.")
    approvals: tuple[ApprovalReference, ...] = Field(
        default=(),
        max_length=32,
        description="By whose word, where the policy asks for people; the grant ends when one of them takes it back.",
    )
    review_by: Time | None = Field(
        default=None, description="By when somebody has to review it, where the policy is for emergencies."
    )
    parent: Parent | None = Field(
        default=None, description="The request that this one works for; the grant ends with that one's."
    )
    # Absent rather than empty: an operator of the version before reads what no work was handed on for.
    act: Annotated[tuple[Account, ...], Field(max_length=MOST_DEPTH)] | None = Field(
        default=None, description="Whose work it is: the accounts that handed it on, the nearest first."
    )
    among: Annotated[tuple[Account, ...], Field(max_length=16)] | None = Field(
        default=None, description="Every account that may have got some of that work."
    )
    launchers: Annotated[tuple[Account, ...], Field(max_length=MOST_DEPTH + 1)] | None = Field(
        default=None, description="The accounts that asked for it, or for work before it, on behalf of others."
    )
    delegates_pod_templates: bool | None = Field(
        default=None, description="Whether the risk that pod templates are changed goes with what is handed on."
    )
    delegation: Delegation | None = Field(
        default=None, description="What may be handed on, and to whom, as the request says."
    )
    access: Access = Field(description="The rights, exactly.")
    line: str = Field(max_length=2048, description="The rights, on one line.")
    pod_templates: bool = Field(
        default=False, description="Whether the policy accepted the risk that pod templates are changed."
    )
    backstop: bool = Field(
        default=False, description="Whether the policy wants a timer Job, which ends it while the operator is gone."
    )
    heartbeat: Duration | None = Field(
        default=None, description="How often its pod has to say that it still works, where the policy wants that."
    )
    restarts: int | None = Field(
        default=None,
        description="How often the pod's containers had been started again by then: once more, and the grant ends. "
        "Left out where the policy keeps it.",
    )
    opened_at: Time = Field(description="When the grant was opened.")
    not_after: Time = Field(description="When it ends at the latest.")


class PlannedObject(Model):
    """One object that will exist for this grant."""

    kind: Literal["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Job"] = Field(
        description="Its kind."
    )
    namespace: Name | None = Field(default=None, description="Its namespace, if its kind has one.")
    name: Name = Field(description="Its name.")


class KubernetesPlan(Model):
    """The objects that make a Kubernetes credential."""

    account: PlannedObject = Field(description="The account that the credential is of.")
    objects: tuple[PlannedObject, ...] = Field(
        max_length=32, description="Roles and bindings, in the order of the access's scopes."
    )
    timer: PlannedObject | None = Field(
        default=None, description="The Job that owns the account and takes it along when its time is over."
    )


class Plan(Model):
    """The names of everything that will exist; computed before it does, never secret."""

    kubernetes: KubernetesPlan | None = Field(
        default=None, description="The objects that make a Kubernetes credential."
    )


class GrantSpec(Model):
    """What was allowed, and the names of what will exist; written once."""

    request: RequestReference = Field(description="The request that this grant answers.")
    order: Order = Field(description="What policy allowed.")
    plan: Plan = Field(description="The names of everything that will exist.")
    delivery: GrantDelivery = Field(description="Where the credential goes.")


class CredentialStatus(Model):
    """The credential that was made; its id, never the credential."""

    id: str = Field(max_length=128, description="The token's id, as in the API server's audit log.")
    username: str = Field(max_length=512, description="The user that it makes of its holder.")
    issued_at: Time = Field(description="When it was made.")
    expires_at: Time = Field(description="When it dies by itself.")


class MadeObject(Model):
    """One object that was made, by the uid that its deletion will demand."""

    kind: str = Field(max_length=63, description="Its kind.")
    namespace: Name | None = Field(default=None, description="Its namespace, if its kind has one.")
    name: Name = Field(description="Its name.")
    uid: Uid = Field(description="Its uid.")


class GrantEnd(Model):
    """Why the grant ends; written once, before the deletion."""

    reason: str = Field(max_length=64, description="One word for why.")
    message: str = Field(max_length=2048, description="The same for people.")
    at: Time = Field(description="When the end began.")


class GrantStatus(Model):
    """What was observed."""

    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Issued, Delivered, Revoked.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    credential: CredentialStatus | None = Field(default=None, description="The credential that was made.")
    made: tuple[MadeObject, ...] = Field(
        default=(), max_length=64, description="What was made, the delivered Secret included."
    )
    end: GrantEnd | None = Field(default=None, description="Why the grant ends.")


class TaskGrant(BaseModel):
    """The record of one allowed task; while it exists, its credential may be alive."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", json_schema_extra=cel(("self.spec == oldSelf.spec", "spec does not change"))
    )

    metadata: Metadata
    spec: GrantSpec
    status: GrantStatus = GrantStatus()

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, if it was ever written."""
        return next((c for c in self.status.conditions if c.type == kind), None)

    @property
    def ending(self) -> bool:
        """Whether its end has begun: it is written down, or somebody has deleted it."""
        return self.metadata.terminating or self.status.end is not None

    @property
    def delivered(self) -> bool:
        """Whether its credential has reached the agent's pod."""
        delivered = self.condition("Delivered")
        return delivered is not None and delivered.status == "True"
