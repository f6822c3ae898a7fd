"""The log: JSON lines, chained by SHA-256, on disk before the caller goes on.

One file and one chain per writer (pod and start). Records that wait at the same time share one sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from valetkey.errors import UnavailableError
from valetkey.kinds.base import format_time
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)

GENESIS: Final = "0" * 64
"""What the first record of a chain has as `prev`."""


def digest(record: dict[str, Any]) -> str:
    """The hash of a record: SHA-256 over its JSON with sorted keys, `hash` left out."""
    body = {key: value for key, value in record.items() if key != "hash"}
    return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Log:
    """Appends records; `write` returns when its record is on disk."""

    def __init__(self, directory: Path, *, writer: str, cluster: str, clock: Callable[[], datetime]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"{writer}-{clock():%Y%m%dT%H%M%S%f}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._writer, self._cluster, self._clock = writer, cluster, clock
        self._seq, self._prev = 0, GENESIS
        self._good, self._torn = 0, False
        self.written, self.unwritten = 0, 0
        """Records that are on disk, and those that could not be written."""
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def write(self, reason: str, **fields: Any) -> None:
        """Puts one record on disk; `fields` hold no secret.

        Raises UnavailableError where it cannot be written.
        """
        await self._put(reason, fields)

    def note(self, reason: str, **fields: Any) -> None:
        """The same for what nobody waits for; where it cannot be written, the operator's own output says so."""
        self._put(reason, fields).add_done_callback(_unnoted)

    async def check(self) -> None:
        """Tries whether a record could be written now, and writes none; raises UnavailableError where it could not."""
        try:
            await asyncio.to_thread(_try, self._path.parent)
        except OSError as error:
            raise _unwritten(error) from error

    async def close(self) -> None:
        """Waits for what is under way and closes the file."""
        if self._flusher is not None:
            await self._flusher
        with contextlib.suppress(OSError):
            self._mend()
        os.close(self._file)

    def _put(self, reason: str, fields: dict[str, Any]) -> asyncio.Future[None]:
        # Hashed as it will be read back, not as it is in memory.
        record = orjson.loads(orjson.dumps({"at": format_time(self._clock()), "reason": reason} | fields))
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return done

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            seq, prev, lines = self._seq, self._prev, []
            for record, _ in batch:
                seq += 1
                whole = {"seq": seq, "prev": prev, "cluster": self._cluster, "writer": self._writer} | record
                prev = whole["hash"] = digest(whole)
                lines.append(orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE))
            try:
                self._good = await asyncio.to_thread(self._append, b"".join(lines))
            except OSError as error:
                # The chain goes on from the last record that is on disk, as if these had never been.
                self.unwritten += len(batch)
                for _, done in batch:
                    if not done.cancelled():
                        done.set_exception(_unwritten(error))
            else:
                self._seq, self._prev = seq, prev
                self.written += len(batch)
                for _, done in batch:
                    if not done.cancelled():
                        done.set_result(None)
        self._flusher = None

    def _append(self, content: bytes) -> int:
        self._mend()
        self._torn = True
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # then the next write begins with it
                self._mend()
            raise
        self._torn = False
        return self._good + len(content)

    def _mend(self) -> None:
        """Cuts off what a failed write has left."""
        if self._torn:
            os.ftruncate(self._file, self._good)
            self._torn = False


def _unnoted(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        _logger.error("%s", error)


def _try(directory: Path) -> None:
    # A page of its own on the same disk: nobody reads it, and it is gone when it is closed.
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"\0" * 4096)
        os.fdatasync(file.fileno())


def _unwritten(error: OSError) -> UnavailableError:
    return UnavailableError(
        Reason.BACKEND_UNAVAILABLE, f"the log cannot be written ({error.strerror}); nothing is issued until it can"
    )
