"""Reviews: what was granted in an emergency is looked at by somebody, in time, or everybody hears of it.

The leader takes a use of a break-glass policy off its ledger when a person who may approve for that policy says so, and
remembers nothing else: what is to be reviewed is in the ledgers, and who has is in the AccessApprovals.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from valetkey.audit import history
from valetkey.controller.approvals import Approvals
from valetkey.controller.backends import Backends
from valetkey.controller.ledgers import Ledgers
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.base import format_seconds
from valetkey.kinds.ledger import Emergency
from valetkey.kube.api import ApiError
from valetkey.reasons import Reason

EVERY: Final = timedelta(seconds=2)

_logger = logging.getLogger(__name__)


class Reviews:
    """Looks for reviews of what was granted in emergencies."""

    def __init__(self, backends: Backends, ledgers: Ledgers) -> None:
        self._backends, self._ledgers = backends, ledgers
        self._approvals = Approvals(backends)
        self._told: set[str] = set()
        """Requests (uids) of which it was said that they were not reviewed in time."""

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                _logger.warning("reviews: %s; it is tried again", error)
            await asyncio.sleep(EVERY.total_seconds())

    async def look(self) -> None:
        """Takes what was reviewed off the ledgers, and tells once of what was not in time; raises ApiError."""
        await self._ledgers.read()
        for namespace, use in self._ledgers.emergencies():
            review = await self._approvals.reviewed(namespace, use)
            if review is not None:
                await self._take_off(namespace, use, review)
            elif use.review_by <= self._backends.clock() and use.request not in self._told:
                self._told.add(use.request)
                message = f"it was to be reviewed by {format_seconds(use.review_by)}, and nobody has"
                await self._backends.write_regardless(Reason.REVIEW_OVERDUE, **_about(namespace, use), message=message)

    async def _take_off(self, namespace: str, use: Emergency, review: AccessApproval) -> None:
        said = review.spec
        message = f"by {said.approver.username} ({review.metadata.name}): {said.reason}"
        await self._backends.write_regardless(history.REVIEWED, **_about(namespace, use), message=message)
        await self._ledgers.reviewed(namespace, use.request)
        self._told.discard(use.request)


def _about(namespace: str, use: Emergency) -> dict[str, str]:
    return {"request": f"{namespace}/{use.name}", "request_uid": use.request, "policy": use.policy}
