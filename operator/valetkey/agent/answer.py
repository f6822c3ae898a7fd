"""What does a request say: granted, waiting, or over?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from valetkey.agent import durations
from valetkey.agent.errors import AccessError, ApprovalPending, Denied, Ended, NotGranted
from valetkey.agent.sealed import Sealed

Json = dict[str, Any]

_NEVER_GRANTED: Final = {"RequestExpired", "DeliveryFailed", "IssueFailed"}
_DELETED: Final = "RequestDeleted"
_REFUSED_BY: Final = {"RequestInvalid": "Identified", "RequestDenied": "Approved"}


class Answer(NamedTuple):
    """What one version of a request says."""

    sealed: Sealed | None = None
    """What was delivered."""
    awaiting: str | None = None
    """For whom it waits, and until when."""
    over: Denied | NotGranted | Ended | None = None
    """Why it is over: Denied or NotGranted where it was never granted, else Ended."""
    waits_because: str = ""
    """What stands in the way for now."""
    expires_at: datetime | None = None
    heartbeat: timedelta | None = None

    def never_granted(self, request: str, awaited: str | None) -> AccessError:
        """What to raise where it is over before it was granted; `awaited` is for whom it waited last."""
        over = self.over or _deleted()
        if over.reason == "RequestExpired" and awaited is not None:
            return ApprovalPending(awaited, request=request, over=True)
        if over.reason == _DELETED:
            return NotGranted(_DELETED, "the request was deleted before it was granted")
        return over


def read(request: Json | None) -> Answer:
    """Reads a version of a request; None is one that is gone."""
    if request is None or request["metadata"].get("deletionTimestamp"):
        return Answer(over=_deleted())
    status: Json = request.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    return Answer(
        sealed=_sealed(status, conditions),
        awaiting=_message(conditions, "Approved", "Unknown", "AwaitingApproval"),
        over=_over(status, conditions),
        waits_because=_waits_because(conditions),
        expires_at=_time(status.get("expiresAt")),
        heartbeat=durations.read_or_none((status.get("heartbeat") or {}).get("within")),
    )


def _sealed(status: Json, conditions: Json) -> Sealed | None:
    found = (status.get("delivery") or {}).get("sealed")
    if not found or conditions.get("Ready", {}).get("status") != "True":
        return None
    grant = status.get("grant") or {}
    return Sealed(
        ciphertext=str(found.get("ciphertext", "")),
        sequence=int(found.get("sequence", -1)),
        grant_uid=str(grant.get("uid", "")),
    )


def _over(status: Json, conditions: Json) -> Denied | NotGranted | Ended | None:
    finished = conditions.get("Finished", {})
    if finished.get("status") != "True":
        return None
    reason, message = str(finished.get("reason")), str(finished.get("message"))
    if reason in _NEVER_GRANTED:
        return NotGranted(reason, message)
    if reason not in _REFUSED_BY:
        return Ended(reason, message)
    decision = status.get("decision") or {}
    denial = decision.get("denial") if reason == "RequestDenied" else None
    # Which word of which condition refused says more than that it was refused.
    refused = conditions.get(_REFUSED_BY[reason], {})
    if refused.get("status") == "False":
        reason, message = str(refused["reason"]), str(refused["message"])
    return Denied(reason, message, denial, str(decision.get("id") or ""))


def _deleted() -> Ended:
    return Ended(_DELETED, "the request was deleted")


def _waits_because(conditions: Json) -> str:
    for kind in ("Ready", "Approved", "Identified"):
        if (found := conditions.get(kind, {})).get("status") == "Unknown":
            return f"{found['reason']}: {found['message']}"
    return ""


def _message(conditions: Json, kind: str, status: str, reason: str) -> str | None:
    found = conditions.get(kind, {})
    return str(found["message"]) if (found.get("status"), found.get("reason")) == (status, reason) else None


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
