"""What can stand between an agent and its access? Each says in its text what to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from valetkey.agent import durations


class AccessError(Exception):
    """Access was not given, or is no more."""


class InvalidAccess(AccessError):
    """What was to be asked for cannot be read; nothing was asked."""

    def __init__(self, message: str, *, line: str = "", position: int | None = None) -> None:
        where = "" if position is None else f" (column {position + 1} of {line!r})"
        super().__init__(f"{message}{where}")
        self.line, self.position = line, position


class NotInAPod(AccessError):
    """Something is missing that every pod with a ServiceAccount has."""


class Refused(AccessError):
    """The API server did not take the request; the same again will not pass."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        advice = _advice(status, reason, message)
        super().__init__(f"the API server refused ({status} {reason}): {message}{advice and f'; {advice}'}")
        self.status, self.reason, self.message = status, reason, message


class Unreachable(AccessError):
    """The API server did not answer in time."""

    def __init__(self, tried: str, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s: {tried}")
        self.tried, self.seconds = tried, seconds


class TimedOut(AccessError):
    """Nobody gave the access in time; the request has been taken back."""

    def __init__(self, tried: str, seconds: float) -> None:
        super().__init__(f"not granted within {seconds:g} s: {tried}")
        self.tried, self.seconds = tried, seconds


class NotGranted(AccessError):
    """The request is over before it was granted, though nobody refused it; the same again may pass."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"not granted: {reason}: {message}")
        self.reason, self.message = reason, message


class NotOpened(AccessError):
    """What was delivered was not sealed for this process and this request; it was not used."""


class Denied(AccessError):
    """The access was not granted; the text is written for whoever asked."""

    def __init__(self, reason: str, message: str, denial: Mapping[str, Any] | None = None, decision: str = "") -> None:
        said = denial or {}
        self.reason = str(said.get("reason") or reason)
        self.message = str(said.get("message") or message)
        self.field: str | None = said.get("field")
        self.allowed: str | None = said.get("allowed")
        self.contact: str | None = said.get("contact")
        self.decision = decision
        self._judged = denial is not None
        self.retry_after: timedelta | None = durations.read_or_none(said.get("retryAfter"))
        super().__init__(" ".join(self._sentences()))

    def _sentences(self) -> list[str]:
        sentences = [f"{self.reason}: {_ended(self.message)}"]
        if self.field:
            sentences.append(f"In the way: {self.field}.")
        if self.allowed:
            sentences.append(f"Allowed there: {_ended(self.allowed)}")
        if self.retry_after is not None:
            sentences.append(f"The same request may pass after {durations.write(self.retry_after)}.")
        elif self._judged:
            sentences.append("The same request will not pass: change it.")
        if self.contact:
            sentences.append(f"Ask: {self.contact}.")
        if self.decision:
            sentences.append(f"Decision {self.decision}.")
        return sentences


class ApprovalPending(AccessError):
    """People have not approved it yet."""

    def __init__(self, message: str, *, request: str, over: bool) -> None:
        advice = "nobody did in time: ask again" if over else "ask again for the same task, and this request is found"
        super().__init__(f"people have to approve {request}: {_ended(message)} ({advice})")
        self.message, self.request = message, request
        self.over = over
        """Whether the request is over; else a later call for the same task goes on with it."""


class Ended(AccessError):
    """The access is over."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"the access has ended: {reason}: {message}")
        self.reason, self.message = reason, message


def _advice(status: int, reason: str, message: str) -> str:
    """What to do about a refusal that is about the cluster rather than about the request."""
    if (status, reason) == (403, "Forbidden") and re.search(r'cannot \w+ resource "accessrequests"', message):
        return "bind the ClusterRole valetkey-requester to this ServiceAccount in its namespace"
    return "is valetkey installed here?" if status == 404 else ""


def _ended(text: str) -> str:
    """With a full stop, except where that would be pasted along."""
    return text if text.endswith((".", "!", "?", "}")) else f"{text}."
