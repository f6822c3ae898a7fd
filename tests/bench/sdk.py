"""What an agent's own code feels: access by the SDK, one block after the other, fifty agents at once, a restart."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import valetkey
from tests.bench.one import GRANTS, bare, removed
from tests.bench.rig import Rig, spread
from tests.bench.server import AGENTS, SHOP, Watcher
from tests.cluster.api import Json
from tests.cluster.audit_log import count
from tests.cluster.local.places import AUDIT_LOG, STATE

HERE = STATE / "bench-agents"
KEYS = Path("/dev/shm/valetkey-bench")
"""In memory, where the SDK keeps them by itself."""
COPIES = "/apis/without.example/v1alpha1"
READS = f"/api/v1/namespaces/{SHOP}/configmaps/any"
LATEST = 1.0
"""Seconds after its task in which no credential may work any more."""
Begin = Callable[[Path, str], valetkey.Access]
"""Access for a pod, whose mount is in that directory, for a task of that name."""


@dataclass(frozen=True)
class Served:
    """Fifty agents with twenty tasks each."""

    tasks: int
    failed: list[str]
    late: int
    """Tasks whose credential worked a second after it."""
    ready: list[float] = field(default_factory=list)
    """Milliseconds from entering to having it."""
    early: int = 0
    """Tasks whose first call came before the API server had read the binding; one within a second passed."""
    seconds: float = 0


def straight(mount: Path, task: str) -> valetkey.Access:
    """By the API server."""
    return valetkey.access(
        "bench",
        "measure",
        f"{SHOP}: get configmaps",
        task=task,
        account_directory=mount,
        state_directory=KEYS,
        timeout=120,
    )


@contextmanager
def inside(rig: Rig) -> Iterator[None]:
    """This process is in a pod, as far as the SDK can see."""
    server = urlsplit(rig.server.server)
    said = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port or 443)}
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    shutil.rmtree(HERE, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(KEYS, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


async def mount(rig: Rig, pod: Json, audience: str | None = None) -> Path:
    """The ServiceAccount's mount of a pod, as a kubelet makes it."""
    name = pod["metadata"]["name"]
    bundle = await rig.server.send("GET", f"/api/v1/namespaces/{AGENTS}/configmaps/kube-root-ca.crt")
    files = {"token": await rig.token(pod, audience), "namespace": AGENTS, "ca.crt": bundle["data"]["ca.crt"]}
    return _written(HERE / name, files)


def _written(made: Path, files: dict[str, str]) -> Path:
    made.mkdir(parents=True)
    for file, text in files.items():
        (made / file).write_text(text)
    return made


async def measure(rig: Rig, number: int, begin: Begin = straight, prefix: str = "sdk") -> dict[str, list[float]]:
    """Milliseconds from entering to having access and from leaving to refusal, and the bare chain's of the same."""
    times: dict[str, list[float]] = {key: [] for key in ("ready", "bare ready", "dead", "bare dead")}
    pod = await rig.pod(prefix)
    where, token = await mount(rig, pod), await rig.token(pod)
    answers = f"{COPIES}/namespaces/{AGENTS}/accessrequests"
    async with Watcher(rig.server, answers, _answered) as seen, Watcher(rig.server, GRANTS, removed) as gone:
        for index in range(number):
            if index % 50 == 0:
                rig.say(f"access by the SDK ({prefix}): {index} of {number}")
            ready, dead, name = await block(rig, begin, where, f"{prefix}-{index}")
            await gone.when(name)
            times["ready"].append(ready)
            times["dead"].append(dead)
            ready, dead = await bare(rig, f"bare-{prefix}-{index}", pod, token, seen, sealed=True)
            times["bare ready"].append(ready)
            times["bare dead"].append(dead)
    return times


async def calls(rig: Rig, number: int) -> float:
    """The operator's API calls for one access that is sealed, from beginning to end."""
    pod = await rig.pod("sdk-calls")
    where = await mount(rig, pod)
    since = datetime.now(UTC)
    async with Watcher(rig.server, GRANTS, removed) as gone:
        for index in range(number):
            _, _, name = await block(rig, straight, where, f"calls-{index}")
            await gone.when(name)
    await asyncio.sleep(2)  # the last Events are on their way
    counted = count(AUDIT_LOG, since, datetime.now(UTC))
    for name, often in sorted(counted.items()):
        rig.say(f"  {often:6} {name}")
    return sum(counted.values()) / number


async def many(rig: Rig, agents: int, tasks: int) -> Served:
    """So many agents, each with its tasks one after the other; each credential is tried a second after its task."""
    pods = await rig.pods("sdk-many", agents)
    mounts = await spread(16, [mount(rig, pod) for pod in pods])
    failed: list[str] = []
    ready: list[float] = []
    late: list[str] = []
    early: list[str] = []
    trying: list[asyncio.Task[None]] = []

    async def tried(token: str, task: str) -> None:
        await asyncio.sleep(LATEST)
        if await rig.server.status(READS, token) not in (401, 403):
            late.append(task)

    async def agent(where: Path, number: int) -> None:
        for index in range(tasks):
            task = f"many-{number}-{index}"
            entered = time.perf_counter()
            try:
                async with straight(where, task) as grant:
                    ready.append((time.perf_counter() - entered) * 1000)
                    token = grant.token()
                    early.extend([] if await _works(rig, token) else [task])
            except Exception as error:
                failed.append(f"{task}: {error!r}")
            else:
                trying.append(asyncio.create_task(tried(token, task)))

    rig.say(f"{agents} agents, {tasks} tasks each")
    began = time.perf_counter()
    await asyncio.gather(*(agent(where, number) for number, where in enumerate(mounts)))
    seconds = time.perf_counter() - began
    await asyncio.gather(*trying)
    for text in failed[:5]:
        rig.say(text)
    return Served(agents * tasks, failed, len(late), ready, len(early), seconds)


async def restarted(rig: Rig, agents: int) -> Served:
    """So many agents wait while the operator is away, and are served when it is back."""
    pods = await rig.pods("sdk-wait", agents)
    mounts = await spread(16, [mount(rig, pod) for pod in pods])
    failed: list[str] = []
    ready: list[float] = []
    await rig.replicas(0)
    rig.say(f"{agents} agents ask while the operator is away")

    async def agent(where: Path, number: int) -> None:
        entered = time.perf_counter()
        try:
            async with straight(where, f"wait-{number}") as grant:
                ready.append((time.perf_counter() - entered) * 1000)
                await _works(rig, grant.token())
        except Exception as error:
            failed.append(f"wait-{number}: {error!r}")

    waiting = [asyncio.create_task(agent(where, number)) for number, where in enumerate(mounts)]
    await asyncio.sleep(5)
    began = time.perf_counter()
    await rig.replicas(1)
    await asyncio.gather(*waiting)
    for text in failed[:5]:
        rig.say(text)
    return Served(agents, failed, 0, ready, seconds=time.perf_counter() - began)


async def _works(rig: Rig, token: str) -> bool:
    """Whether the first call passes: it may read what is not there. Raises RuntimeError where none does in a second."""
    for tries in range(200):
        if await rig.server.status(READS, token) == 404:
            return tries == 0
        await asyncio.sleep(0.005)
    raise RuntimeError("a second after it was granted it may not read")


async def block(rig: Rig, begin: Begin, where: Path, task: str) -> tuple[float, float, str]:
    """Milliseconds from entering to having access and from leaving to refusal, and the request's name."""
    entered = time.perf_counter()
    async with begin(where, task) as held:
        usable = time.perf_counter()
        token, name = held.token(), held.name
        await asyncio.sleep(0.05)
        await rig.server.status(READS, token)
        refused = asyncio.create_task(rig.server.refused(token, READS))
        await asyncio.sleep(0)
        left = time.perf_counter()
    return (usable - entered) * 1000, (await refused - left) * 1000, name


def _answered(kind: str, body: Json) -> str | None:
    """The name of what has its answer."""
    return str(body["metadata"]["name"]) if kind == "MODIFIED" and "status" in body else None
