"""Reviews: what was granted in an emergency is looked at by somebody, in time, or log and metrics say that it was not.

The leader takes a use of a break-glass policy off its ledger when a person who may approve for that policy says so.
What is to be reviewed is in the ledgers, and who has is in the AccessApprovals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from datetime import timedelta
from typing import Final

from valetkey.audit import history
from valetkey.controller.approvals import Approvals
from valetkey.controller.backends import Backends
from valetkey.controller.ledgers import Ledgers
from valetkey.errors import AccessError
from valetkey.kinds.base import format_seconds
from valetkey.kinds.ledger import Emergency
from valetkey.kube.api import ApiError

_WORDS: Final = (history.REVIEWED, history.UNREVIEWED, history.FORGOTTEN)
EVERY: Final = timedelta(seconds=2)

_logger = logging.getLogger(__name__)


class Reviews:
    """Looks for reviews of what was granted in emergencies."""

    def __init__(self, backends: Backends, ledgers: Ledgers, *, namespaces: Callable[[], Container[str]]) -> None:
        """`namespaces` are those that there are."""
        self._backends, self._ledgers, self._namespaces = backends, ledgers, namespaces
        self._approvals = Approvals(backends)
        self._told: set[tuple[str, str]] = set()
        """Requests (uids) and what was said of them in the log already."""

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY.total_seconds())

    async def look(self) -> None:
        """Takes what was reviewed off the ledgers, and tells once of what was not in time; one's trouble is its own."""
        try:
            await self._ledgers.read()
        except ApiError as error:
            return _logger.warning("ledgers: %s; they are read again", error)
        uses = self._ledgers.emergencies()
        self._told &= {(use.request, what) for _, use in uses for what in _WORDS}
        for namespace, use in uses:
            try:
                await self._look_at(namespace, use)
            except (ApiError, AccessError) as error:
                _logger.warning("review of %s/%s: %s; it is tried again", namespace, use.name, error)
        return None

    async def _look_at(self, namespace: str, use: Emergency) -> None:
        if namespace not in self._namespaces():
            await self._tell(history.FORGOTTEN, namespace, use, "its namespace is gone, and nobody can review it")
            return self._ledgers.forget(namespace)
        review = await self._approvals.reviewed(namespace, use)
        if review is not None:
            said = review.spec
            message = f"by {said.approver.username} ({review.metadata.name}): {said.reason}"
            await self._tell(history.REVIEWED, namespace, use, message)
            return await self._ledgers.reviewed(namespace, use)
        if use.review_by <= self._backends.clock():
            message = f"it was to be reviewed by {format_seconds(use.review_by)}, and nobody has"
            await self._tell(history.UNREVIEWED, namespace, use, message)
        return None

    async def _tell(self, what: str, namespace: str, use: Emergency, message: str) -> None:
        """Puts on record, once in this life, what becomes of a use."""
        if (use.request, what) in self._told:
            return
        self._told.add((use.request, what))
        about = {"request": f"{namespace}/{use.name}", "request_uid": use.request, "policy": use.policy}
        await self._backends.write_regardless(what, **about, message=message)
