"""How does a pod ask that cannot reach the API server, or may not use it? By valetkey's door, with a token for that.

The door's answers are read as versions of the request, so that all else is as it is with the API server.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from valetkey.agent import connections
from valetkey.agent.api import Api, ApiError
from valetkey.agent.ask import HEARTBEAT
from valetkey.agent.errors import NotInAPod
from valetkey.agent.pod import Pod, claims

Json = dict[str, Any]

_ALL: Final = "/v1/accessrequests"
_WAIT: Final = 25
"""Seconds that an answer may take where nothing has changed; the door takes 30."""
_ANSWERED: Final = frozenset({403})
"""A denial is an answer, too."""
_FILLED_IN: Final = ("subject", "requester")
"""By the door."""


_AUDIENCE: Final = ["valetkey"]


class Door(Api):
    """The door, as the pod's own account."""

    async def get(self, path: str) -> Json:
        """Reads one request; raises ApiError."""
        return _as_request(await self._call("GET", _one(path), answers=_ANSWERED))

    async def create(self, path: str, body: Callable[[str], Json]) -> Json:
        """Asks; what comes may be granted or denied already. Raises ApiError."""

        def asked(token: str) -> Json:
            request = body(token)
            spec = {name: value for name, value in request["spec"].items() if name not in _FILLED_IN}
            return {"name": request["metadata"]["name"], "spec": spec}

        return _as_request(await self._call("POST", _ALL, asked, query={"wait": "8"}, answers=_ANSWERED))

    async def patch(self, path: str, body: Json) -> Json:
        """Says how the task ended, or that the agent works on; raises ApiError."""
        beat = body.get("metadata", {}).get("annotations", {}).get(HEARTBEAT)
        said = body["spec"] if beat is None else {"heartbeat": beat}
        return _as_request(await self._call("PATCH", _one(path), lambda _: said, query={}, answers=_ANSWERED))

    async def watch(self, path: str, *, name: str, version: str) -> AsyncGenerator[Json, None]:
        """What becomes of one request after a version of it; raises ApiError."""
        while True:
            query = {"after": version, "wait": str(_WAIT)}
            try:
                found = await self._call("GET", f"{_ALL}/{name}", query=query, seconds=_WAIT + 10, answers=_ANSWERED)
            except ApiError as error:
                if error.status != 404:
                    raise
                yield {"type": "DELETED", "object": {"metadata": {"resourceVersion": version}}}
                return
            request = _as_request(found)
            if request["metadata"]["resourceVersion"] != version:
                version = request["metadata"]["resourceVersion"]
                yield {"type": "MODIFIED", "object": request}
            else:
                await asyncio.sleep(0)


async def find(pod: Pod) -> Api:
    """The door where VALETKEY_DOOR says there is one, else the API server; raises NotInAPod."""
    address = os.environ.get("VALETKEY_DOOR")
    if not address:
        return Api(pod, await connections.sessions(pod.account / "ca.crt", pod.context))
    where = urlsplit(address)
    if where.scheme != "https" or where.username is not None or where.query:
        raise NotInAPod(f"VALETKEY_DOOR={address} is not https://HOST:PORT: a token is sent there")
    audience = claims(pod.token()).get("aud")
    if audience != _AUDIENCE:
        raise NotInAPod(
            f"{pod.account}/token is for {audience}, not for the door: mount a serviceAccountToken volume with "
            "audience: valetkey, and name it in VALETKEY_ACCOUNT_DIRECTORY"
        )
    authority = os.environ.get("VALETKEY_DOOR_CA")
    try:
        sessions = await connections.sessions(Path(authority) if authority else None, lambda: _context(authority))
    except OSError as error:
        raise NotInAPod(f"VALETKEY_DOOR_CA={authority} is not a file of certificates: {error}") from error
    return Door(pod, sessions, address.rstrip("/"))


def _one(path: str) -> str:
    return f"{_ALL}/{path.rpartition('/')[2]}"


def _as_request(answer: Json) -> Json:
    metadata = {"name": answer["name"], "uid": answer["uid"], "resourceVersion": answer["version"]}
    return {"metadata": metadata, "spec": answer["spec"], "status": answer["status"]}


def _context(authority: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority or None)
