"""How is the API server asked, and when again?"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import aiohttp

from valetkey.agent.connections import Sessions
from valetkey.agent.errors import NotInAPod
from valetkey.agent.pod import Pod

Json = dict[str, Any]
T = TypeVar("T")

_SECONDS: Final = 10.0
# The API server sends a bookmark about once a minute: what is silent for longer is broken.
_WATCH: Final = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=90)
_WATCH_SECONDS: Final = 300
_AGAIN: Final = {408, 429, 500, 502, 503, 504}
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LONGEST_RETRY_AFTER: Final = 30.0


class ApiError(Exception):
    """The API server refused, or did not answer (status 0)."""

    def __init__(self, status: int, reason: str, message: str, after: float = 0) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status, self.reason, self.message, self.after = status, reason, message, after

    @property
    def passing(self) -> bool:
        """Whether the same may succeed later."""
        return self.status == 0 or self.status in _AGAIN or (self.status, self.reason) == (409, "Conflict")


class Pauses:
    """How long to wait before the next try: longer each time, never quite the same for two that wait."""

    def __init__(self, longest: float = _LONGEST_PAUSE) -> None:
        self._next, self._longest = _FIRST_PAUSE, longest

    def reset(self) -> None:
        """It went well."""
        self._next = _FIRST_PAUSE

    async def wait(self, asked: float = 0) -> None:
        """Waits, at least as long as the server asked for."""
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._next = min(self._next * 2, self._longest)
        await asyncio.sleep(max(pause, min(asked, _LONGEST_RETRY_AFTER)))


class Api:
    """The API server, as the pod's own account."""

    def __init__(self, pod: Pod, sessions: Sessions, server: str | None = None) -> None:
        self._pod, self._sessions, self._server = pod, sessions, server or pod.server

    async def get(self, path: str) -> Json:
        """Reads one object; raises ApiError."""
        return await self._call("GET", path)

    async def create(self, path: str, body: Callable[[str], Json]) -> Json:
        """Creates an object that is written for the token that creates it; raises ApiError."""
        return await self._call("POST", path, body)

    async def patch(self, path: str, body: Json) -> Json:
        """Merges into an object; raises ApiError."""
        return await self._call("PATCH", path, lambda _: body, "application/merge-patch+json")

    async def watch(self, path: str, *, name: str, version: str) -> AsyncGenerator[Json, None]:
        """What becomes of one object after a version of it, for some minutes; raises ApiError."""
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            watches = self._sessions.watches
            async with await self._send("GET", path, query=query, limits=_WATCH, by=watches) as response:
                if response.status >= 400:
                    raise _refusal(response, await response.read())
                async for line in response.content:
                    event: Json = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise ApiError(said.get("code", 500), said.get("reason", ""), said.get("message", ""))
                    yield event
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer("watch", path, error) from error

    async def _call(
        self,
        method: str,
        path: str,
        body: Callable[[str], Json] | None = None,
        kind: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
        answers: Collection[int] = (),
    ) -> Json:
        """One request; a status of `answers` whose body has a status of its own is an answer."""
        if query is None:
            # The server gives up before we do, so that what we saw fail is not carried out behind our back.
            query = {} if body is None else {"timeout": "8s"}
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=3)
        try:
            async with await self._send(method, path, body, kind, query=query, limits=limits) as response:
                content = await response.read()
                answer: Json = json.loads(content) if response.status < 400 or response.status in answers else {}
                if response.status >= 400 and "status" not in answer:
                    raise _refusal(response, content)
                return answer
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer(method, path, error) from error

    async def _send(
        self,
        method: str,
        path: str,
        body: Callable[[str], Json] | None = None,
        kind: str = "application/json",
        *,
        query: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        by: aiohttp.ClientSession | None = None,
    ) -> aiohttp.ClientResponse:
        """Sends it with the token as it is now; where that is refused, once more with the token as it is then."""
        for again in (True, False):
            token = self._token()
            response = await (by or self._sessions.calls).request(
                method,
                self._server + path,
                params=query,
                data=None if body is None else json.dumps(body(token)).encode(),
                headers={"Authorization": f"Bearer {token}"} | ({} if body is None else {"Content-Type": kind}),
                timeout=limits,
                allow_redirects=False,  # the token is for this server alone
            )
            if response.status != 401 or not again:
                break
            response.release()
        return response

    def _token(self) -> str:
        try:
            return self._pod.token()
        except NotInAPod as error:
            raise ApiError(0, "", str(error)) from error


async def persistently(call: Callable[[], Awaitable[T]], failed: Callable[[str], None] = lambda _: None) -> T:
    """Calls until it succeeds or is refused for good (ApiError); whoever waits says for how long."""
    pauses = Pauses()
    while True:
        try:
            return await call()
        except ApiError as error:
            if not error.passing:
                raise
            failed(str(error))
            await pauses.wait(error.after)


def _no_answer(method: str, path: str, error: Exception) -> ApiError:
    return ApiError(0, "", f"{method} {path}: {str(error) or type(error).__name__}")


def _refusal(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    asked = response.headers.get("Retry-After", "")
    after = float(asked) if asked.isdigit() else 0.0
    try:
        said = json.loads(content)
        said = said.get("error", said)  # as the door has it
        return ApiError(response.status, str(said.get("reason", "")), str(said.get("message", "")), after)
    except (ValueError, AttributeError):
        return ApiError(response.status, "", content[:200].decode(errors="replace"), after)
