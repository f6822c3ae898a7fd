"""Every reason of a condition, each belonging to one condition and one status of it.

The same word is the condition's reason, the Event's reason and the word in the log. What only the log
has, such as that a grant was let go (`audit/history.py`), is no reason.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

Status = Literal["True", "False", "Unknown"]


class Reason(StrEnum):
    """One word for why something is as it is."""

    # AccessRequest Identified
    IDENTITY_VERIFIED = "IdentityVerified"
    IDENTITY_MISMATCH = "IdentityMismatch"
    POD_NOT_LABELLED = "PodNotLabelled"
    REQUEST_UNATTESTED = "RequestUnattested"
    IDENTITY_PENDING = "IdentityPending"
    GUARDS_MISSING = "GuardsMissing"
    # AccessRequest Approved
    POLICY_MATCHED = "PolicyMatched"
    PERSON_APPROVED = "PersonApproved"
    BREAK_GLASS_USED = "BreakGlassUsed"
    PERSON_DENIED = "PersonDenied"
    REVIEW_OVERDUE = "ReviewOverdue"
    PARENT_NOT_LIVE = "ParentNotLive"
    BEYOND_PARENT = "BeyondParent"
    AWAITING_APPROVAL = "AwaitingApproval"
    NO_POLICY_MATCHED = "NoPolicyMatched"
    POLICY_DENIED = "PolicyDenied"
    ACCESS_BEYOND_POLICY = "AccessBeyondPolicy"
    RISK_NOT_ALLOWED = "RiskNotAllowed"
    PURPOSE_UNKNOWN = "PurposeUnknown"
    PARAMETERS_INVALID = "ParametersInvalid"
    VALIDATION_FAILED = "ValidationFailed"
    TTL_TOO_LONG = "TTLTooLong"
    DELIVERY_NOT_ALLOWED = "DeliveryNotAllowed"
    SUBJECT_NOT_ALLOWED = "SubjectNotAllowed"
    VIA_NOT_ALLOWED = "ViaNotAllowed"
    LIMIT_REACHED = "LimitReached"
    POLICIES_NOT_READY = "PoliciesNotReady"
    POLICIES_STALE = "PoliciesStale"
    EVALUATION_FAILED = "EvaluationFailed"
    CRDS_OUTDATED = "CRDsOutdated"
    # AccessRequest Ready
    ACCESS_DELIVERED = "AccessDelivered"
    ACCESS_NOT_GRANTED = "AccessNotGranted"
    ACCESS_ENDED = "AccessEnded"
    ACCESS_IN_PROGRESS = "AccessInProgress"
    PREVIOUS_GRANT_ENDING = "PreviousGrantEnding"
    # AccessRequest Finished; the same words end a TaskGrant
    REQUEST_INVALID = "RequestInvalid"
    REQUEST_DENIED = "RequestDenied"
    REQUEST_EXPIRED = "RequestExpired"
    TASK_RELEASED = "TaskReleased"
    TTL_REACHED = "TTLReached"
    POD_FINISHED = "PodFinished"
    POD_DELETED = "PodDeleted"
    REQUEST_DELETED = "RequestDeleted"
    GRANT_DELETED = "GrantDeleted"
    POLICY_CHANGED = "PolicyChanged"
    HEARTBEAT_LOST = "HeartbeatLost"
    CONTAINER_RESTARTED = "ContainerRestarted"
    PARENT_ENDED = "ParentEnded"
    DELIVERY_FAILED = "DeliveryFailed"
    ISSUE_FAILED = "IssueFailed"
    TASK_IN_PROGRESS = "TaskInProgress"
    # TaskGrant Issued
    CREDENTIAL_ISSUED = "CredentialIssued"
    ORDER_INVALID = "OrderInvalid"
    ISSUED_BEYOND_ORDER = "IssuedBeyondOrder"
    ISSUE_PENDING = "IssuePending"
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    # TaskGrant Delivered
    CREDENTIAL_DELIVERED = "CredentialDelivered"
    DELIVERY_CONFLICT = "DeliveryConflict"
    DELIVERY_SHARED = "DeliveryShared"
    VOLUME_MISSING = "VolumeMissing"
    PUBLIC_KEY_INVALID = "PublicKeyInvalid"
    DELIVERY_PENDING = "DeliveryPending"
    # TaskGrant Revoked
    GRANT_ACTIVE = "GrantActive"
    REVOCATION_PENDING = "RevocationPending"
    REVOCATION_FAILED = "RevocationFailed"
    # AgentPolicy Ready
    POLICY_COMPILED = "PolicyCompiled"
    EXPRESSION_INVALID = "ExpressionInvalid"
    EXPRESSION_TOO_COSTLY = "ExpressionTooCostly"


CONDITIONS: Final[dict[tuple[str, str], dict[Status, frozenset[Reason]]]] = {
    ("AccessRequest", "Identified"): {
        "True": frozenset({Reason.IDENTITY_VERIFIED}),
        "False": frozenset({Reason.IDENTITY_MISMATCH, Reason.POD_NOT_LABELLED, Reason.REQUEST_UNATTESTED}),
        "Unknown": frozenset({Reason.IDENTITY_PENDING, Reason.GUARDS_MISSING}),
    },
    ("AccessRequest", "Approved"): {
        "True": frozenset({Reason.POLICY_MATCHED, Reason.PERSON_APPROVED, Reason.BREAK_GLASS_USED}),
        "False": frozenset(
            {
                Reason.NO_POLICY_MATCHED,
                Reason.POLICY_DENIED,
                Reason.ACCESS_BEYOND_POLICY,
                Reason.RISK_NOT_ALLOWED,
                Reason.PURPOSE_UNKNOWN,
                Reason.PARAMETERS_INVALID,
                Reason.VALIDATION_FAILED,
                Reason.TTL_TOO_LONG,
                Reason.DELIVERY_NOT_ALLOWED,
                Reason.SUBJECT_NOT_ALLOWED,
                Reason.VIA_NOT_ALLOWED,
                Reason.LIMIT_REACHED,
                Reason.PERSON_DENIED,
                Reason.REVIEW_OVERDUE,
                Reason.PARENT_NOT_LIVE,
                Reason.BEYOND_PARENT,
            }
        ),
        "Unknown": frozenset(
            {
                Reason.AWAITING_APPROVAL,
                Reason.POLICIES_NOT_READY,
                Reason.POLICIES_STALE,
                Reason.EVALUATION_FAILED,
                Reason.CRDS_OUTDATED,
            }
        ),
    },
    ("AccessRequest", "Ready"): {
        "True": frozenset({Reason.ACCESS_DELIVERED}),
        "False": frozenset({Reason.ACCESS_NOT_GRANTED, Reason.ACCESS_ENDED}),
        "Unknown": frozenset({Reason.ACCESS_IN_PROGRESS, Reason.PREVIOUS_GRANT_ENDING}),
    },
    ("AccessRequest", "Finished"): {
        "True": frozenset(
            {
                Reason.REQUEST_INVALID,
                Reason.REQUEST_DENIED,
                Reason.REQUEST_EXPIRED,
                Reason.TASK_RELEASED,
                Reason.TTL_REACHED,
                Reason.POD_FINISHED,
                Reason.POD_DELETED,
                Reason.REQUEST_DELETED,
                Reason.GRANT_DELETED,
                Reason.POLICY_CHANGED,
                Reason.HEARTBEAT_LOST,
                Reason.CONTAINER_RESTARTED,
                Reason.PARENT_ENDED,
                Reason.DELIVERY_FAILED,
                Reason.ISSUE_FAILED,
            }
        ),
        "False": frozenset({Reason.TASK_IN_PROGRESS}),
        "Unknown": frozenset(),
    },
    ("TaskGrant", "Issued"): {
        "True": frozenset({Reason.CREDENTIAL_ISSUED}),
        "False": frozenset({Reason.ORDER_INVALID, Reason.ISSUED_BEYOND_ORDER}),
        "Unknown": frozenset({Reason.ISSUE_PENDING, Reason.BACKEND_UNAVAILABLE}),
    },
    ("TaskGrant", "Delivered"): {
        "True": frozenset({Reason.CREDENTIAL_DELIVERED}),
        "False": frozenset(
            {Reason.DELIVERY_CONFLICT, Reason.DELIVERY_SHARED, Reason.VOLUME_MISSING, Reason.PUBLIC_KEY_INVALID}
        ),
        "Unknown": frozenset({Reason.DELIVERY_PENDING}),
    },
    ("TaskGrant", "Revoked"): {
        "True": frozenset(),
        "False": frozenset({Reason.GRANT_ACTIVE}),
        "Unknown": frozenset({Reason.REVOCATION_PENDING, Reason.REVOCATION_FAILED}),
    },
    ("AgentPolicy", "Ready"): {
        "True": frozenset({Reason.POLICY_COMPILED}),
        "False": frozenset({Reason.EXPRESSION_INVALID, Reason.EXPRESSION_TOO_COSTLY}),
        "Unknown": frozenset(),
    },
}
"""Which reasons each condition of each kind may carry, by status."""


def word(text: str) -> Reason | None:
    """The reason that a word stands for; None for one of another version, or of nobody's."""
    try:
        return Reason(text)
    except ValueError:
        return None


def place_of(reason: Reason) -> tuple[str, str, Status]:
    """The kind, condition and status that a reason belongs to."""
    return _PLACES[reason]


_PLACES: Final[dict[Reason, tuple[str, str, Status]]] = {
    reason: (kind, condition, status)
    for (kind, condition), by_status in CONDITIONS.items()
    for status, reasons in by_status.items()
    for reason in reasons
}
