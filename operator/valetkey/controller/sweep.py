"""Sweep: what issuers made and no TaskGrant names any more is removed; what lives, or is not ours, is never touched.

Whoever may write Roles can make thousands that look like orphans. They go too, but neither memory nor the log is theirs
to fill.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from itertools import chain, islice, repeat
from time import monotonic
from typing import Final

from valetkey.controller.backends import Backends, in_time
from valetkey.errors import AccessError, UnavailableError
from valetkey.issuers.base import Found, Issuer
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kube import paths
from valetkey.kube.api import ApiError, RewoundError
from valetkey.reasons import Reason

AT_ONCE: Final = 16
"""Orphans removed side by side."""
LOOKED_AT: Final = 500
"""Suspects that are looked at together, of one kind in one namespace: no tenant's many hide what is left elsewhere."""
ONE_BY_ONE: Final = 50
"""Orphans that the log tells of by themselves in one sweep; of the others by their number. So a tenant who makes them
without end has 10 MB of the log a day."""
SETTLES_AFTER: Final = timedelta(seconds=3)
"""The API server refuses an earlier leader some 20 ms after another has come to lead."""

_logger = logging.getLogger(__name__)


class Sweep:
    """Looks for orphans: what was still on its way when its grant was let go, or came back with a restored store."""

    def __init__(self, backends: Backends, *, every: timedelta) -> None:
        self._backends = backends
        self._every = every
        self._told: dict[str, set[Found]] = {}
        """Orphans by issuer that the log tells of already: one that cannot be removed is found again each time."""
        self._may_tell = 0
        """Of how many more the log is told by themselves in this sweep."""
        self._untold = 0
        """Orphans that were removed, and of which the log has not even the number."""

    async def keep_sweeping(self) -> None:
        """Sweeps at once, once more when the last writes of an earlier leader have come in, then again for ever."""
        for pause in chain((SETTLES_AFTER,), repeat(self._every)):
            await self.sweep()
            await asyncio.sleep(min(pause, self._every).total_seconds())

    async def sweep(self) -> None:
        """Removes what belongs to no TaskGrant, with a record; one issuer's trouble is not another's."""
        self._may_tell, until = ONE_BY_ONE, monotonic() + self._every.total_seconds()
        for name, issuer in self._backends.issuers.items():
            try:
                while await self._sweep(name, issuer) and monotonic() < until:
                    pass
            except (AccessError, ApiError) as error:
                _logger.warning("sweep of %s: %s; it is tried again", name, error)
            except RewoundError:
                raise
            except Exception:
                # It reads what anybody may have written: a surprise there must not stop revocation.
                _logger.exception("sweep of %s: unexpected", name)
        await self._tell_of_the_others()

    async def _sweep(self, name: str, issuer: Issuer) -> bool:
        """Gives whether it is worth while to go on at once: some went, and there may be more than were looked at."""
        known, suspects, places = self._known(), set[Found](), Counter[tuple[str, str | None]]()
        async for found in issuer.found():
            place = found.made.kind, found.made.namespace
            if found.owner not in known and places[place] < LOOKED_AT:
                places[place] += 1
                suspects.add(found)
        told = self._told[name] = self._told.get(name, set()) & suspects
        if not suspects:
            return False
        # A grant is written before anything is made for it, and goes after all of it is proved gone. So whatever is
        # seen before the grants are listed, and again after, belongs to none of them if it is not named there.
        living = await self._living() | self._known()
        orphans = [found async for found in issuer.found() if found in suspects and found.owner not in living]
        waiting, gone = iter(orphans), 0
        while batch := list(islice(waiting, AT_ONCE)):
            gone += sum(await asyncio.gather(*(self._remove(issuer, found, told) for found in batch)))
        return gone > 0 and max(places.values()) >= LOOKED_AT

    def _known(self) -> set[str]:
        """The requests of grants that are known to live, or whose revocation is still under way."""
        cache = self._backends.cache
        known = {note.request for _, note in cache.grants.notes()}
        return known | {grant.spec.request.uid for grant in cache.vanished.values()}

    async def _living(self) -> set[str]:
        """The requests of all grants there are, wherever they are."""
        path = paths.collection("TaskGrant")
        grants = self._backends.api.list(path, metadata_only=True)
        return {body["metadata"].get("labels", {}).get(REQUEST_LABEL, "") async for body in grants}

    async def _remove(self, issuer: Issuer, found: Found, told: set[Found]) -> bool:
        made = found.made
        what = f"{made.kind} {made.namespace}/{made.name}" if made.namespace else f"{made.kind} {made.name}"
        try:
            if found not in told and self._may_tell and self._has_room():
                self._may_tell -= 1
                told.add(found)
                message = f"{what} belongs to no TaskGrant"
                await self._backends.write_regardless("OrphanFound", request_uid=found.owner, message=message)
            proof = await in_time(issuer.unmake(found), Reason.REVOCATION_PENDING)
            if found in told and self._has_room():
                message = f"{what}; proof: {proof}"
                await self._backends.write_regardless("OrphanRemoved", request_uid=found.owner, message=message)
            else:
                self._untold += 1
        except AccessError as error:
            _logger.warning("sweep: %s: %s", what, error.message)
            return False
        _logger.warning("sweep: %s belonged to no TaskGrant and was removed", what)
        return True

    async def _tell_of_the_others(self) -> None:
        if self._untold and self._has_room():
            message, self._untold = f"{self._untold} more that belonged to no TaskGrant", 0
            await self._backends.write_regardless("OrphanRemoved", message=message)

    def _has_room(self) -> bool:
        """Whether the log has more room than is kept for endings."""
        try:
            self._backends.log.demand_room()
        except UnavailableError:
            return False
        return True
