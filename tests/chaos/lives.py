"""Lives: agents that ask, hold a credential, and end in one of the ways there are; and how late each is refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Final

import aiohttp

from tests.bench.requests import request
from tests.bench.server import AGENTS, Server
from tests.chaos.auditor import Auditor
from tests.cluster.api import Json

OURS: Final = "/apis/valetkey.dev/v1alpha1"
_POLL: Final = 0.5
_LOOK: Final = 5.0
"""How often a request that has got nothing yet is read: many wait, and the machine is small."""


class Ending(StrEnum):
    """How a life ends."""

    OUTCOME = "outcome"
    TTL = "ttl"
    REQUEST = "request deleted"
    POD = "pod deleted"
    GRANT = "grant deleted"


_SHARES: Final = {Ending.OUTCOME: 45, Ending.TTL: 25, Ending.POD: 15, Ending.REQUEST: 10, Ending.GRANT: 5}


@dataclass
class Life:
    """One grant, from its request to the refusal of its credential; times are of the machine's steady clock."""

    name: str
    ending: Ending
    lasts: float
    phase: str = ""
    """What went on when it was due to end."""
    granted: bool = False
    interrupted: bool = False
    """Whether nothing it was given worked right before its end: who died while delivering has delivered to nobody, and
    whoever leads next makes the credential anew."""
    due: float | None = None
    refused: float | None = None
    held: bool = False
    """Whether it goes on until the others like it are let go of too."""
    excused: float = 0.0
    """Seconds between `due` and `refused` in which the API server could not be reached by anybody who may write."""

    @property
    def lateness(self) -> float:
        """Seconds from its end to its refusal."""
        return (self.refused - self.due) if self.due is not None and self.refused is not None else 0.0


@dataclass
class Weather:
    """What goes on: the phase, and whether the operator can reach the API server."""

    phase: str = "calm"
    away: list[tuple[float, float | None]] = field(default_factory=list)

    @contextmanager
    def storm(self, phase: str, *, away: bool = False) -> Iterator[None]:
        """While something is done to the cluster."""
        before, self.phase = self.phase, phase
        if away:
            self.away.append((monotonic(), None))
        try:
            yield
        finally:
            if away:
                self.away[-1] = (self.away[-1][0], monotonic())
            self.phase = before

    def excuse(self, since: float, until: float) -> float:
        """How many of those seconds nobody could have written."""
        spans = ((max(since, begun), min(until, over or until)) for begun, over in self.away)
        return sum(max(0.0, over - begun) for begun, over in spans)


class Lives:
    """All agents; they and the auditor use the API server itself, past the proxy."""

    def __init__(self, server: Server, auditor: Auditor, weather: Weather, *, seed: int) -> None:
        self._server, self._auditor, self._weather = server, auditor, weather
        self._random = random.Random(seed)
        self._count = 0
        self.all: list[Life] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = 0
        self._less = asyncio.Event()
        self._released = asyncio.Event()

    @property
    def granted(self) -> int:
        """How many got what they asked for."""
        return sum(life.granted for life in self.all)

    async def room(self, most: int) -> None:
        """Waits until fewer than so many wait for access."""
        while self._waiting >= most:
            self._less.clear()
            await self._less.wait()

    def release(self) -> None:
        """Lets those go that were held."""
        self._released.set()

    def begin(self, *, lasts: tuple[float, float], ending: Ending | None = None, held: bool = False) -> Life:
        """Lets one more agent live, for that long after its access is there, or after those held are released."""
        kinds, weights = list(_SHARES), list(_SHARES.values())
        chosen = ending or self._random.choices(kinds, weights)[0]
        life = Life(f"life-{self._count}", chosen, self._random.uniform(*lasts), held=held)
        self._count += 1
        self._waiting += 1
        self.all.append(life)
        self._tasks.append(asyncio.create_task(self._live(life), name=life.name))
        return life

    async def over(self, *, seconds: float) -> list[str]:
        """Waits until every life is over; gives the names of those that are not, in that time."""
        _, waiting = await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return [task.get_name() for task in waiting]

    async def _live(self, life: Life) -> None:
        path = f"{OURS}/namespaces/{AGENTS}/accessrequests"
        try:
            token = await self._ask(life, path)
            life.granted = await self._credential(life, f"{path}/{life.name}")
        finally:
            self._waiting -= 1
            self._less.set()
        if not life.granted:
            return
        if life.held:
            await self._released.wait()  # and its time counts from then
        end = monotonic() + life.lasts
        if life.ending is Ending.TTL:
            end = await self._expiry(life)
        if (left := end - monotonic() - _POLL) > 0:  # else its time was over before it had its credential
            await asyncio.sleep(left)
            life.interrupted = all([await self._auditor.refused(one) for one in self._tokens(life)])
        await asyncio.sleep(max(0.0, end - monotonic()))
        if life.ending is not Ending.TTL:
            await self._end(life, path, token)
            end = monotonic()
        life.due, life.phase = end, self._weather.phase
        await self._refusal(life)

    async def _ask(self, life: Life, path: str) -> str:
        """Makes its pod and its request; gives the pod's token."""
        pod = await self._insist("POST", f"/api/v1/namespaces/{AGENTS}/pods", _pod(life.name))
        token = await self._token(pod)
        ttl = max(1, round(life.lasts)) if life.ending is Ending.TTL else 540
        await self._insist("POST", path, request(life.name, pod, token, f"{ttl}s"), token=token)
        return token

    async def _credential(self, life: Life, path: str) -> bool:
        """Waits for it; false where the request ended without, or was forgotten."""
        while not await self._auditor.seen(f"valetkey-{life.name}", seconds=_LOOK):
            body = await self._read(path)
            if body is not None and (body.get("reason") == "NotFound" or _finished(body)):
                return False
        return True

    async def _expiry(self, life: Life) -> float:
        """When its grant says that it is over; this machine's own clock is right."""
        path = f"{OURS}/namespaces/{AGENTS}/taskgrants/{life.name}"
        body = await self._insist("GET", path)
        if "spec" not in body:
            return monotonic()
        at = datetime.fromisoformat(body["spec"]["order"]["notAfter"])
        return monotonic() + (at - datetime.now(UTC)).total_seconds()

    async def _end(self, life: Life, path: str, token: str) -> None:
        match life.ending:
            case Ending.OUTCOME:
                await self._insist("PATCH", f"{path}/{life.name}", {"spec": {"outcome": "Succeeded"}}, token=token)
            case Ending.REQUEST:
                await self._insist("DELETE", f"{path}/{life.name}")
            case Ending.POD:
                await self._insist("DELETE", f"/api/v1/namespaces/{AGENTS}/pods/{life.name}", {"gracePeriodSeconds": 0})
            case Ending.GRANT:
                await self._insist("DELETE", f"{OURS}/namespaces/{AGENTS}/taskgrants/{life.name}")
            case Ending.TTL:
                raise AssertionError(life)

    async def _refusal(self, life: Life) -> None:
        """Waits until every token that this agent was ever given is refused."""
        assert life.due is not None
        refused: set[str] = set()
        while pending := self._tokens(life) - refused:
            refused |= {token for token in pending if await self._auditor.refused(token)}
            if self._tokens(life) - refused:
                await asyncio.sleep(_POLL)
        life.refused = monotonic()
        life.excused = self._weather.excuse(life.due, life.refused)

    def _tokens(self, life: Life) -> set[str]:
        """Every token that this agent was ever given."""
        return set(self._auditor.tokens.get(f"valetkey-{life.name}", ()))

    async def _token(self, pod: Json) -> str:
        meta = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        path = f"/api/v1/namespaces/{AGENTS}/serviceaccounts/default/token"
        body = {"spec": {"expirationSeconds": 3600, "boundObjectRef": bound}}
        answer = await self._insist("POST", path, body)
        return str(answer.get("status", {}).get("token", "a.e30.c"))

    async def _read(self, path: str) -> Json | None:
        try:
            return await self._server.send("GET", path, missing=True)
        except (RuntimeError, aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def _insist(self, method: str, path: str, body: Json | None = None, *, token: str | None = None) -> Json:
        """Tries until the API server has answered; what is there already, or gone, or of a lost life, is an answer."""
        while True:
            try:
                return await self._server.send(method, path, body, token=token, missing=True)
            except RuntimeError as error:
                answered = str(error).partition(": ")[2]
                if answered.startswith("409") and method == "POST":
                    return await self._server.send("GET", f"{path}/{(body or {})['metadata']['name']}", missing=True)
                if answered.startswith(("401", "403", "422")) and not self._forgiven(answered):
                    return {}
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.5)

    def _forgiven(self, answered: str) -> bool:
        """An API server that has just started refuses what it will soon allow: its roles are not read yet."""
        return '" cannot ' in answered or "not yet ready" in answered


def _finished(body: Json) -> bool:
    conditions = body.get("status", {}).get("conditions", ())
    return any(one["type"] == "Finished" and one["status"] == "True" for one in conditions)


def _pod(name: str) -> Json:
    return {
        "metadata": {"name": name, "labels": {"valetkey.dev/agent": "true"}},
        "spec": {
            "nodeName": "bench-node",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "none"}],
            "volumes": [{"name": "valetkey", "secret": {"secretName": f"valetkey-{name}", "optional": True}}],
        },
    }
