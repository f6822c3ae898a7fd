"""The API server as both sides of the bench use it: keep-alive sessions, and watchers that note when they saw what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from tests.cluster.api import Caller, Json

AGENTS = "bench-agents"
FLOOD = "bench-flood"
"""Agents that mean no good."""
SHOP = "bench-shop"


class Server:
    """Requests as the administrator or as the holder of a token; everything but success raises."""

    def __init__(self, server: str, admin: aiohttp.ClientSession, others: aiohttp.ClientSession) -> None:
        self.server, self._admin, self._others = server, admin, others

    async def send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        token: str | None = None,
        by: Caller | None = None,
        missing: bool = False,
    ) -> Json:
        """One request; `missing` takes 404 for an answer, `by` is whom the administrator stands for."""
        headers = [("Content-Type", "application/merge-patch+json" if method == "PATCH" else "application/json")]
        headers += by.headers() if by else []
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        session = self._others if token else self._admin
        data = None if body is None else orjson.dumps(body)
        async with session.request(method, self.server + path, data=data, headers=headers) as response:
            content = await response.read()
            if response.status >= 400 and not (missing and response.status == 404):
                raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
            if not content.startswith(b"{"):
                return {"reason": "NotFound"}  # no such kind yet
            answer: Json = orjson.loads(content)
            return answer

    async def status(self, path: str, token: str) -> int:
        """The status that a token gets for a path."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self._others.get(self.server + path, headers=headers) as response:
            await response.read()
            return response.status

    async def refused(self, token: str, path: str = f"/api/v1/namespaces/{SHOP}/configmaps/any") -> float:
        """Polls every 5 ms until a token is refused; gives when that was."""
        while True:
            if await self.status(path, token) in (401, 403):
                return time.perf_counter()
            await asyncio.sleep(0.005)


class Watcher:
    """Notes when each object of a collection was first seen in a state."""

    def __init__(self, server: Server, path: str, state: Callable[[str, Json], str | None]) -> None:
        self._server, self._path, self._state = server, path, state
        self._seen: dict[str, asyncio.Future[tuple[float, Json]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watcher:
        listed = await self._server.send("GET", f"{self._path}?limit=1")
        version = listed["metadata"]["resourceVersion"]
        self._task = asyncio.create_task(self._run(version))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def when(self, what: str, *, seconds: float = 60) -> tuple[float, Json]:
        """When a state was first seen, and the object."""
        return await asyncio.wait_for(asyncio.shield(self._future(what)), seconds)

    def forget(self, what: str) -> None:
        """Makes a state new again."""
        self._seen.pop(what, None)

    def _future(self, what: str) -> asyncio.Future[tuple[float, Json]]:
        return self._seen.setdefault(what, asyncio.get_running_loop().create_future())

    async def _run(self, version: str) -> None:
        query = f"?watch=1&resourceVersion={version}"
        timeout = aiohttp.ClientTimeout(total=None)
        session: Any = self._server._admin
        async with session.get(self._server.server + self._path + query, timeout=timeout) as response:
            buffer = b""
            async for chunk in response.content.iter_any():
                now = time.perf_counter()
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    what = self._state(event["type"], event["object"])
                    if what is not None and not (future := self._future(what)).done():
                        future.set_result((now, event["object"]))
