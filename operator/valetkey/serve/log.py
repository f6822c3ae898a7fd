"""The log, to be read over HTTPS with a token of the auditor's account, and by nobody else; nothing can be written.

It is a process of its own in the operator's pod: however much is read, and whoever knocks, no revocation waits for it.
`GET /files` names the files, `GET /files/NAME` gives one as it is, so that whoever reads it checks its chain himself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from valetkey.kube.api import ApiError
from valetkey.serve.reviews import BusyError, Reviews

TOKEN: Final = "Valetkey-Token"  # noqa: S105 - a header's name; as a proxy the API server takes Authorization away
AGAIN_AFTER: Final = timedelta(seconds=5)
"""How soon a port that could not be had is tried again, and a certificate looked at."""
_AT_ONCE: Final = 4
"""Files that are sent side by side."""
_PART: Final = 1 << 18
"""Bytes of a file that are in memory at a time."""

_logger = logging.getLogger(__name__)


def application(directory: Path, reviews: Reviews) -> web.Application:
    """The files of one directory, for whom `reviews` knows."""
    served = _Files(directory)

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        token = request.headers.get(TOKEN) or request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            reader = await reviews.credential_id(token) if token else None
        except BusyError:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"}) from None
        except ApiError as error:
            _logger.warning("a token could not be reviewed: %s", error)
            raise web.HTTPServiceUnavailable(text="the API server was not there to say whose token it is") from None
        if reader is None:
            raise web.HTTPUnauthorized(text="a token of the auditor's account for audience valetkey-log is needed")
        _logger.info("%s is read by the holder of %s", request.raw_path, reader)
        return await handler(request)

    app = web.Application(middlewares=[authorized])
    app.router.add_get("/files", served.names)
    app.router.add_get("/files/{name}", served.one)
    return app


class _Files:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def names(self, _: web.Request) -> web.Response:
        """Name, bytes and time of the last record of each file."""
        return web.json_response([_described(path) for path in self._paths()])

    async def one(self, request: web.Request) -> web.StreamResponse:
        """One file, as long as it is when it is asked for."""
        found = next((path for path in self._paths() if path.name == request.match_info["name"]), None)
        if found is None:
            raise web.HTTPNotFound(text="there is no such file of the log")
        if self._room.locked():
            raise web.HTTPServiceUnavailable(text="others are reading", headers={"Retry-After": "1"})
        async with self._room:
            return await _send(found, request)

    def _paths(self) -> list[Path]:
        return [path for path in sorted(self._directory.glob("*.jsonl")) if path.is_file() and not path.is_symlink()]


async def _send(path: Path, request: web.Request) -> web.StreamResponse:
    with await asyncio.to_thread(path.open, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Content-Length": str(left)})
        await response.prepare(request)
        while left > 0 and (part := await asyncio.to_thread(file.read, min(left, _PART))):
            await response.write(part)
            left -= len(part)
        return response


def _described(path: Path) -> dict[str, object]:
    state = path.stat()
    return {
        "name": path.name,
        "bytes": state.st_size,
        "modified": datetime.fromtimestamp(state.st_mtime, UTC).isoformat(),
    }


async def serve(app: web.Application, host: str, port: int, tls: Path) -> None:
    """Serves for ever, with `tls.crt` and `tls.key` of a directory, which may be renewed there."""
    certificate = _Certificate(tls)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        while True:
            try:
                await web.TCPSite(runner, host or None, port, ssl_context=certificate.context).start()
                break
            except OSError as error:
                _logger.error("log: %s; free the port or set log.server.port; it is tried again", error)
                await asyncio.sleep(AGAIN_AFTER.total_seconds())
        while True:
            await asyncio.sleep(AGAIN_AFTER.total_seconds())
            certificate.look()
    finally:
        await runner.cleanup()


class _Certificate:
    """A certificate that new connections are met with, as it is on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = -1
        self._load()

    def look(self) -> None:
        """Takes a new one in; one that cannot be used is said, and the one before it stays."""
        try:
            if self._changed() != self._seen:
                self._load()
        except (OSError, ssl.SSLError) as error:
            _logger.error("log: the new certificate cannot be used: %s", error)

    def _load(self) -> None:
        seen = self._changed()
        self.context.load_cert_chain(self._directory / "tls.crt", self._directory / "tls.key")
        self._seen = seen

    def _changed(self) -> int:
        return (self._directory / "tls.crt").stat().st_mtime_ns
