"""Notices: a webhook is told when a request begins to wait for people, and when something is granted in an emergency.

Nothing waits for it, and it grants nothing.

CloudEvents 1.0 in structured mode. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from valetkey.controller import status
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_seconds, format_time
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import Json
from valetkey.policy.decide import Waiting
from valetkey.policy.emergencies import review_command
from valetkey.policy.notation import line_of_request

APPROVAL_REQUESTED: Final = "dev.valetkey.approval.requested"
BREAK_GLASS_USED: Final = "dev.valetkey.breakglass.used"
TRIES: Final = 5
_BACKLOG: Final = 256
"""How many notices wait that ask people."""
_ANSWERS_WITHIN: Final = timedelta(seconds=5)

_logger = logging.getLogger(__name__)


class Notices:
    """Posts notices behind the path's back; what cannot be delivered is dropped, for request and Event say the same."""

    def __init__(
        self, url: str, *, cluster: str, clock: Callable[[], datetime], pause: timedelta = timedelta(seconds=1)
    ) -> None:
        """`pause` is how long the second try waits; each one after it twice as long."""
        self._url = url
        # Of the address itself no log has more: its path may be what the receiver knows its friends by.
        self._host = urlsplit(url).hostname
        self._cluster, self._clock, self._pause = cluster, clock, pause
        self._queue: asyncio.PriorityQueue[tuple[bool, int, Json]] = asyncio.PriorityQueue()
        self._number = itertools.count()
        self._asking = 0
        """How many notices wait that ask people: as many as agents want, and none of them holds up the others."""

    def post(self, request: AccessRequest, waiting: Waiting) -> None:
        """Takes the notice that a request has begun to wait; returns at once."""
        metadata = request.metadata
        self._put(
            self._event(
                APPROVAL_REQUESTED,
                request,
                {
                    "policy": waiting.policy,
                    "approvals": waiting.needed,
                    "until": format_seconds(metadata.creation_timestamp + waiting.timeout),
                    "command": f"kubectl valetkey approve {metadata.namespace}/{metadata.name}",
                },
                once=waiting.policy,
            ),
            asks=True,
        )

    def post_used(self, request: AccessRequest, grant: TaskGrant) -> None:
        """Takes the notice that something was granted in an emergency; returns at once."""
        order, metadata = grant.spec.order, request.metadata
        assert order.review_by is not None
        name = f"{metadata.namespace}/{metadata.name}"
        self._put(
            self._event(
                BREAK_GLASS_USED,
                request,
                {
                    "policy": order.policy.name,
                    "reviewBy": format_seconds(order.review_by),
                    "until": format_seconds(order.not_after),
                    "command": review_command(name, order.request_uid, order.policy.name),
                },
                once="used",
            ),
            asks=False,
        )

    def _put(self, event: Json, *, asks: bool) -> None:
        if asks and self._asking >= _BACKLOG:
            return _logger.warning("%s was not told of %s: too many wait", self._host, event["subject"])
        self._asking += asks
        return self._queue.put_nowait((asks, next(self._number), event))

    async def run(self) -> None:
        """Posts what is taken, one after the other, for ever."""
        timeout = aiohttp.ClientTimeout(total=_ANSWERS_WITHIN.total_seconds())
        async with aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "valetkey"}) as session:
            while True:
                asks, _, event = await self._queue.get()
                self._asking -= asks
                await self._deliver(session, event)

    async def _deliver(self, session: aiohttp.ClientSession, event: Json) -> None:
        pause, body = self._pause.total_seconds(), orjson.dumps(event)
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        for left in reversed(range(TRIES)):
            try:
                # Where it sends us would get to read what agents are about to do.
                sent = session.post(self._url, data=body, headers=headers, allow_redirects=False)
                async with sent as response:
                    if response.status // 100 == 2:
                        return
                    why = f"it answered {response.status}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = type(error).__name__  # whose text may hold the address
            _logger.warning("%s was not told of %s: %s; %d more tries", self._host, event["subject"], why, left)
            if left:
                await asyncio.sleep(pause)
                pause *= 2

    def _event(self, kind: str, request: AccessRequest, more: Json, *, once: str) -> Json:
        """`once` is what it says, so that the same about a request is the same event."""
        metadata, task = request.metadata, request.spec.task
        return {
            "specversion": "1.0",
            "id": f"{metadata.uid}/{once}",
            "source": f"/valetkey/{self._cluster}",
            "type": kind,
            "subject": f"{metadata.namespace}/{metadata.name}",
            "time": format_time(self._clock()),
            "datacontenttype": "application/json",
            "data": {
                "access": line_of_request(request.spec),
                "objective": task.objective,
                "purpose": task.purpose,
                "agent": f"{metadata.namespace}/{status.agent(request)}",
                **({} if request.spec.parent is None else {"parent": str(request.spec.parent)}),
                **more,
            },
        }
