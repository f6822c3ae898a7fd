"""Door: HTTP for whoever knocks, behind which a process has other work to do.

So whoever does gets little of it: one of a few connections, for one short GET, one answer and a moment to read it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

AGAIN: Final = timedelta(seconds=5)
"""How soon a port that could not be had is tried again."""
CONNECTIONS: Final = 16
HEAD: Final = 8192
"""Bytes of a request that are read."""
PATIENCE: Final = timedelta(seconds=5)
"""How long a request may take to come, its handshake too, and an answer to be read."""
OF_A_PART: Final = timedelta(seconds=30)
"""How long each part of a long answer may take to be read."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for by GET."""

    path: str
    """As it was sent, without what follows a question mark."""
    headers: Mapping[str, str]
    """By name in lower case."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A long body, made while it is read."""

    length: int
    """Bytes of all of them."""
    parts: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back."""

    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    body: bytes | Parts = b""


class Door:
    """Takes connections in, as many as there may be, and shows each of them out."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer
        self._inside: set[asyncio.StreamWriter] = set()

    async def serve(self, host: str, port: int, *, setting: str, tls: ssl.SSLContext | None = None) -> None:
        """Serves for ever, on all addresses where `host` is empty.

        A port that cannot be had is tried again and again; `setting` is the chart's value that names it.
        """
        server = await self._bind(host, port, setting, tls)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for writer in self._inside:
                writer.transport.abort()

    async def _bind(self, host: str, port: int, setting: str, tls: ssl.SSLContext | None) -> asyncio.Server:
        handshake = None if tls is None else PATIENCE.total_seconds()
        while True:
            try:
                return await asyncio.start_server(
                    self._open, host or None, port, limit=HEAD, ssl=tls, ssl_handshake_timeout=handshake
                )
            except OSError as error:
                _logger.error("%s; free it or set %s; it is tried again", error, setting)
                await asyncio.sleep(AGAIN.total_seconds())

    async def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        if len(self._inside) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._inside.add(writer)
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                head = await reader.readuntil(b"\r\n\r\n")
            await _send(writer, await self._answered(head))
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # no request, or nobody to read the answer
        finally:
            self._inside.discard(writer)
            writer.transport.abort()

    async def _answered(self, head: bytes) -> Answer:
        # Latin-1 has a character for each byte: whatever was sent can be read, and compared.
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        if method != "GET":
            return Answer("405 Method Not Allowed", ("Allow: GET",))
        named = (line.partition(":") for line in lines if ":" in line)
        headers = {name.strip().lower(): value.strip() for name, _, value in named}
        return await self._answer(Request(rest.partition(" ")[0].partition("?")[0], headers))


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    body = answer.body
    length = body.length if isinstance(body, Parts) else len(body)
    head = (f"HTTP/1.1 {answer.status}", *answer.headers, f"Content-Length: {length}", "Connection: close", "", "")
    writer.write("\r\n".join(head).encode())
    if isinstance(body, Parts):
        async with aclosing(body.parts) as parts:
            async for part in parts:
                async with asyncio.timeout(OF_A_PART.total_seconds()):
                    writer.write(part)
                    await writer.drain()
    else:
        writer.write(body)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        writer.close()
        await writer.wait_closed()  # when all of it was read there
