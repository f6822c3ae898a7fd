"""AccessApproval: what a person says to one request, or to its task; it never grants, for policy is asked again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.base import CONTROL, Metadata, Model, Name, Time, Uid, cel, ruled

_TASK = "(has(self.covers) && self.covers == 'Task')"


class ApprovedRequest(Model):
    """The AccessRequest that is spoken of."""

    name: Name = Field(description="Its name.")
    uid: Uid = Field(description="Its uid: one that is created again under the name is another.")


class Approver(Model):
    """Who speaks, as the API server authenticated it; filled in at admission and held to it by a guard."""

    username: str = Field(min_length=1, max_length=320, description="The authenticated user name.")
    groups: Annotated[tuple[Annotated[str, Field(max_length=320)], ...], Field(max_length=256)] = Field(
        default=(), description="The groups that the user was in."
    )
    credential_id: str | None = Field(
        default=None,
        alias="credentialID",
        min_length=1,
        max_length=256,
        description="The id of the credential that was used, where it has one.",
    )


class ApprovalSpec(Model):
    """What a person says; it does not change: delete it to take it back."""

    model_config = ruled(
        ("self.verdict != 'Deny' || has(self.reason)", "a Deny says why (reason): the agent's owner reads it"),
        ("self.verdict != 'Reviewed' || has(self.reason)", "a review says what was found (reason)"),
        (f"self.verdict == 'Approve' || !{_TASK}", "covers: Task belongs to an Approve; any other is of one request"),
        (f"{_TASK} == has(self.until)", "until belongs to covers: Task, which needs it: until when it covers"),
        (
            f"{_TASK} == has(self.policyGeneration)",
            "policyGeneration belongs to covers: Task, which needs it: the request's status.decision has it",
        ),
    )

    request: ApprovedRequest = Field(description="The AccessRequest, of this namespace.")
    policy: Name = Field(
        description="The AgentPolicy that asks for the approval, or granted what is reviewed; it takes the verb "
        "approve on it to speak."
    )
    verdict: Literal["Approve", "Deny", "Reviewed"] = Field(
        description="Approve or Deny, and one Deny ends the request; or Reviewed, of what a break-glass policy "
        "granted, whether the request is still there or not: once that is in the log it is not taken back."
    )
    reason: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Why, or what a review found; on record, and for a Deny the agent reads it. One line.",
        json_schema_extra=cel((f"!self.matches({CONTROL!r})", "reason is one line without control characters")),
    )
    covers: Literal["Request", "Task"] | None = Field(
        default=None,
        description=(
            "Request, or Task where the policy says so too (approval.covers): with an Approve, further requests of the "
            "same task as well. Those are of the same pod and ServiceAccount, purpose and parameters, ask for no more "
            "access than this one, and policy decides each of them. It ends with this request's deletion and with a "
            "Deny of it. Default Request."
        ),
    )
    until: Time | None = Field(
        default=None,
        description=(
            "With covers: Task, when it ends to cover other requests, and at the latest 24h after it was said; what is "
            "granted with it ends by then."
        ),
    )
    policy_generation: int | None = Field(
        default=None,
        ge=1,
        description=(
            "With covers: Task, the generation of the policy that whoever speaks has seen, as the request's "
            "status.decision shows it. A change of the policy ends what the word covers for requests to come; what is "
            "granted already is held to the policy as ever."
        ),
    )
    approver: Approver = Field(description="Who speaks. Filled in at admission.")


class AccessApproval(BaseModel):
    """A person's word on one request: where a policy asks for it, the request is granted with it alone."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra=cel(
            (
                "self.spec == oldSelf.spec",
                "an approval does not change: delete it, which takes it back, and make another",
            )
        ),
    )

    metadata: Metadata
    spec: ApprovalSpec
