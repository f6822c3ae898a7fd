"""How an agent is told what has become of its request, and why there is none: one shape of JSON each."""

from __future__ import annotations

from typing import Any, Final

import orjson

from valetkey.kube.api import ApiError, Json
from valetkey.messages import Answer, RefusedError

PATH: Final = "/v1/accessrequests"
_JSON: Final = "Content-Type: application/json"
_SOON: Final = "Retry-After: 1"
_DENIAL: Final = ("reason", "message", "field", "allowed", "retryAfter", "contact")
_REASONS: Final = {
    "400": "BadRequest",
    "401": "Unauthorized",
    "403": "Forbidden",
    "404": "NotFound",
    "405": "MethodNotAllowed",
    "408": "TooSlow",
    "409": "AlreadyExists",
    "411": "LengthRequired",
    "413": "TooLarge",
    "429": "TooManyRequests",
    "431": "TooLarge",
    "500": "Unexpected",
    "503": "Unavailable",
}


def settled(body: Json) -> bool:
    """Whether a request is granted or over: nothing that is waited for comes any more by itself."""
    return _holds(body, "Ready") is not None or _holds(body, "Finished") is not None


def shown(body: Json, *, status: str | None = None) -> Answer:
    """A request as it is: 200 granted, 403 over, 202 while it is neither; or as a call was carried out."""
    metadata, now = body["metadata"], body.get("status") or {}
    told: Json = {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "version": metadata["resourceVersion"],
        "subject": {"podUID": body["spec"]["subject"]["podUID"]},
        # By these an agent that was started again tells whether it can go on with it.
        "spec": {field: body["spec"][field] for field in ("delivery", "outcome") if field in body["spec"]},
        "status": now,
    }
    over = _holds(body, "Finished")
    if status is not None or (over is None and _holds(body, "Ready") is not None):
        return _answer(status or "200 OK", told)
    if over is None:
        return _answer("202 Accepted", told, f"Location: {PATH}/{metadata['name']}", _SOON)
    denial = (now.get("decision") or {}).get("denial") if over["reason"] == "RequestDenied" else None
    why = denial or over
    return _answer("403 Forbidden", told | {"error": {name: why[name] for name in _DENIAL if name in why}})


def no(status: str, why: str, *headers: str, reason: str | None = None) -> Answer:
    """Why there is nothing to show; nothing of what was sent is repeated."""
    told = {"error": {"reason": reason or _REASONS[status[:3]], "message": why}}
    return _answer(status, told, *headers)


def refused(error: RefusedError) -> Answer:
    """What came is no request."""
    return no(error.status, error.why, *error.headers)


def of_api(error: ApiError) -> Answer:
    """What the API server said of it: its own words where it refuses, and nothing else of it."""
    if error.status in (400, 422):
        return no("400 Bad Request", f"the API server refuses it: {error.message}")
    if error.status == 403:
        return no("403 Forbidden", f"the API server refuses it: {error.message}", reason="Refused")
    if error.status == 413:
        return no("413 Content Too Large", "it is too large for the API server")
    if error.status == 429:
        wait = max(1, round(error.retry_after.total_seconds())) if error.retry_after else 1
        return no("429 Too Many Requests", "the API server is busy; try again", f"Retry-After: {wait}")
    return away("the API server was not there to take it; ask again, under the same name")


def away(why: str) -> Answer:
    """Somebody else is not there; it may be asked again."""
    return no("503 Service Unavailable", why, _SOON)


def _holds(body: Json, kind: str) -> Json | None:
    conditions: list[Any] = (body.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def _answer(status: str, told: Json, *headers: str) -> Answer:
    return Answer(status, (_JSON, *headers), orjson.dumps(told))
