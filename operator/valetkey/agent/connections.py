"""How are connections kept from one access to the next? By event loop: a handshake takes as long as a request."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import aiohttp

_LONGEST_LINE: Final = 4 << 20
_IDLE: Final = 75.0
"""Seconds; the API server closes what is idle after 90."""


class Sessions(NamedTuple):
    """Two, for a watch that is left takes its connection along: the call that says so is not to wait for another."""

    calls: aiohttp.ClientSession
    watches: aiohttp.ClientSession


_Key = tuple[int, str, int]
_Kept = tuple[Sessions, AsyncGenerator[None, None]]
_kept: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, _Kept]] = WeakKeyDictionary()


async def sessions(authority: Path | None, context: Callable[[], ssl.SSLContext]) -> Sessions:
    """Those of this event loop for whoever trusts the CA in that file, as it is now; they close with the loop.

    `context` is made where there are none yet; what it raises is raised.
    """
    key = os.getpid(), str(authority), _changed(authority)
    kept = _kept.setdefault(asyncio.get_running_loop(), {})
    if key not in kept or kept[key][0].calls.closed:
        trusts = context()
        made = Sessions(_session(trusts), _session(trusts))
        # What a loop does with generators at its end is the one thing that closes them in time.
        closes = _until_the_loop_ends(made)
        await anext(closes)
        kept[key] = made, closes
    return kept[key][0]


async def close() -> None:
    """Closes what is kept for this event loop, before it ends."""
    for _, closes in _kept.pop(asyncio.get_running_loop(), {}).values():
        await closes.aclose()


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, keepalive_timeout=_IDLE),
        headers={"User-Agent": "valetkey-agent", "Accept": "application/json", "Accept-Encoding": "identity"},
        read_bufsize=_LONGEST_LINE,
    )


def _changed(authority: Path | None) -> int:
    try:
        return 0 if authority is None else authority.stat().st_mtime_ns
    except OSError:
        return 0


async def _until_the_loop_ends(made: Sessions) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        for session in made:
            await session.close()
        for _ in range(3):  # a transport that is closed is gone some turns of the loop later
            await asyncio.sleep(0)
