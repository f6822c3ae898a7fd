"""Does one pod ask for more than its share? So many calls a second, and so many at once that wait."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

CALLS_A_SECOND: Final = 20.0
BURST: Final = 40.0
WAITING: Final = 8
"""Calls of one pod that wait at once."""
_PODS: Final = 4096
"""That are known; the one that has asked for nothing for longest is forgotten first, and begins with a burst again."""


class TooManyError(Exception):
    """More than its share; `after` so many seconds it may ask again."""

    def __init__(self, message: str, after: int = 1) -> None:
        super().__init__(message)
        self.after = after


class Pace:
    """What each pod has asked for lately, by its uid."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many calls it has left, and since when."""
        self._waiting: Counter[str] = Counter()

    def call(self, pod: str) -> None:
        """Counts a call; raises TooManyError."""
        now = self._clock()
        left, since = self._left.get(pod, (BURST, now))
        left = min(BURST, left + (now - since) * CALLS_A_SECOND)
        if left < 1:
            raise TooManyError(f"a pod may make {CALLS_A_SECOND:g} calls a second")
        self._left[pod] = left - 1, now
        self._left.move_to_end(pod)
        if len(self._left) > _PODS:
            self._left.popitem(last=False)

    @contextmanager
    def wait(self, pod: str) -> Iterator[None]:
        """Counts a call as one that waits, for as long as it does; raises TooManyError."""
        if self._waiting[pod] >= WAITING:
            raise TooManyError(f"{WAITING} calls of a pod may wait at once")
        self._waiting[pod] += 1
        try:
            yield
        finally:
            self._waiting[pod] -= 1
            if not self._waiting[pod]:
                del self._waiting[pod]
