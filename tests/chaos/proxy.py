"""A proxy before the API server that does to requests what networks and overloaded servers do to them.

It ends TLS with the API server's own certificate, so that it sees where one request ends and the next begins.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Final

import aiohttp
from aiohttp import web

from tests.cluster.local import pki
from tests.cluster.local.ports import holder


class Fault(StrEnum):
    """What becomes of one request."""

    CUT = "cut before it was sent on"
    CUT_AFTER = "cut after it was carried out"
    DELAYED = "delayed by 5 s"
    LATE = "carried out 12 s later, when nobody waits for it any more"
    TOO_MANY = "answered 429"
    BROKEN = "answered 500"


_DELAY: Final = 5.0
_LATE: Final = 12.0
_HOP: Final = {"connection", "transfer-encoding", "content-length", "host", "keep-alive", "content-encoding"}
_EXPIRED: Final = b'"code":410'
_STATUS: Final = '{"kind":"Status","apiVersion":"v1","status":"Failure","message":"chaos","reason":"%s","code":%d}'


class Proxy:
    """Listens on 127.0.0.1 and passes on to the API server, as long as it is in the mood."""

    def __init__(self, server: str, port: int, *, seed: int) -> None:
        self._server, self._port = server, port
        self._random = random.Random(seed)
        self._stack = AsyncExitStack()
        self._site: web.TCPSite | None = None
        self._connections: set[asyncio.Transport] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._behind: set[asyncio.Task[None]] = set()
        self.shares: Mapping[Fault, float] = {}
        """Which share of the requests meets each fault; watches are only ever cut."""
        self.done: Counter[Fault] = Counter()
        self.expired = 0
        """How often the API server would not go on from where somebody was (410), which is what it tells watches."""

    async def __aenter__(self) -> Proxy:
        if taken_by := holder("127.0.0.1", self._port):
            raise RuntimeError(f"127.0.0.1:{self._port} is held by {taken_by}: end it first")
        trust = ssl.create_default_context(cafile=str(pki.PKI / "ca.crt"))
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        timeout = aiohttp.ClientTimeout(total=None, connect=3)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        )
        application = web.Application(client_max_size=8 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._stack.push_async_callback(self._runner.cleanup)
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._stack.aclose()

    async def up(self) -> None:
        """Lets connections in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.PKI / "apiserver.crt", pki.PKI / "apiserver.key")
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True)
        await self._site.start()

    async def down(self) -> None:
        """Refuses connections and cuts those there are: the API server is away."""
        assert self._site is not None
        await self._site.stop()
        self.cut()

    def cut(self) -> None:
        """Cuts every connection, watches too; new ones are let in."""
        for transport in list(self._connections):
            transport.abort()

    def freeze(self) -> None:
        """Takes whatever comes and answers nothing: connections are half open."""
        self._open.clear()

    def thaw(self) -> None:
        """Goes on."""
        self._open.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._connections.add(transport)
        try:
            body = await request.read()
            await self._open.wait()
            match None if request.query.get("watch") else self._drawn():
                case Fault.CUT:
                    transport.abort()
                    raise asyncio.CancelledError
                case Fault.CUT_AFTER:
                    await self._forward(request, body)
                    transport.abort()
                    raise asyncio.CancelledError
                case Fault.LATE:
                    self._later(request, body)
                    await asyncio.sleep(_LATE)
                    transport.abort()
                    raise asyncio.CancelledError
                case Fault.TOO_MANY:
                    return _refusal(429, "TooManyRequests", {"Retry-After": "1"})
                case Fault.BROKEN:
                    return _refusal(500, "InternalError", {})
                case Fault.DELAYED:
                    await asyncio.sleep(_DELAY)
            return await self._pass_on(request, body)
        except (aiohttp.ClientError, OSError):
            transport.abort()
            raise asyncio.CancelledError from None
        finally:
            self._connections.discard(transport)

    def _drawn(self) -> Fault | None:
        at = self._random.random()
        for fault, share in self.shares.items():
            at -= share
            if at < 0:
                self.done[fault] += 1
                return fault
        return None

    def _later(self, request: web.Request, body: bytes) -> None:
        async def late() -> None:
            await asyncio.sleep(_LATE - 1)
            try:
                await self._forward(request, body)
            except (aiohttp.ClientError, OSError):
                return

        task = asyncio.create_task(late())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _forward(self, request: web.Request, body: bytes) -> None:
        async with self._asked(request, body) as answer:
            await answer.read()

    async def _pass_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._asked(request, body) as answer:
            self.expired += answer.status == 410
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if not request.query.get("watch"):
                encoding = (
                    {"Content-Encoding": answer.headers["Content-Encoding"]}
                    if answer.headers.get("Content-Encoding")
                    else {}
                )
                return web.Response(status=answer.status, headers=headers | encoding, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            tail = b""
            async for chunk in answer.content.iter_any():
                # A watch is answered 200 and told in its stream; what tells it may come in two chunks.
                self.expired += (tail + chunk).count(_EXPIRED)
                tail = (tail + chunk)[-len(_EXPIRED) + 1 :]
                await self._open.wait()
                await response.write(chunk)
            return response

    def _asked(self, request: web.Request, body: bytes) -> aiohttp.client._RequestContextManager:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers["Accept-Encoding"] = "identity"
        return self._session.request(
            request.method, f"{self._server}{request.raw_path}", headers=headers, data=body or None
        )


def _refusal(status: int, reason: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status, text=_STATUS % (reason, status), content_type="application/json", headers=dict(headers)
    )
