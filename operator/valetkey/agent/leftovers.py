"""What of the processes that died in this pod? What they asked for is ended."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from valetkey.agent import answer, entries
from valetkey.agent.api import Api, ApiError, persistently
from valetkey.agent.asking import path_of, report
from valetkey.agent.entries import Entry

_log: Final = logging.getLogger("valetkey")
_FOR: Final = 30.0
_EACH_FOR: Final = 10.0
_looked_at: set[Path] = set()


def first_look(directory: Path) -> bool:
    """Whether this process has not looked at what is left there yet; from now on it has."""
    first = directory not in _looked_at
    _looked_at.add(directory)
    return first


async def end_leftovers(api: Api, directory: Path) -> None:
    """Ends what nobody holds any more and takes it away, as far as that can be done in half a minute."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FOR):
            for entry in entries.dead(directory):
                await _end(api, entry)


async def _end(api: Api, entry: Entry) -> None:
    over = False
    try:
        over = await _is_over(api, entry)
    except (ApiError, OSError) as error:
        _log.warning("what an earlier process left in %s stays: %s", entry.path, error)
    finally:
        if over:
            entry.remove()
        else:
            entry.release()


async def _is_over(api: Api, entry: Entry) -> bool:
    reference = entry.reference()
    if reference is None:
        return True
    if not reference.kept:
        entry.shred()
        return await report(api, reference, reference.outcome or "Cancelled", seconds=_EACH_FOR)
    try:
        found = await persistently(lambda: api.get(path_of(reference)))
    except ApiError as error:
        if error.status == 404:
            return True
        raise
    return answer.read(found).over is not None
