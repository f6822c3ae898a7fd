"""Door: HTTP for whoever knocks, behind which a process has other work to do.

So whoever does gets little of it: one of so many connections, so much time for a request, one answer and a moment to
read it. On which terms, each port says: by default a connection is for one short GET.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from valetkey.messages import Answer, Head, Parts, RefusedError, Request

AGAIN: Final = timedelta(seconds=5)
"""How soon a port that could not be had is tried again."""
CONNECTIONS: Final = 16
HEAD: Final = 8192
"""Bytes of a request's head that are read."""
PATIENCE: Final = timedelta(seconds=5)
"""How long a request may take to come, its handshake too, and an answer to be read."""
OF_A_PART: Final = timedelta(seconds=30)
"""How long each part of a long answer may take to be read."""
LINGER: Final = timedelta(seconds=1)
"""How long what is not wanted is taken in before a connection ends: else its answer might be lost on the way."""

_logger = logging.getLogger(__name__)


def _only_get(error: RefusedError) -> Answer | None:
    """Who sends no request gets no answer; who sends another one hears what there is."""
    return Answer(error.status, error.headers) if error.status.startswith("405") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a port is served."""

    methods: tuple[str, ...] = ("GET",)
    body: int = 0
    """Bytes of a body that are read at most; 0: none is, nor looked for."""
    connections: int | None = None
    """At once; left out, a few."""
    idle: timedelta | None = None
    """How long a connection may wait for its next request; left out, it has one."""
    refused: Callable[[RefusedError], Answer | None] = _only_get
    """Words what is no request, if anything is said."""


class Door:
    """Takes connections in, as many as there may be, and shows each of them out."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]], terms: Terms | None = None) -> None:
        self._answer = answer
        self._terms = terms or Terms()
        self._tls: Callable[[], ssl.SSLContext] | None = None
        self._inside: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._quiet: dict[asyncio.Task[None], None] = {}
        """Those for which nothing is done just now, since the longest first."""

    async def serve(
        self, host: str, port: int, *, setting: str, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        """Serves for ever, on all addresses where `host` is empty.

        `tls` gives what a new connection is met with. A port that cannot be had is tried again and again; `setting` is
        the chart's value that names it.
        """
        self._tls = tls
        server = await self._bind(host, port, setting)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task, writer in self._inside.items():
                # An answer that is under way ends as if whoever reads it had gone.
                task.cancel() if task in self._quiet else writer.transport.abort()

    async def _bind(self, host: str, port: int, setting: str) -> asyncio.Server:
        while True:
            try:
                # Without TLS: a connection counts from its beginning, before the handshake.
                return await asyncio.start_server(self._open, host or None, port, limit=HEAD)
            except OSError as error:
                _logger.error("%s; free it or set %s; it is tried again", error, setting)
                await asyncio.sleep(AGAIN.total_seconds())

    def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = CONNECTIONS if self._terms.connections is None else self._terms.connections
        if len(self._inside) >= most and not self._make_room():
            writer.transport.abort()
            return
        task = asyncio.create_task(self._entertain(reader, writer))
        self._inside[task] = writer
        task.add_done_callback(lambda done: self._inside.pop(done, None))

    def _make_room(self) -> bool:
        """Shows out who has been quiet for longest, where connections are kept: nobody keeps all of them by idling."""
        if self._terms.idle is None or not self._quiet:
            return False
        longest = next(iter(self._quiet))
        del self._quiet[longest], self._inside[longest]
        longest.cancel()
        return True

    async def _entertain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._quiet[task] = None
        try:
            if self._tls is not None:
                # The first thing that it does: what came before would be taken for a request.
                await writer.start_tls(self._tls(), ssl_handshake_timeout=PATIENCE.total_seconds())
            visit = _Visit(reader, writer, self._terms, self._answer)
            while await visit.request():
                self._quiet.pop(task, None)
                more = await visit.answer()
                self._quiet[task] = None  # what has its answer makes room for others, whether it reads it or not
                if not more:
                    await visit.finish()
                    break
        except (OSError, TimeoutError, EOFError):
            pass  # no request, or nobody to read the answer
        finally:
            self._quiet.pop(task, None)
            writer.transport.abort()


class _Visit:
    """What is said on one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        terms: Terms,
        answer: Callable[[Request], Awaitable[Answer]],
    ) -> None:
        self._reader, self._writer, self._terms, self._ask = reader, writer, terms, answer
        self._head: Head | RefusedError = RefusedError("", "")
        self._first, self._left, self._unread = True, 0.0, 0
        self._gone: asyncio.Task[None] | None = None
        if terms.idle is not None:
            writer.transport.set_write_buffer_limits(high=1)  # little is held for whoever does not read
            self._gone = asyncio.create_task(_gone(writer))

    async def request(self) -> bool:
        """Waits for the head of the next one; raises TimeoutError, EOFError and OSError where none comes."""
        wait = PATIENCE if self._first or self._terms.idle is None else self._terms.idle
        clock, begun = asyncio.get_running_loop().time, 0.0
        try:
            async with asyncio.timeout(wait.total_seconds()) as patience:
                byte = await self._reader.readexactly(1)
                begun = clock()
                if not self._first:
                    patience.reschedule(begun + PATIENCE.total_seconds())
                self._head = Head.of(byte + await self._reader.readuntil(b"\r\n\r\n"))
        except RefusedError as error:
            self._head = error
        except TimeoutError:
            if not begun:
                raise
            self._head = RefusedError("408 Request Timeout", "the head of the request did not come in time")
        except asyncio.LimitOverrunError:
            self._head = RefusedError("431 Request Header Fields Too Large", f"a head has {HEAD} bytes at most")
        self._left = PATIENCE.total_seconds() - (clock() - begun)
        self._first = False
        return True

    async def answer(self) -> bool:
        """Answers what has come; whether another may follow."""
        head, self._unread = self._head, self._terms.body
        last = self._terms.idle is None
        try:
            if isinstance(head, RefusedError):
                raise head
            last |= head.last
            answer: Answer | None = await self._answered(head)
        except RefusedError as error:
            answer, last = self._terms.refused(error), True
        if answer is None:
            return False
        last |= answer.last or self._unread > 0
        await self._send(answer, last=last, silent=isinstance(head, Head) and head.method == "HEAD")
        return not last

    async def _answered(self, head: Head) -> Answer:
        length = head.length(self._terms.body) if self._terms.body else None
        self._unread = length or 0
        if head.method not in self._terms.methods:
            allowed = ", ".join(self._terms.methods)
            raise RefusedError("405 Method Not Allowed", f"{allowed} are served here", f"Allow: {allowed}")

        async def body() -> bytes:
            if length is None:
                raise RefusedError("411 Length Required", "a body comes with its Content-Length")
            if head.waits:
                self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                async with asyncio.timeout(self._left):
                    text = await self._reader.readexactly(length)
            except TimeoutError:
                raise RefusedError("408 Request Timeout", "the body did not come in time") from None
            self._unread = 0
            return text

        request = Request(head.path, head.headers, head.method, head.query, body)
        if self._gone is None:
            return await self._ask(request)
        asked = asyncio.ensure_future(self._ask(request))
        try:
            await asyncio.wait((asked, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise ConnectionResetError("nobody is there any more to be answered")
            return asked.result()
        finally:
            asked.cancel()

    async def _send(self, answer: Answer, *, last: bool, silent: bool) -> None:
        body, writer = answer.body, self._writer
        length = body.length if isinstance(body, Parts) else len(body)
        ends = ("Connection: close",) if last else ()
        head = (f"HTTP/1.1 {answer.status}", *answer.headers, f"Content-Length: {length}", *ends, "", "")
        writer.write("\r\n".join(head).encode())
        if isinstance(body, Parts):
            async with aclosing(body.parts) as parts:
                async for part in parts:
                    async with asyncio.timeout(OF_A_PART.total_seconds()):
                        writer.write(part)
                        await writer.drain()
        elif not silent:
            writer.write(body)
        if not last:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await writer.drain()

    async def finish(self) -> None:
        """Ends the connection when its last answer was read there, or after a while."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            if self._unread:
                await self._let_finish()
            self._writer.close()
            await self._writer.wait_closed()  # when all of it was read there

    async def _let_finish(self) -> None:
        """Takes in what nobody wants, for a moment: a connection that is closed before takes its answer along."""
        await self._writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER.total_seconds()):
                while self._unread > 0 and (part := await self._reader.read(self._unread)):
                    self._unread -= len(part)


async def _gone(writer: asyncio.StreamWriter) -> None:
    """Returns when the connection has ended."""
    with suppress(OSError):
        await writer.wait_closed()
