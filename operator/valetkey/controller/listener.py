"""Listener: shows the metrics over HTTP, at GET /metrics and nowhere else."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from valetkey.door import Door
from valetkey.messages import Answer, Request

KEPT_FOR: Final = timedelta(seconds=1)


class _Page:
    """The metrics as text, made once a second at most: the loop that makes it revokes too, and anybody may ask."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made, self._text = -KEPT_FOR.total_seconds(), b""

    async def answer(self, request: Request) -> Answer:
        """The page of this second."""
        if request.path != "/metrics":
            return Answer("404 Not Found")
        now = time.monotonic()
        if now - self._made >= KEPT_FOR.total_seconds():
            self._made, self._text = now, generate_latest(self._registry)
        return Answer(headers=(f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}",), body=self._text)


async def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serves for ever, on all addresses where `host` is empty; a port that cannot be had is tried again and again."""
    await Door(_Page(registry).answer).serve(host, port, setting="metrics.port")
