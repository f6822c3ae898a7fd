"""A flood of one namespace's requests, and how long those of another wait meanwhile."""

from __future__ import annotations

import asyncio
import contextlib

from tests.bench import one
from tests.bench.requests import request
from tests.bench.rig import OURS, Rig
from tests.bench.server import FLOOD
from tests.cluster.api import Json

_AT_ONCE = 8


async def measure(rig: Rig, requests: int, samples: int) -> tuple[dict[str, list[float]], dict[str, list[float]], int]:
    """Times as of `one`, in the quiet and in the flood, and how many requests the flood came to."""
    quiet = await one.measure(rig, samples, "quiet")
    pod = await rig.pod("flooder", FLOOD)
    token = await rig.token(pod)
    sent = 0

    async def flooder(which: int) -> None:
        nonlocal sent
        for number in range(requests // _AT_ONCE):
            # What is dropped, or refused for another is granted, is the flood's own affair.
            with contextlib.suppress(RuntimeError):
                await _ask(rig, f"flood-{which}-{number}", pod, token)
                sent += 1
            if sent % 1000 == 0:
                rig.say(f"flood: {sent} requests")

    flood = [asyncio.create_task(flooder(which)) for which in range(_AT_ONCE)]
    await asyncio.sleep(3)
    try:
        loud = await one.measure(rig, samples, "loud", until=lambda: all(task.done() for task in flood))
    finally:
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    return quiet, loud, sent


async def _ask(rig: Rig, name: str, pod: Json, token: str) -> None:
    path = f"{OURS}/namespaces/{FLOOD}/accessrequests"
    await rig.server.send("POST", path, request(name, pod, token), token=token)
