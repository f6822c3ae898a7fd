"""Takeover: what a new leader looks at, and in which order.

Each key is looked at once, for anything may have changed while nobody led. What is known to need something comes first;
the others come a few at a time, for a new request is not to wait until ten thousand live grants have been looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Final

from valetkey.controller.cache import Cache, GrantNote
from valetkey.controller.parents import Standing, standing
from valetkey.controller.queue import Key, Queue

AT_A_TIME: Final = 50
TAKEN_WITHIN: Final = timedelta(seconds=0.25)
"""How long the next few wait for those before them: many endings of one namespace hold no other's looks up for ever."""


async def look_at_all(cache: Cache, queue: Queue, now: datetime) -> None:
    """Makes every key ready: endings and whatever is half done at once, then new requests, then all that only waits."""
    waiting: list[tuple[Key, bool]] = []
    for key in cache.vanished:
        queue.add(key, ending=True)
    for key, grant in cache.grants.notes():
        if _needs_something(cache, key, grant, now):
            queue.add(key, ending=True)
        else:
            queue.add_at(key, grant.due, ending=True)  # its time may be up before its turn comes
            waiting.append((key, True))
    for key, request in cache.requests.notes():
        if key in cache.grants:
            continue
        if request.finished:
            waiting.append((key, False))
        else:
            queue.add(key, ending=False)
    for first in range(0, len(waiting), AT_A_TIME):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(queue.endings_taken(), TAKEN_WITHIN.total_seconds())
        for key, ending in waiting[first : first + AT_A_TIME]:
            queue.add(key, ending=ending)


def _needs_something(cache: Cache, key: Key, grant: GrantNote, now: datetime) -> bool:
    """Whether a grant is known to end, or to be half made, as far as can be said without looking at it."""
    request, pod = cache.requests.note(key), cache.pods.get(key.namespace, grant.pod)
    if request is None or request.uid != grant.request or request.finished or request.released:
        return True
    if pod is None or pod.terminating or pod.finished:
        return True
    if grant.request in cache.over or (cache.restored is not None and grant.created < cache.restored):
        return True
    if standing(cache, grant.parent) is not Standing.LIVE:
        return True
    return grant.ending or grant.due <= now or not grant.delivered
