"""Every reason has one place, and it is the place that the design gives it."""

from __future__ import annotations

from itertools import chain

import pytest

from valetkey.controller.refusals import _FINISHED
from valetkey.reasons import CONDITIONS, Reason, Status, place_of

# The design's table, later reasons included: a word that comes to exist must come to exist in this place.
DESIGN: dict[tuple[str, str], dict[Status, str]] = {
    ("AccessRequest", "Identified"): {
        "True": "IdentityVerified",
        "False": "IdentityMismatch PodNotLabelled RequestUnattested",
        "Unknown": "IdentityPending GuardsMissing",
    },
    ("AccessRequest", "Approved"): {
        "True": "PolicyMatched PersonApproved BreakGlassUsed",
        "False": "NoPolicyMatched PolicyDenied AccessBeyondPolicy RiskNotAllowed PurposeUnknown ParametersInvalid "
        "ValidationFailed TTLTooLong DeliveryNotAllowed SubjectNotAllowed ViaNotAllowed LimitReached PersonDenied "
        "ParentNotLive BeyondParent ReviewOverdue StandingPrivilege SharedServiceAccount",
        "Unknown": "AwaitingApproval PoliciesNotReady PoliciesStale EvaluationFailed AuditFeedStale CRDsOutdated",
    },
    ("AccessRequest", "Ready"): {
        "True": "AccessDelivered",
        "False": "AccessNotGranted AccessEnded",
        "Unknown": "AccessInProgress PreviousGrantEnding",
    },
    ("AccessRequest", "Finished"): {
        "True": "RequestInvalid RequestDenied RequestExpired TaskReleased TTLReached PodFinished PodDeleted "
        "RequestDeleted GrantDeleted PolicyChanged HeartbeatLost ContainerRestarted ParentEnded "
        "IntentDrift DeliveryFailed IssueFailed",
        "False": "TaskInProgress",
    },
    ("TaskGrant", "Issued"): {
        "True": "CredentialIssued",
        "False": "OrderInvalid IssuedBeyondOrder",
        "Unknown": "IssuePending BackendUnavailable",
    },
    ("TaskGrant", "Delivered"): {
        "True": "CredentialDelivered",
        "False": "DeliveryConflict DeliveryShared VolumeMissing PublicKeyInvalid",
        "Unknown": "DeliveryPending",
    },
    ("TaskGrant", "Revoked"): {"False": "GrantActive", "Unknown": "RevocationPending RevocationFailed"},
    ("AgentPolicy", "Ready"): {"True": "PolicyCompiled", "False": "ExpressionInvalid ExpressionTooCostly"},
    ("AccessTarget", "Ready"): {"True": "TargetReachable", "False": "TargetRefused", "Unknown": "TargetUnreachable"},
}
PLACES = {
    word: (kind, condition, status)
    for (kind, condition), by_status in DESIGN.items()
    for status, words in by_status.items()
    for word in words.split()
}


def _told() -> list[Reason]:
    return list(chain.from_iterable(reasons for by_status in CONDITIONS.values() for reasons in by_status.values()))


def test_every_reason_belongs_to_exactly_one_condition_of_one_kind() -> None:
    assert sorted(_told()) == sorted(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_where_the_design_has_it(reason: Reason) -> None:
    assert place_of(reason) == PLACES[reason]


def test_every_condition_says_what_each_status_may_carry() -> None:
    assert all(set(by_status) == {"True", "False", "Unknown"} for by_status in CONDITIONS.values())


def test_a_reason_is_one_word_in_camel_case_that_a_condition_can_carry() -> None:
    assert all(reason.isalnum() and reason[0].isupper() and len(reason) <= 64 for reason in Reason)


def test_what_a_refusal_finishes_a_request_with_says_that_it_is_finished() -> None:
    assert {place_of(reason) for reason in _FINISHED.values()} == {("AccessRequest", "Finished", "True")}
