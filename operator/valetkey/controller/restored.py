"""Restored: what a store that was restored from an older snapshot has brought back, and the log knows to be over.

A TaskGrant that was seen to go never comes back by itself. Where one has, the store was restored, and nothing that was
made before is trusted: what ended while nobody here looked cannot be told from what did not. Each replica looks for
itself, and whoever finds it tells the others by the Leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from valetkey.audit import history
from valetkey.controller.backends import Backends
from valetkey.controller.objects import Note
from valetkey.controller.queue import Key
from valetkey.controller.surroundings import AGAIN_AFTER
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kube import paths
from valetkey.kube.api import ApiError
from valetkey.kube.concurrency import all_of
from valetkey.kube.leader import AHEAD, Leadership
from valetkey.reasons import Reason, word

_READ_WITHIN: Final = timedelta(seconds=60)
"""A volume that hangs keeps nobody from leading: revocations wait for a leader."""
_logger = logging.getLogger(__name__)


class Restored:
    """Compares what is there with the log of this replica, and with what others say."""

    def __init__(self, backends: Backends, leadership: Leadership, log: Path, changed: Callable[[], None]) -> None:
        """`changed` is called where what is there may have to end."""
        self._backends, self._leadership, self._log = backends, leadership, log
        self._changed = changed
        leadership.restored_said = self._said

    async def look(self) -> None:
        """Looks, however often the API server has to be asked; what is over is in the cache then."""
        while True:
            try:
                return await self._look()
            except ApiError as error:
                _logger.warning("whether the store was restored: %s; it is tried again", error)
                await asyncio.sleep(AGAIN_AFTER.total_seconds())

    async def _look(self) -> None:
        cache = self._backends.cache
        grants = {note.request: (key, note) for key, note in cache.grants.notes()}
        live = {uid: (key, note) for uid, (key, note) in grants.items() if not note.ended}
        unfinished = ((key, note) for key, note in cache.requests.notes() if not note.finished)
        asked = {note.uid: (key, note) for key, note in unfinished if note.uid not in grants}
        if not live and not asked:
            return
        past = await self._past([note for _, note in live.values()], [note for _, note in asked.values()])
        back = await self._back(live, past)
        known = {**back, **{uid: past.ended[uid] for uid in asked if uid in past.ended}}
        cache.over = {uid: word(end) or Reason.GRANT_DELETED for uid, end in known.items()}
        at = None if past.restored is None or self._yet_to_come(past.restored) else past.restored
        if back:
            at = self._backends.clock()
            message = f"{len(back)} grants are there that had gone; what was made before ends"
            _logger.warning("%s: %s", history.RESTORED, message)
            await self._backends.write_regardless(history.RESTORED, message=message)
        if at is not None:
            await self._leadership.say_restored(at)
            self._said(at)
        older = {uid for uid, (_, note) in asked.items() if cache.restored and note.created < cache.restored}
        # What only looks unfinished, for the watch has not told of its end yet, is nothing to be ended.
        await all_of(*(self._read(asked[uid][0]) for uid in asked.keys() & (older | known.keys())))

    async def _back(self, live: Mapping[str, tuple[Key, Note]], past: history.Past) -> dict[str, str]:
        """Why grants ended that live again, by the uid of their request.

        One that has ended since it was read is no more than late news: the log may be that of a leader at work.
        """
        seen = {uid: (key, past.ended[note.uid]) for uid, (key, note) in live.items() if note.uid in past.ended}
        lives = await all_of(*(self._lives(key, live[uid][1].uid) for uid, (key, _) in seen.items()))
        return {uid: why for (uid, (_, why)), alive in zip(seen.items(), lives, strict=True) if alive}

    async def _lives(self, key: Key, uid: str) -> bool:
        """Whether a grant is there and has not begun to end, as it is now."""
        try:
            body = await self._backends.api.get(paths.item("TaskGrant", *key))
        except ApiError as error:
            if not error.not_found:
                raise
            return False
        metadata = body["metadata"]
        return metadata["uid"] == uid and "deletionTimestamp" not in metadata and "end" not in body.get("status", {})

    def _said(self, at: datetime) -> None:
        """Takes in what somebody has found."""
        cache = self._backends.cache
        if cache.restored is None or at > cache.restored:
            cache.restored = at
            self._changed()

    def _yet_to_come(self, at: datetime) -> bool:
        """Whether the log says what nobody can have found, and what would end whatever is made until then."""
        later = at > self._backends.clock() + AHEAD
        if later:
            _logger.error("a restore is said to have been at %s, which is yet to come: none of ours says so", at)
        return later

    async def _past(self, live: Collection[Note], asked: Collection[Note]) -> history.Past:
        since = min(note.created for note in (*live, *asked))
        uids = {note.uid for note in (*live, *asked)}
        try:
            async with asyncio.timeout(_READ_WITHIN.total_seconds()):
                return await asyncio.to_thread(history.past, self._log, uids, since=since)
        except (OSError, TimeoutError) as error:
            _logger.error("what had ended cannot be read from the log: %s", str(error) or "it takes too long")
            return history.Past({}, None)

    async def _read(self, asked: Key) -> None:
        """Takes in a request as it is now."""
        try:
            body = await self._backends.api.get(paths.item("AccessRequest", *asked))
        except ApiError as error:
            if not error.not_found:
                raise
        else:
            self._backends.cache.requests.put(AccessRequest.model_validate(body))
