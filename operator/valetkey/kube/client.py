"""Requests to the API server over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Final

import aiohttp
import orjson

from valetkey.kube.api import NOT_LEADING, ApiError, Json, RewoundError
from valetkey.kube.clock import Clock

_MERGE: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE: Final = 100
"""Objects of a collection in one answer: few enough that reading them holds nobody up."""
_PAGE_OF_METADATA: Final = 500
TOO_LARGE: Final = "TooLarge"
"""The reason of an answer that was not read."""
_LARGEST: Final = 16 << 20
"""Bytes: ten times what etcd stores of one object. Whoever may write objects must not fill the operator's memory."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=3)


class Client:
    """`WatchApi` over one keep-alive aiohttp session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server: str,
        *,
        clock: Clock,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_write` is asked before each write; where it says no, nothing is sent. `clock` hears of each answer."""
        self._session = session
        self._clock, self._may_write = clock, may_write
        self._server = server.rstrip("/")
        self._newest: dict[str, int] = {}
        """The newest version that each collection was listed at."""

    async def get(self, path: str) -> Json:
        """Reads one object, live."""
        return await self._send("GET", path)

    async def create(self, path: str, body: Json) -> Json:
        """Creates an object."""
        return await self._send("POST", path, body)

    async def replace(self, path: str, body: Json) -> Json:
        """Replaces an object."""
        return await self._send("PUT", path, body)

    async def patch(self, path: str, body: Json) -> Json:
        """Merges into an object."""
        return await self._send("PATCH", path, body, content_type=_MERGE)

    async def delete(self, path: str, *, uid: str) -> Json:
        """Deletes the object of that uid."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            return await self._send("DELETE", path, options)
        except ApiError as error:
            if not error.not_found:
                raise
            return {"kind": "Status", "status": "Success"}

    async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        """Every object of a collection, a page at a time; raises RewoundError too."""
        newest = self._newest.get(path, 0)
        accept = _METADATA if metadata_only else "application/json"
        size = str(_PAGE_OF_METADATA if metadata_only else PAGE)
        query = {"limit": size} | ({"labelSelector": selector} if selector else {})
        while True:
            try:
                page = await self._send("GET", path, query=query, accept=accept)
            except ApiError as error:
                if error.reason != TOO_LARGE or query["limit"] == "1":
                    raise
                query["limit"] = "1"  # one object always fits
                continue
            if "continue" not in query:
                self._check_version(path, page["metadata"].get("resourceVersion", ""), newest)
            for entry in page["items"] or []:  # a page of metadata that is empty has null
                yield entry
            token = page["metadata"].get("continue")
            if not token:
                return
            query |= {"limit": size, "continue": token}

    async def watch(self, path: str, *, name: str, version: str | None = None) -> AsyncGenerator[Json, None]:
        """What becomes of one object of a collection, for five minutes at most; since a version, where one is given."""
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "300"}
        query |= {"resourceVersion": version} if version is not None else {}
        timeout = aiohttp.ClientTimeout(total=310, connect=3)
        try:
            async with self._session.get(self._server + path, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read(), response.headers.get("Retry-After"))
                async for line in response.content:
                    yield _event(line)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ApiError(0, "NoAnswer", f"watch {path}: {type(error).__name__}") from error

    def _check_version(self, path: str, version: str, newest: int) -> None:
        # A list without a resourceVersion is as new as the store, so versions only grow, as numbers (KEP-5504).
        if not version.isdigit():
            return
        if int(version) < newest:
            raise RewoundError(f"{path} is at version {version} and was at {newest}: the store was restored")
        self._newest[path] = max(self._newest.get(path, 0), int(version))

    async def _send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        if method != "GET" and not self._may_write():
            raise ApiError(0, NOT_LEADING, f"{method} {path} was not sent: another replica may lead by now")
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
            # The server gives up before we do: a write that we saw fail is not carried out behind our back.
            query = {"timeout": "8s"}
        sent = self._clock.steady()
        try:
            async with self._session.request(
                method,
                self._server + path,
                data=None if body is None else orjson.dumps(body),
                headers=headers,
                params=query,
                timeout=_TIMEOUT,
            ) as response:
                content = await _content(response, path)
                if response.status >= 400:
                    raise _refusal(response.status, content, response.headers.get("Retry-After"))
                self._clock.heard(response.headers.get("Date", ""), sent=sent)
                return _read(content)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ApiError(0, "NoAnswer", f"{method} {path}: {type(error).__name__}") from error


async def _content(response: aiohttp.ClientResponse, path: str) -> bytes:
    """An answer's body; raises ApiError where it is too large to be held."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            response.close()  # the rest of it is not read
            raise ApiError(response.status, TOO_LARGE, f"{path}: the answer is larger than {_LARGEST} bytes")
    return b"".join(parts)


def _read(content: bytes) -> Json:
    """Reads an answer; raises ValueError."""
    try:
        answer: Json = orjson.loads(content)
    except orjson.JSONDecodeError:
        # orjson reads 1024 levels, the API server takes 10 000: nobody hides behind an object that is not read.
        answer = json.loads(content)
    return answer


def _event(line: bytes) -> Json:
    """Reads one event of a watch; raises ValueError and ApiError."""
    event = _read(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ApiError(int(status.get("code", 0)), str(status.get("reason", "")), str(status.get("message", "")))
    return event


def _refusal(status: int, content: bytes, retry_after: str | None) -> ApiError:
    after = timedelta(seconds=int(retry_after)) if retry_after and retry_after.isdigit() else None
    try:
        answer = orjson.loads(content)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")), after)
    except (orjson.JSONDecodeError, AttributeError):
        return ApiError(status, "", "the API server's answer was not a Status object", after)
