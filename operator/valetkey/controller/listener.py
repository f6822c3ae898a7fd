"""Listener: shows the metrics over HTTP, at GET /metrics and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

AGAIN: Final = timedelta(seconds=5)
"""How soon a port that could not be had is tried again."""
KEPT_FOR: Final = timedelta(seconds=1)

_logger = logging.getLogger(__name__)


class _Page:
    """The metrics as text, made once a second at most: the loop that makes it revokes too, and anybody may ask."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made, self._text = -KEPT_FOR.total_seconds(), b""

    async def show(self, _: web.Request) -> web.Response:
        """Answers one scrape."""
        now = time.monotonic()
        if now - self._made >= KEPT_FOR.total_seconds():
            self._made, self._text = now, generate_latest(self._registry)
        return web.Response(body=self._text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


async def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serves for ever, on all addresses where `host` is empty; a port that cannot be had is tried again and again."""
    application = web.Application()
    application.router.add_get("/metrics", _Page(registry).show, allow_head=False)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await _bind(runner, host, port)
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int) -> None:
    while True:
        site = web.TCPSite(runner, host or None, port)
        try:
            await site.start()
        except OSError as error:
            _logger.error("metrics: %s; free it or set metrics.port; it is tried again", error)
            await site.stop()
            await asyncio.sleep(AGAIN.total_seconds())
        else:
            return
