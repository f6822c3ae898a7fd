"""Listener: shows the metrics over HTTP, at GET /metrics and nowhere else.

Anybody may knock, and the process that answers revokes too. So whoever does gets little of it: a few connections, each
for one short request, one answer and a moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

AGAIN: Final = timedelta(seconds=5)
"""How soon a port that could not be had is tried again."""
KEPT_FOR: Final = timedelta(seconds=1)
CONNECTIONS: Final = 16
HEAD: Final = 8192
"""Bytes of a request that are read."""
PATIENCE: Final = timedelta(seconds=5)
"""How long a connection lasts, whatever becomes of it."""

_logger = logging.getLogger(__name__)


class _Page:
    """The metrics as text, made once a second at most: the loop that makes it revokes too, and anybody may ask."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made, self._text = -KEPT_FOR.total_seconds(), b""

    def text(self) -> bytes:
        """The page of this second."""
        now = time.monotonic()
        if now - self._made >= KEPT_FOR.total_seconds():
            self._made, self._text = now, generate_latest(self._registry)
        return self._text


class _Door:
    """Takes connections in, as many as there may be, and shows each of them out."""

    def __init__(self, page: _Page) -> None:
        self._page = page
        self._inside: set[asyncio.StreamWriter] = set()

    async def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        if len(self._inside) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._inside.add(writer)
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()  # when all of it was read there
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # no request, or nobody to read the answer
        finally:
            self._inside.discard(writer)
            writer.transport.abort()

    def shut(self) -> None:
        """Breaks off what is under way."""
        for writer in self._inside:
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found")
        if method != b"GET":
            return _response("405 Method Not Allowed", ("Allow: GET",))
        return _response("200 OK", (f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}",), self._page.text())


async def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serves for ever, on all addresses where `host` is empty; a port that cannot be had is tried again and again."""
    door = _Door(_Page(registry))
    server = await _bind(door, host, port)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        server.close()
        door.shut()


async def _bind(door: _Door, host: str, port: int) -> asyncio.Server:
    while True:
        try:
            return await asyncio.start_server(door.open, host or None, port, limit=HEAD)
        except OSError as error:
            _logger.error("metrics: %s; free it or set metrics.port; it is tried again", error)
            await asyncio.sleep(AGAIN.total_seconds())


def _response(status: str, headers: tuple[str, ...] = (), body: bytes = b"") -> bytes:
    head = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(head).encode() + body
