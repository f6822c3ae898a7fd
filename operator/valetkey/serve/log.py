"""The log, to be read over HTTPS with a token of the auditor's account, and by nobody else; nothing can be written.

It is a process of its own in the operator's pod: however much is read, and whoever knocks, no revocation waits for it.
`GET /files` names the files, `GET /files/NAME` gives one as it is, so that whoever reads it checks its chain himself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from valetkey.door import Door
from valetkey.kube.api import ApiError
from valetkey.messages import Answer, Parts, Request
from valetkey.serve.auditors import HEADER
from valetkey.serve.certificate import Certificate
from valetkey.serve.reviews import BusyError, Reviews

_AT_ONCE: Final = 2
"""Files that the holder of one token reads side by side."""
_PART: Final = 1 << 16
"""Bytes of a file that are in memory at a time."""

_logger = logging.getLogger(__name__)


class LogFiles:
    """The files of one directory, for whom `reviews` knows."""

    def __init__(self, directory: Path, reviews: Reviews[str]) -> None:
        self._directory, self._reviews = directory, reviews
        self._reading: Counter[str] = Counter()

    async def answer(self, request: Request) -> Answer:
        """What somebody reads, or why they do not."""
        token = request.headers.get(HEADER.lower()) or request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            reader = await self._reviews.holder(token) if token else None
        except BusyError:
            return _no("429 Too Many Requests", "too many tokens at once; try again in a second", "Retry-After: 1")
        except ApiError as error:
            _logger.warning("a token could not be reviewed: %s", error)
            return _no("503 Service Unavailable", "the API server was not there to say whose token it is")
        if reader is None:
            needed = "a token of the auditor's account for audience valetkey-log is needed, for 15 minutes at most"
            return _no("401 Unauthorized", needed)
        _logger.info("%s is read by the holder of %s", request.path, reader)
        if request.path == "/files":
            names = [{"name": path.name, "bytes": path.stat().st_size} for path in self._paths()]
            return Answer(headers=("Content-Type: application/json",), body=json.dumps(names).encode())
        return await self._file(request.path, reader)

    async def _file(self, path: str, reader: str) -> Answer:
        found = next((one for one in self._paths() if f"/files/{one.name}" == path), None)
        if found is None:
            return _no("404 Not Found", "there is no such file of the log")
        if self._reading[reader] >= _AT_ONCE:
            return _no("503 Service Unavailable", "this token is reading already", "Retry-After: 1")
        length = found.stat().st_size  # it grows; what comes later is not promised
        return Answer(
            headers=("Content-Type: application/x-ndjson",), body=Parts(length, self._parts(found, length, reader))
        )

    async def _parts(self, path: Path, left: int, reader: str) -> AsyncGenerator[bytes, None]:
        self._reading[reader] += 1
        try:
            with await asyncio.to_thread(path.open, "rb") as file:
                while left > 0 and (part := await asyncio.to_thread(file.read, min(left, _PART))):
                    yield part
                    left -= len(part)
        finally:
            self._reading[reader] -= 1

    def _paths(self) -> list[Path]:
        return [path for path in sorted(self._directory.glob("*.jsonl")) if path.is_file() and not path.is_symlink()]


def _no(status: str, why: str, *headers: str) -> Answer:
    return Answer(status, ("Content-Type: text/plain; charset=utf-8", *headers), why.encode())


async def serve(files: LogFiles, host: str, port: int, tls: Path) -> None:
    """Serves for ever, with `tls.crt` and `tls.key` of a directory, which may come later and be renewed there."""
    certificate = Certificate(tls, setting="log.server.tlsSecret")
    await certificate.wait_for_one()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(certificate.keep_looking())
        tasks.create_task(Door(files.answer).serve(host, port, setting="log.server.port", tls=certificate.context))
