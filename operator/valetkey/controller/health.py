"""Health: two files that the kubelet's probes look at, `alive` and `ready`.

`alive` is touched each second by the event loop itself, so a loop that is stuck lets it grow old. `ready` is there
exactly while this process can do its work: everything was read, the API server has answered lately, the log can be
written.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from valetkey.errors import UnavailableError

BEAT: Final = timedelta(seconds=1)
TRY_LOG_EVERY: Final = timedelta(seconds=5)
LATELY: Final = timedelta(seconds=15)
"""Three readings of the API server, and three tries of the log."""

_logger = logging.getLogger(__name__)


class Health:
    """What this process shows of itself; a replica that only follows is as ready as the one that leads."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._alive, self._ready = directory / "alive", directory / "ready"
        self._clock = clock
        self._answered = self._recorded = -math.inf

    def clear(self) -> None:
        """Takes away what an earlier process of this pod has left: the files outlive a container."""
        self._alive.unlink(missing_ok=True)
        self._ready.unlink(missing_ok=True)

    def leave(self) -> None:
        """Says that this process stops."""
        self._answered = self._recorded = -math.inf
        self._ready.unlink(missing_ok=True)

    def answered(self) -> None:
        """The API server was read in full just now."""
        self._answered = self._clock()

    def recorded(self) -> None:
        """The log could be written just now."""
        self._recorded = self._clock()

    def show(self) -> None:
        """Writes both files as things are."""
        self._alive.touch()
        if self._clock() - min(self._answered, self._recorded) <= LATELY.total_seconds():
            self._ready.touch()
        else:
            self._ready.unlink(missing_ok=True)

    async def keep_showing(self) -> None:
        """Shows it each second, for ever."""
        while True:
            self.show()
            await asyncio.sleep(BEAT.total_seconds())

    async def keep_trying(self, log: Callable[[], Awaitable[None]]) -> None:
        """Tries the log for ever: a replica that follows writes nothing, and should know before it leads."""
        while True:
            try:
                await log()
            except UnavailableError as error:
                _logger.error("%s", error.message)
            else:
                self.recorded()
            await asyncio.sleep(TRY_LOG_EVERY.total_seconds())
