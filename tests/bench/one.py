"""Rows 1 and 3: one grant at a time, valetkey's and the bare client's in turn."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable

from tests.bench.requests import copied, grant, request
from tests.bench.rig import OURS, Rig
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import Json

SECRETS = f"/api/v1/namespaces/{AGENTS}/secrets"
GRANTS = f"{OURS}/namespaces/{AGENTS}/taskgrants"


def added(kind: str, body: Json) -> str | None:
    """The name of what has come."""
    return str(body["metadata"]["name"]) if kind == "ADDED" else None


def removed(kind: str, body: Json) -> str | None:
    """The name of what has gone."""
    return str(body["metadata"]["name"]) if kind == "DELETED" else None


async def measure(
    rig: Rig, number: int, prefix: str = "one", *, until: Callable[[], bool] = lambda: False
) -> dict[str, list[float]]:
    """Milliseconds from request to credential and from outcome to refusal, of both sides; `until` may end it sooner."""
    times: dict[str, list[float]] = {key: [] for key in ("ready", "bare ready", "dead", "bare dead")}
    pod = await rig.pod(prefix)
    token = await rig.token(pod)
    async with Watcher(rig.server, SECRETS, added) as secrets, Watcher(rig.server, GRANTS, removed) as gone:
        for index in range(number):
            if until():
                break
            if index % 50 == 0:
                rig.say(f"one at a time ({prefix}): {index} of {number}")
            ready, dead = await _valetkey(rig, f"{prefix}-{index}", pod, token, secrets, gone)
            times["ready"].append(ready)
            times["dead"].append(dead)
            ready, dead = await bare(rig, f"bare-{prefix}-{index}", pod, token, secrets)
            times["bare ready"].append(ready)
            times["bare dead"].append(dead)
    return times


async def _valetkey(rig: Rig, name: str, pod: Json, token: str, secrets: Watcher, gone: Watcher) -> tuple[float, float]:
    path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
    place = f"valetkey-{pod['metadata']['name']}"
    secrets.forget(place)
    body = request(name, pod, token)
    sent = time.perf_counter()
    await rig.server.send("POST", path, body, token=token)
    seen, secret = await secrets.when(place)
    credential = base64.b64decode(secret["data"]["token"]).decode()
    await asyncio.sleep(0.05)  # its status is written by then, as an agent's first work would be
    await rig.server.status(f"/api/v1/namespaces/{AGENTS}", credential)
    ended = time.perf_counter()
    refused = asyncio.create_task(rig.server.refused(credential))
    await rig.server.send("PATCH", f"{path}/{name}", {"spec": {"outcome": "Succeeded"}}, token=token)
    dead = await refused
    await gone.when(name)
    return (seen - sent) * 1000, (dead - ended) * 1000


async def bare(
    rig: Rig, name: str, pod: Json, token: str, answers: Watcher, *, sealed: bool = False, reversible: bool = False
) -> tuple[float, float]:
    """Milliseconds from request to credential and from outcome to refusal of one chain of the bare client.

    `answers` sees its Secret, or what is `sealed` in its status.
    """
    body = copied(request(name, pod, token))
    sent = time.perf_counter()
    credential, uids = await rig.bare.begin(name, body, grant(name, pod), pod, sealed=sealed)
    seen, _ = await answers.when(name)
    await asyncio.sleep(0.05)
    await rig.server.status(f"/api/v1/namespaces/{AGENTS}", credential)
    refused = asyncio.create_task(rig.server.refused(credential))
    ended = await rig.bare.end(name, uids, pod, reversible=reversible)
    return (seen - sent) * 1000, (await refused - ended) * 1000
