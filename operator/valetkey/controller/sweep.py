"""Sweep: what issuers made and no TaskGrant names any more is removed; what lives, or is not ours, is never touched."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from itertools import chain, islice, repeat
from typing import Final

from valetkey.controller.backends import Backends, in_time
from valetkey.errors import AccessError
from valetkey.issuers.base import Found, Issuer
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kube import paths
from valetkey.kube.api import ApiError, RewoundError
from valetkey.reasons import Reason

AT_ONCE: Final = 16
"""Orphans removed side by side."""
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

    async def keep_sweeping(self) -> None:
        """Sweeps at once, once more when the last writes of an earlier leader have come in, then again for ever."""
        for pause in chain((SETTLES_AFTER,), repeat(self._every)):
            await self.sweep()
            await asyncio.sleep(min(pause, self._every).total_seconds())

    async def sweep(self) -> None:
        """Removes what belongs to no TaskGrant, with a record of each; one issuer's trouble is not another's."""
        for name, issuer in self._backends.issuers.items():
            try:
                await self._sweep(name, issuer)
            except (AccessError, ApiError) as error:
                _logger.warning("sweep of %s: %s; it is tried again", name, error)
            except RewoundError:
                raise
            except Exception:
                # It reads what anybody may have written: a surprise there must not stop revocation.
                _logger.exception("sweep of %s: unexpected", name)

    async def _sweep(self, name: str, issuer: Issuer) -> None:
        known = self._known()
        suspects = {found async for found in issuer.found() if found.owner not in known}
        told = self._told[name] = self._told.get(name, set()) & suspects
        if not suspects:
            return
        # A grant is written before anything is made for it, and goes after all of it is proved gone. So whatever is
        # seen before the grants are listed, and again after, belongs to none of them if it is not named there.
        living = await self._living() | self._known()
        orphans = [found async for found in issuer.found() if found in suspects and found.owner not in living]
        waiting = iter(orphans)
        while batch := list(islice(waiting, AT_ONCE)):
            await asyncio.gather(*(self._remove(issuer, found, told) for found in batch))

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

    async def _remove(self, issuer: Issuer, found: Found, told: set[Found]) -> None:
        made = found.made
        what = f"{made.kind} {made.namespace}/{made.name}" if made.namespace else f"{made.kind} {made.name}"
        try:
            if found not in told:
                told.add(found)
                message = f"{what} belongs to no TaskGrant"
                await self._backends.write_regardless("OrphanFound", request_uid=found.owner, message=message)
            proof = await in_time(issuer.unmake(found), Reason.REVOCATION_PENDING)
            message = f"{what}; proof: {proof}"
            await self._backends.write_regardless("OrphanRemoved", request_uid=found.owner, message=message)
        except AccessError as error:
            _logger.warning("sweep: %s: %s", what, error.message)
        else:
            _logger.warning("sweep: %s belonged to no TaskGrant and was removed", what)
