"""What can go wrong with one grant, in three classes; everything else is a bug.

    AccessError
    ├── InvalidError       never as written: the condition turns False and the request stops
    ├── NotReadyError      something else must happen first: Unknown, tried again
    └── UnavailableError   a backend failed: Unknown, tried again with back-off

Messages are public (conditions, Events); causes are chained and go to the operator's own log only.
"""

from __future__ import annotations

from datetime import timedelta

from valetkey.reasons import Reason


class AccessError(Exception):
    """A step could not be done; `reason` says which condition tells why, `message` what to change."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class InvalidError(AccessError):
    """It can never be done as written."""


class NotReadyError(AccessError):
    """It can be done once something else has happened; try again `after` this long."""

    def __init__(self, reason: Reason, message: str, *, after: timedelta) -> None:
        super().__init__(reason, message)
        self.after = after


class UnavailableError(AccessError):
    """A backend did not answer as it should; try again with back-off."""

    def __init__(self, reason: Reason, message: str, *, after: timedelta | None = None) -> None:
        super().__init__(reason, message)
        self.after = after
