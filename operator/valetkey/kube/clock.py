"""The time by which valetkey judges: the API server's, which also stamps objects and lets tokens expire."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

SLACK: Final = timedelta(seconds=1)
"""How far an answer may lie from our time: a proxy on the way may write a date that it keeps for a second."""
AGREE: Final = 3
"""Answers in a row that must contradict our time: of several API servers one may be wrong."""

_logger = logging.getLogger(__name__)


def boot_time() -> float:
    """Seconds since the machine's start; it goes on while a process is stopped and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """This machine's time as it was at the start and has run on since; corrected where the API server contradicts it.

    So a step of the machine's clock neither ends a grant nor lets it live longer, and a start with a wrong clock is
    mended by the first answers, before anything is judged.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boot_time) -> None:
        self._steady = steady
        self._offset = wall() - steady()
        self._contradicted = 0
        self.corrected: Callable[[], None] = lambda: None
        """Called after each correction: whoever sleeps until a time sleeps for too long, or not long enough."""

    def __call__(self) -> datetime:
        """Now."""
        return datetime.fromtimestamp(self._offset + self._steady(), UTC)

    def steady(self) -> float:
        """A time that only runs on, in seconds, for `heard`."""
        return self._steady()

    def heard(self, date: str, *, sent: float) -> None:
        """Takes in the `Date` (RFC 9110, whole seconds) of an answer to a request that was sent at that steady time."""
        try:
            answered = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        # The answer was dated between the request and now, and up to a second of it was cut off.
        earliest, latest = answered - self._steady(), answered + 1 - sent
        slack = SLACK.total_seconds()
        if earliest - slack <= self._offset <= latest + slack:
            self._contradicted = 0
            return
        self._contradicted += 1
        if self._contradicted >= AGREE:
            _logger.warning(
                "the API server's time is %+.1f s from ours; ours is corrected", (earliest + latest) / 2 - self._offset
            )
            self._offset = (earliest + latest) / 2
            self._contradicted = 0
            self.corrected()
