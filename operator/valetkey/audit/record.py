"""The log: JSON lines, chained by SHA-256, on disk before the caller goes on.

One file and one chain per writer, start and day; each begins with a record of how the one before it ended. Records that
wait at the same time share one sync.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from valetkey.audit.file import LogFile, drop_older, last_written, name_of, nearly_full, try_writing
from valetkey.errors import UnavailableError
from valetkey.kinds.base import format_time
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)

GENESIS: Final = "0" * 64
"""What the first record of a chain has as `prev`."""
CONTINUED: Final = "LogContinued"
SHORTENED: Final = "LogShortened"
_A_FILE: Final = timedelta(days=1)
STUCK_AFTER: Final = timedelta(seconds=5)
"""How long a record may take; a volume that hangs is no better than one that fails, and says nothing."""


def digest(record: dict[str, Any]) -> str:
    """The hash of a record: SHA-256 over its JSON with sorted keys, `hash` left out."""
    body = {key: value for key, value in record.items() if key != "hash"}
    return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Log:
    """Appends records; `write` returns when its record is on disk."""

    def __init__(
        self,
        directory: Path,
        *,
        writer: str,
        cluster: str,
        clock: Callable[[], datetime],
        keep: timedelta | None = None,
    ) -> None:
        """This writer's files that were last written longer ago than `keep` are deleted, with a record; None: none."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._writer, self._cluster, self._clock = directory, writer, cluster, clock
        self._seq, self._prev = 0, GENESIS
        self._keep = keep
        self._before = _ended(directory, writer)
        """How the file before this one ended, until a record of that is on disk."""
        self._begin()
        self.nearly_full = nearly_full(directory)
        """Whether what is left of the volume is kept for the records of endings, as last looked at."""
        self.written, self.unwritten = 0, 0
        """Records that are on disk, and those that could not be written."""
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._writing_since: float | None = None

    async def write(self, reason: str, **fields: Any) -> None:
        """Puts one record on disk; `fields` hold no secret.

        Raises UnavailableError where it cannot be written, or takes too long: then it may be there later.
        """
        try:
            async with asyncio.timeout(STUCK_AFTER.total_seconds()):
                await self._put(reason, fields)
        except TimeoutError as error:
            raise _stuck() from error

    def note(self, reason: str, **fields: Any) -> None:
        """The same for what nobody waits for; where it cannot be written, the operator's own output says so."""
        self._put(reason, fields).add_done_callback(_unnoted)

    async def check(self) -> None:
        """Tries whether a record could be written now, and writes none; raises UnavailableError where it could not."""
        try:
            await asyncio.to_thread(try_writing, self._directory)
            self.nearly_full = await asyncio.to_thread(nearly_full, self._directory)
        except OSError as error:
            raise _unwritten(error) from error
        self.demand_room()

    def demand_room(self) -> None:
        """Raises UnavailableError where what is left of the volume is kept for the records of endings."""
        if self._is_stuck:
            raise _stuck()
        if self.nearly_full:
            raise UnavailableError(
                Reason.BACKEND_UNAVAILABLE,
                "the log's volume is nearly full, and what is left of it is kept for revocations; nothing is decided "
                "until there is room",
            )

    async def drop_old(self) -> None:
        """Deletes what is older than is kept; only once the clock is known to be right, for nothing brings it back."""
        self._told_of(await asyncio.to_thread(self._drop))

    async def close(self) -> None:
        """Waits for what is under way and closes the file."""
        if self._flusher is not None:
            await self._flusher
        self._file.close()

    def _put(self, reason: str, fields: dict[str, Any]) -> asyncio.Future[None]:
        # Hashed as it will be read back, not as it is in memory.
        record = orjson.loads(orjson.dumps({"at": format_time(self._clock()), "reason": reason} | fields))
        done = asyncio.get_running_loop().create_future()
        if self._is_stuck:  # what waits for a volume that hangs would fill the memory
            self.unwritten += 1
            done.set_exception(_stuck())
            return done
        self._waiting.append((record, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return done

    @property
    def _is_stuck(self) -> bool:
        since = self._writing_since
        return since is not None and time.monotonic() - since > STUCK_AFTER.total_seconds()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                self._writing_since = time.monotonic()
                await self._write_what_waits()
        finally:
            self._flusher = self._writing_since = None

    async def _write_what_waits(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            if abs(self._clock() - self._began) >= _A_FILE:
                await self._turn()
            seq, prev, lines = self._seq, self._prev, []
            for record in (*self._continued(batch[0][0]["at"]), *(record for record, _ in batch)):
                seq += 1
                whole = {"seq": seq, "prev": prev, "cluster": self._cluster, "writer": self._writer} | record
                prev = whole["hash"] = digest(whole)
                lines.append(orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE))
            await asyncio.to_thread(self._file.append, b"".join(lines))
        except Exception as error:
            # The chain goes on from the last record that is on disk, as if these had never been. Whatever it was,
            # nobody waits for ever.
            if not isinstance(error, OSError):
                _logger.exception("the log: unexpected")
            self.unwritten += len(batch)
            for _, done in batch:
                if not done.done():
                    done.set_exception(_unwritten(error))
        else:
            self._seq, self._prev, self._before = seq, prev, None
            self.written += len(lines)
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    def _begin(self) -> None:
        began = self._clock()
        self._file = LogFile(self._directory / name_of(self._writer, began))
        self._began, self._seq, self._prev = began, 0, GENESIS

    async def _turn(self) -> None:
        """Goes on in a new file, and in this one where no other can be made."""
        before = self._file
        ended = {"file": before.path.name, "last": self._prev} if self._seq else self._before
        try:
            await asyncio.to_thread(self._begin)
        except OSError as error:
            _logger.error("%s", _unwritten(error))
            return
        before.close()
        self._before = ended
        await self.drop_old()

    def _continued(self, at: str) -> Iterator[dict[str, Any]]:
        if self._before is not None:
            message = f"{self._before['file']} ended with {self._before['last'][:12]}"
            yield {"at": at, "reason": CONTINUED, **self._before, "message": message}

    def _drop(self) -> list[str]:
        if self._keep is None:
            return []
        try:
            return drop_older(self._directory, self._writer, self._clock() - self._keep)
        except OSError as error:
            _logger.error("old files of the log could not be deleted: %s", error)
            return []

    def _told_of(self, dropped: list[str]) -> None:
        if dropped:
            self.note(SHORTENED, files=dropped, message=f"{', '.join(dropped)}: older than {self._keep}")


def _ended(directory: Path, writer: str) -> dict[str, str] | None:
    """What an earlier process of this writer wrote last; None where there was none."""
    try:
        found = last_written(directory, writer)
    except OSError as error:
        _logger.error("how the log ended before cannot be read: %s", error)
        return None
    if found is None:
        return None
    path, line = found
    try:
        last = str(orjson.loads(line)["hash"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        last = ""  # of no chain of ours: whoever reads the log back is told so
    return {"file": path.name, "last": last}


def _unnoted(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        _logger.error("%s", error)


def _unwritten(error: Exception) -> UnavailableError:
    why = error.strerror if isinstance(error, OSError) else type(error).__name__
    return UnavailableError(
        Reason.BACKEND_UNAVAILABLE, f"the log cannot be written ({why}); nothing is issued until it can"
    )


def _stuck() -> UnavailableError:
    return UnavailableError(
        Reason.BACKEND_UNAVAILABLE,
        f"the log's volume took no record for {STUCK_AFTER.total_seconds():.0f} s; nothing is decided until it does",
    )
