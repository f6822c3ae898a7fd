"""Events: the same reasons where people look with kubectl; a view that lives an hour, never the record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from valetkey.kinds.base import API_VERSION, Metadata, format_time
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json

_BACKLOG: Final = 2000
_logger = logging.getLogger(__name__)


class Events:
    """Posts Events behind the path's back; when too many wait, the newest are dropped, for the log has them."""

    def __init__(self, api: Api, *, instance: str, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._instance = instance
        self._clock = clock
        self._queue: asyncio.Queue[tuple[str, Json]] = asyncio.Queue(_BACKLOG)

    def post(
        self,
        kind: str,
        about: Metadata,
        reason: str,
        message: str,
        *,
        severity: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Takes one Event for posting; returns at once."""
        body: Json = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "generateName": f"{about.name[:200].rstrip('.-')}-",
                "namespace": about.namespace or "default",
            },
            "eventTime": format_time(self._clock()),
            "reportingController": "valetkey.dev/operator",
            "reportingInstance": self._instance[:128],
            "action": reason,
            "reason": reason,
            "type": severity,
            "note": message.encode()[:1024].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": about.name,
                "namespace": about.namespace,
                "uid": about.uid,
                "resourceVersion": about.resource_version,
            },
        }
        try:
            self._queue.put_nowait((about.namespace or "default", body))
        except asyncio.QueueFull:
            _logger.warning("event dropped: %s %s/%s", reason, about.namespace, about.name)

    async def run(self) -> None:
        """Posts what is taken, for ever."""
        while True:
            namespace, body = await self._queue.get()
            try:
                await self._api.create(paths.collection("Event", namespace), body)
            except ApiError as error:
                _logger.warning("event not posted: %s", error)
