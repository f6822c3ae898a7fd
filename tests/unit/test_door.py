"""What a port that keeps its connections does with who comes in: how many, for how long, and what they may send."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cluster.api import until
from tests.cluster.local import pki
from tests.unit.controller.test_listener import free
from valetkey import door
from valetkey.door import Door, Terms
from valetkey.messages import Answer, RefusedError, Request


def told(error: RefusedError) -> Answer:
    return Answer(error.status, error.headers, error.why.encode())


TERMS = Terms(methods=("GET", "POST"), body=1000, connections=4, idle=timedelta(seconds=30), refused=told)
HELLO = b"GET /hello HTTP/1.1\r\n\r\n"


@dataclass
class Open:
    """A port, and who has come in."""

    port: int
    trusts: ssl.SSLContext | None
    heard: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def knock(self, says: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trusts)
        writer.write(says)
        return reader, writer

    async def hears(self, says: bytes) -> bytes:
        """All that comes back until the connection ends."""
        reader, writer = await self.knock(says)
        heard = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return heard


async def answered(reader: asyncio.StreamReader) -> bytes:
    """One answer with no body, of a connection that goes on."""
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


async def ended(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Whether the connection ends within that time with nothing more."""
    try:
        return await asyncio.wait_for(reader.read(), seconds) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@asynccontextmanager
async def opened(
    terms: Terms = TERMS,
    answer: Callable[[Request], Awaitable[Answer]] | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[Open]:
    port = free()
    here = Open(port, tls[1] if tls else None)

    async def says(request: Request) -> Answer:
        here.heard.append(request)
        if request.method == "POST" and request.path != "/unread":
            here.bodies.append(await request.body())
        return Answer()

    serving = asyncio.create_task(
        Door(answer or says, terms).serve("127.0.0.1", port, setting="none", tls=(lambda: tls[0]) if tls else None)
    )

    async def there() -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()
            return True
        return False

    await until(there, "the port", seconds=5)
    await asyncio.sleep(0.05)
    yield here
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await asyncio.sleep(0.05)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server is met with, and who trusts it."""
    pki.authority(tmp_path)
    pki.certificate(tmp_path, "one", "/CN=one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "one.crt", tmp_path / "one.key")
    return context, ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))


async def test_a_connection_has_one_request_after_the_other_sent_at_once_or_not(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with opened(tls=tls) as here:
        reader, writer = await here.knock(HELLO)
        assert (await answered(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"POST /a?b=c HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody" + HELLO)
        assert b"Connection" not in await answered(reader) + await answered(reader)
        assert [(one.method, one.path, one.query) for one in here.heard] == [
            ("GET", "/hello", ""),
            ("POST", "/a", "b=c"),
            ("GET", "/hello", ""),
        ]
        assert here.bodies == [b"body"]
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"Connection: close" in await reader.read()
        writer.close()


@pytest.mark.parametrize(
    "says", [b"GET / HTTP/1.0\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"]
)
async def test_who_wants_one_answer_gets_one(says: bytes) -> None:
    async with opened() as here:
        assert b"Connection: close" in await here.hears(says)


async def test_a_connection_that_asks_nothing_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=0.2))
    async with opened(replace(TERMS, idle=timedelta(seconds=0.6))) as here:
        silent, first = await here.knock()
        kept, second = await here.knock(HELLO)
        await answered(kept)
        assert await ended(silent, 0.5), "who has never asked anything is not waited for so long"
        assert not kept.at_eof()
        assert await ended(kept, 1)
        first.close()
        second.close()


async def test_a_later_request_is_as_quick_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=0.2))
    async with opened() as here:
        reader, writer = await here.knock(HELLO)
        await answered(reader)
        writer.write(b"GET /slo")
        assert b" 408 " in await asyncio.wait_for(reader.read(), 1)
        writer.close()


async def test_where_all_places_are_taken_who_has_been_quiet_for_longest_goes_and_who_is_answered_stays() -> None:
    waits = asyncio.Event()

    async def answer(request: Request) -> Answer:
        if request.path == "/waits":
            await waits.wait()
        return Answer()

    async with opened(answer=answer) as here:
        held = [await here.knock(b"GET /waits HTTP/1.1\r\n\r\n"), await here.knock(HELLO), await here.knock(HELLO)]
        await answered(held[1][0])
        await answered(held[2][0])
        held[1][1].write(HELLO)
        await answered(held[1][0])  # it is the third now that has been quiet for longest
        held.append(await here.knock())
        await asyncio.sleep(0.05)
        held.append(await here.knock(HELLO))
        await answered(held[4][0])
        assert await ended(held[2][0], 1)
        assert not held[1][0].at_eof()
        waits.set()
        assert (await answered(held[0][0])).startswith(b"HTTP/1.1 200 ")
        for _, writer in held:
            writer.close()


async def test_where_all_are_being_answered_one_more_is_not_taken_in() -> None:
    waits = asyncio.Event()

    async def answer(_: Request) -> Answer:
        await waits.wait()
        return Answer()

    async with opened(answer=answer) as here:
        held = [await here.knock(HELLO) for _ in range(4)]
        await asyncio.sleep(0.1)
        reader, writer = await here.knock(HELLO)
        assert await ended(reader, 1)
        waits.set()
        for one, other in held:
            assert await answered(one)
            other.close()
        writer.close()


async def test_a_connection_counts_before_its_handshake_which_is_given_up(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=1))
    async with opened(tls=tls) as here:
        slow = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(4)]
        slow[3][1].write(b"\x16\x03\x01")
        await asyncio.sleep(0.05)
        reader, writer = await here.knock(HELLO)  # the first of them has made room
        await answered(reader)
        assert await ended(slow[0][0], 0.2)
        assert not slow[1][0].at_eof()
        for one, other in slow[1:]:
            assert await ended(one, 2)
            other.close()
        assert (await here.hears(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        slow[0][1].close()
        writer.close()


async def test_who_does_not_speak_tls_and_who_goes_amid_it_harm_nobody(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with opened(tls=tls) as here:
        reader, plain = await asyncio.open_connection("127.0.0.1", here.port)
        plain.write(HELLO)
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 5)
        plain.close()
        _, gone = await asyncio.open_connection("127.0.0.1", here.port)
        gone.write(b"\x16\x03\x01")
        gone.transport.abort()
        assert (await here.hears(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_who_goes_while_an_answer_is_waited_for_is_not_waited_for(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    async def answer(_: Request) -> Answer:
        began.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()
        return Answer()

    async with opened(answer=answer, tls=tls) as here:
        _, writer = await here.knock(HELLO)
        await asyncio.wait_for(began.wait(), 5)
        writer.close()
        await asyncio.wait_for(stopped.wait(), 5)


async def test_an_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=0.3))
    given: list[int] = []

    async def answer(_: Request) -> Answer:
        given.append(1)
        return Answer(body=b"#" * (32 << 20))

    async with opened(replace(TERMS, connections=1), answer=answer) as here:
        _, writer = await here.knock(HELLO)
        await asyncio.sleep(0.1)
        reader, other = await here.knock(HELLO)
        assert await ended(reader, 1), "its place is taken"
        await asyncio.sleep(0.5)
        reader, third = await here.knock(HELLO)
        assert (await answered(reader)).startswith(b"HTTP/1.1 200 ")
        assert len(given) == 2
        for one in (writer, other, third):
            one.transport.abort()


BODIES: dict[str, tuple[bytes, bytes]] = {
    "two lengths": (b"Content-Length: 4\r\nContent-Length: 5\r\n", b" 400 "),
    "a length twice": (b"Content-Length: 4\r\nContent-Length: 4\r\n", b" 400 "),
    "a list of lengths": (b"Content-Length: 4, 4\r\n", b" 400 "),
    "a length below nothing": (b"Content-Length: -4\r\n", b" 400 "),
    "a length with a sign": (b"Content-Length: +4\r\n", b" 400 "),
    "a length of other digits": ("Content-Length: ²\r\n".encode("latin-1"), b" 400 "),
    "a name and a blank": (b"Content-Length : 4\r\n", b" 400 "),
    "a line that goes on": (b"X: y\r\n Content-Length: 4\r\n", b" 400 "),
    "a line without a name": (b"Content-Length: 4\r\nhello\r\n", b" 400 "),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b" 411 "),
    "chunks and a length": (b"Content-Length: 4\r\nTransfer-Encoding: identity\r\n", b" 411 "),
    "no length": (b"", b" 411 "),
    "too much": (b"Content-Length: 1001\r\n", b" 413 "),
    "far too much": (b"Content-Length: 99999999999999999999\r\n", b" 400 "),
}


@pytest.mark.parametrize("how", BODIES)
async def test_how_long_a_body_is_nobody_can_take_for_something_else(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINGER", timedelta(seconds=0.1))
    head, status = BODIES[how]
    async with opened() as here:
        heard = await here.hears(b"POST / HTTP/1.1\r\n" + head + b"\r\nbody" + HELLO)
        assert status in heard.split(b"\r\n")[0]
        assert heard.count(b"HTTP/1.1 ") == 1, "what follows is no request"
        assert here.bodies == []


async def test_a_body_that_nobody_wants_is_not_waited_for_and_its_answer_arrives() -> None:
    async with opened() as here:
        heard = await here.hears(b"POST /unread HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"x" * 100)
        assert heard.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in heard
        assert here.bodies == []
        reader, writer = await here.knock(b"POST /unread HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"x" * 100)
        for _ in range(8):
            await asyncio.sleep(0.05)
            writer.write(b"x" * 100)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_who_waits_to_be_told_that_a_body_will_be_read_is_told() -> None:
    async with opened() as here:
        reader, writer = await here.knock(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert await answered(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await answered(reader)).startswith(b"HTTP/1.1 200 ")
        assert here.bodies == [b"body"]
        writer.close()


@pytest.mark.parametrize("method", [b"PUT", b"HEAD", b"CONNECT", b"\xff", b""])
async def test_another_method_is_told_which_there_are(method: bytes) -> None:
    async with opened() as here:
        heard = await here.hears(method + b" / HTTP/1.1\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, POST\r\n")
        assert heard.endswith(b"\r\n\r\n") == (method == b"HEAD")
        assert here.heard == []


async def test_a_head_without_end_is_not_read_to_its_end() -> None:
    async with opened() as here:
        assert b" 431 " in await here.hears(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * door.HEAD)


async def test_who_has_had_the_last_answer_and_stays_makes_room(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """It need not even read it: silent clients in all places keep nobody out."""
    async with opened(tls=tls) as here:
        silent = [await here.knock(b"BREW /coffee HTTP/1.1\r\n\r\n") for _ in range(4)]
        await asyncio.sleep(0.3)
        reader, writer = await here.knock(HELLO)
        assert (await answered(reader)).startswith(b"HTTP/1.1 200")
        for _, one in (*silent, (reader, writer)):
            one.transport.abort()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\0"])
async def test_a_line_that_could_be_taken_for_two_is_refused_and_the_connection_ends(end: bytes) -> None:
    async with opened() as here:
        heard = await here.hears(b"GET /hello HTTP/1.1\r\nHost: x" + end + b"Content-Length: 40\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 400")
        assert here.heard == []


async def test_a_new_connection_is_met_with_what_is_newest(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    given: list[ssl.SSLContext] = []

    def newest() -> ssl.SSLContext:
        given.append(tls[0])
        return tls[0]

    port = free()
    serving = asyncio.create_task(Door(_nothing, TERMS).serve("127.0.0.1", port, setting="none", tls=newest))
    await asyncio.sleep(0.1)
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls[1])
        writer.write(HELLO)
        await answered(reader)
        writer.transport.abort()
    assert len(given) == 2
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _nothing(request: Request) -> Answer:
    return Answer()
