"""How does an access stay usable while it lives? Renewals are opened and put in place, and the agent says it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Final

from valetkey.agent import answer, files
from valetkey.agent.answer import Answer
from valetkey.agent.api import Api, ApiError, Pauses
from valetkey.agent.ask import COLLECTION, HEARTBEAT
from valetkey.agent.errors import Denied, Ended, NotGranted, NotOpened
from valetkey.agent.files import Place
from valetkey.agent.grant import Grant
from valetkey.agent.pod import Pod
from valetkey.agent.sealed import Box, Delivered

Json = dict[str, Any]
_log: Final = logging.getLogger("valetkey")
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Upkeep:
    """Keeps what one grant consists of."""

    def __init__(
        self, api: Api, pod: Pod, box: Box, place: Place, grant: Grant, opened: Callable[[int], None] = lambda _: None
    ) -> None:
        """`opened` is told the sequence of each credential that was opened."""
        self._api, self._pod, self._box, self._place, self._grant = api, pod, box, place, grant
        self._tell = opened
        self._placing: asyncio.Task[None] | None = None
        self._refused: Any = None
        self.trouble = ""
        """Why the files are not in place."""

    async def begin(self, said: Answer) -> None:
        """Opens what was delivered first, and waits until it is in place; raises NotOpened."""
        if (delivered := self._opened(said)) is not None:
            await self._put(delivered)

    async def go_on(self, versions: AsyncIterator[Json | None]) -> Denied | NotGranted | Ended:
        """Opens each renewal until the access is over, and says why it is; raises ApiError."""
        async for version in versions:
            said = answer.read(version)
            if said.over is not None:
                return said.over
            try:
                delivered = self._opened(said)
            except NotOpened as error:
                if said.sealed != self._refused:
                    _log.error("%s: %s; what was there before stays in use", self._grant.name, error)
                self._refused = said.sealed
                continue
            if delivered is not None:
                # Beside, for a full disk must not keep us from hearing that the access is over.
                self.stop()
                self._placing = asyncio.create_task(self._put(delivered))
        raise AssertionError("a request that is followed does not just stop")

    async def beat(self, request: Json, within: timedelta) -> None:
        """Says again and again that the agent is alive."""
        path = f"{COLLECTION.format(self._pod.namespace)}/{self._grant.name}"
        said = (request["metadata"].get("annotations") or {}).get(HEARTBEAT, "0")
        count = int(said) if said.isdigit() else 0
        pause = within.total_seconds() / 3
        if count == 0:
            await asyncio.sleep(pause)
        while True:
            count += 1
            pauses = Pauses(longest=pause / 4)
            while not await self._beats(path, count, pause):
                await pauses.wait()  # one that is not heard is tried again at once: three fit in, and no more
            await asyncio.sleep(pause)

    async def _beats(self, path: str, count: int, seconds: float) -> bool:
        """Says it once; False where it may be heard the next time."""
        try:
            async with asyncio.timeout(seconds):
                await self._api.patch(path, {"metadata": {"annotations": {HEARTBEAT: str(count)}}})
        except (TimeoutError, ApiError) as error:
            _log.warning("%s: heartbeat %d was not heard: %s", self._grant.name, count, str(error) or "no answer")
            return isinstance(error, ApiError) and not error.passing
        return True

    def stop(self) -> None:
        """Stops putting files in place."""
        if self._placing is not None:
            self._placing.cancel()

    def _opened(self, said: Answer) -> Delivered | None:
        delivered = self._box.open(said.sealed) if said.sealed is not None else None
        if delivered is not None:
            self._grant.renew(delivered, said.expires_at)
            self._tell(said.sealed.sequence if said.sealed is not None else 0)
        return delivered

    async def _put(self, delivered: Delivered) -> None:
        """Puts the files in place; where the disk is full, tries until it is not."""
        pause = _FIRST_PAUSE
        while True:
            try:
                self._place.write(files.files_of(self._pod, delivered))
            except OSError as error:
                if not self.trouble:
                    _log.error("%s: %s: %s; tried again", self._grant.name, self._place.path, error.strerror)
                self.trouble = f"{self._place.path} cannot be written: {error.strerror}"
            else:
                if self.trouble:
                    _log.info("%s: %s is written again", self._grant.name, self._place.path)
                self.trouble = ""
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
