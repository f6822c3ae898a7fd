"""Messages: one request of HTTP/1.1 as it comes in, one answer as it goes out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class RefusedError(Exception):
    """What came is no request that is answered here; says so in HTTP's own words, and why."""

    def __init__(self, status: str, why: str, *headers: str) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


async def _nothing() -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for."""

    path: str
    """As it was sent, without what follows a question mark."""
    headers: Mapping[str, str]
    """By name in lower case."""
    method: str = "GET"
    query: str = ""
    """What follows the question mark."""
    body: Callable[[], Awaitable[bytes]] = _nothing
    """Reads what was sent along; raises RefusedError. Whoever needs no body does not wait for it."""


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
    last: bool = False
    """Whether the connection ends with it, though it need not."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request."""

    method: str
    path: str
    query: str
    version: str
    lines: tuple[str, ...]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, text: bytes) -> Head:
        """Reads one; raises RefusedError where a line of it could be taken for two."""
        # Latin-1 has a character for each byte: whatever was sent can be compared.
        first, *lines = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        if any(end in line for line in (first, *lines) for end in "\r\n\0"):
            raise RefusedError("400 Bad Request", "a line of the head ends with CR and LF, and has neither in it")
        method, _, rest = first.partition(" ")
        target, _, version = rest.partition(" ")
        path, _, query = target.partition("?")
        named = (line.partition(":") for line in lines if ":" in line)
        headers = {name.strip(" \t").lower(): value.strip(" \t") for name, _, value in named}
        return cls(method, path, query, version, tuple(lines), headers)

    @property
    def last(self) -> bool:
        """Whether whoever sent it wants one answer on this connection and no more."""
        return self.version != "HTTP/1.1" or "close" in self.headers.get("connection", "").lower()

    @property
    def waits(self) -> bool:
        """Whether whoever sent it sends the body when it is told that it will be read."""
        return self.headers.get("expect", "").lower() == "100-continue"

    def length(self, most: int) -> int | None:
        """Bytes of its body; None where it has none. Raises RefusedError.

        Whatever stands between could take it for another length must not be: the rest would pass for a request.
        """
        names = []
        for line in self.lines:
            name, colon, _ = line.partition(":")
            if not colon or not _NAME.fullmatch(name):
                raise RefusedError("400 Bad Request", "a line of the head is no header")
            names.append(name.lower())
        if "transfer-encoding" in names:
            raise RefusedError("411 Length Required", "a body comes with its Content-Length, and not in chunks")
        said = self.headers.get("content-length")
        if said is None:
            return None
        if names.count("content-length") > 1 or not re.fullmatch(r"[0-9]{1,18}", said):
            raise RefusedError("400 Bad Request", "Content-Length is one number")
        if int(said) > most:
            raise RefusedError("413 Content Too Large", f"a body has {most} bytes at most")
        return int(said)
