"""Rows 4 and 6: real containers, which see their credential as a file and end by themselves."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.one import GRANTS, SECRETS, added, removed
from tests.bench.requests import request
from tests.bench.rig import OURS, Rig
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import Json, until
from tests.cluster.local.places import STATE

PODS = f"/api/v1/namespaces/{AGENTS}/pods"
AT_ONCE = 5
PROGRAM = """
until [ -s /var/run/valetkey/token ]; do sleep 0.02; done; : > /tmp/seen
until [ -e /tmp/done ]; do sleep 0.02; done; : > /tmp/exit
"""


@dataclass
class Containers:
    """Milliseconds, one of each for every container."""

    file: list[float] = field(default_factory=list)
    """From the Secret in a watcher's hands to the file in the container's."""
    exit: list[float] = field(default_factory=list)
    """From the container's exit to 403."""
    status: list[float] = field(default_factory=list)
    """From the status that says so, in a watcher's hands, to 403."""


def state(kind: str, body: Json) -> str | None:
    """The name of a pod, and whether it runs or has ended, by its phase or by its conditions."""
    status = body["status"]
    reasons = [condition.get("reason") for condition in status.get("conditions", [])]
    ended = status.get("phase") == "Succeeded" or "PodCompleted" in reasons
    return f"{body['metadata']['name']}/{'Ended' if ended else status.get('phase')}" if kind == "MODIFIED" else None


async def measure(rig: Rig, number: int) -> Containers:
    """One container after the other; the next ones start beside it."""
    times = Containers()
    async with (
        Watcher(rig.server, SECRETS, added) as secrets,
        Watcher(rig.server, GRANTS, removed) as gone,
        Watcher(rig.server, PODS, state) as states,
    ):
        for first in range(0, number, AT_ONCE):
            rig.say(f"containers: {first} of {number}")
            names = [f"container-{index}" for index in range(first, min(first + AT_ONCE, number))]
            pods = await asyncio.gather(*(_start(rig, name) for name in names))
            for name, pod in zip(names, pods, strict=True):
                await states.when(f"{name}/Running", seconds=60)
                await _one(rig, name, pod, times, secrets, states)
                await gone.when(name)
    return times


async def _start(rig: Rig, name: str) -> Json:
    mounts = [{"name": "valetkey", "mountPath": "/var/run/valetkey"}, {"name": "tmp", "mountPath": "/tmp"}]
    spec = {
        "nodeName": rig.cluster.node,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "main",
                "image": "valetkey-demo:dev",
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", PROGRAM],
                "volumeMounts": mounts,
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return await rig.make_pod(name, spec)


async def _one(rig: Rig, name: str, pod: Json, times: Containers, secrets: Watcher, states: Watcher) -> None:
    token = await rig.token(pod)
    await rig.server.send("POST", f"{OURS}/namespaces/{AGENTS}/accessrequests", request(name, pod, token), token=token)
    placed, secret = await secrets.when(f"valetkey-{name}")
    tmp = STATE / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes" / "kubernetes.io~empty-dir" / "tmp"
    seen = await _made(tmp / "seen")
    times.file.append((seen - _wall(placed)) * 1000)
    credential = base64.b64decode(secret["data"]["token"]).decode()
    await asyncio.sleep(0.2)
    await rig.server.status(f"/api/v1/namespaces/{AGENTS}", credential)
    refused = asyncio.create_task(rig.server.refused(credential))
    (tmp / "done").touch()
    exited = await _made(tmp / "exit")
    told, _ = await states.when(f"{name}/Ended")
    dead = await refused
    times.exit.append((_wall(dead) - exited) * 1000)
    times.status.append((dead - told) * 1000)


async def _made(path: Path) -> float:
    """When a file was made, by its own time."""

    async def there() -> bool:
        return path.exists()  # noqa: ASYNC240 - a look at a local directory

    await until(there, f"{path} to be made", pause=0.01)
    return path.stat().st_mtime  # noqa: ASYNC240


def _wall(counter: float) -> float:
    return time.time() - time.perf_counter() + counter
