"""A thin client of the API server that can be anybody: a token, a person, or the administrator."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Json = dict[str, Any]
Answer = tuple[int, Json]

ROOT = Path(__file__).parents[2]
SYSTEM = "valetkey-system"
GRANTS = "valetkey-grants"
OPERATOR = f"system:serviceaccount:{SYSTEM}:valetkey"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sends a request: the holder of a token, else the administrator, who may act as somebody else."""

    token: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def headers(self) -> list[tuple[str, str]]:
        """The headers that say so."""
        headers = [("Authorization", f"Bearer {self.token}")] if self.token else []
        if self.user:
            headers.append(("Impersonate-User", self.user))
            headers += [("Impersonate-Group", group) for group in (*self.groups, "system:authenticated")]
            for key, values in self.extra.items():
                headers += [(f"Impersonate-Extra-{key.replace('/', '%2F')}", value) for value in values]
        return headers


ADMIN = Caller()


def account(namespace: str, name: str) -> Caller:
    """Somebody who impersonates a ServiceAccount."""
    return Caller(
        user=f"system:serviceaccount:{namespace}:{name}",
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
    )


class Api:
    """The API server; each method gives the status and the answer."""

    def __init__(self, server: str, admin: aiohttp.ClientSession, others: aiohttp.ClientSession) -> None:
        self.server, self._admin, self._others = server, admin, others
        self.minted: set[str] = set()
        """Every token that was asked for with `token`."""

    async def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        by: Caller = ADMIN,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        """One request."""
        session = self._others if by.token else self._admin
        headers = [*by.headers(), ("Content-Type", content), ("Accept", accept)]
        async with session.request(
            method,
            self.server + path,
            data=None if body is None else io.BytesIO(json.dumps(body).encode()),
            headers=headers,
        ) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else {"message": text}

    async def flow(self, method: str, path: str, body: Json | None = None, *, by: Caller) -> tuple[int, str]:
        """One request; gives its status, and the uid of the FlowSchema that the API server put it under."""
        session = self._others if by.token else self._admin
        async with session.request(method, self.server + path, json=body, headers=by.headers()) as response:
            await response.read()
            return response.status, response.headers.get("X-Kubernetes-PF-FlowSchema-UID", "")

    async def raw(self, method: str, path: str, body: str = "", *, by: Caller = ADMIN) -> int:
        """One request whose body and answer are too deep for `json`; gives the status."""
        session = self._others if by.token else self._admin
        headers = [*by.headers(), ("Content-Type", "application/merge-patch+json")]
        async with session.request(method, self.server + path, data=body, headers=headers) as response:
            await response.read()
            return response.status

    async def get(self, path: str, *, by: Caller = ADMIN) -> Answer:
        """GET."""
        return await self.call("GET", path, by=by)

    async def post(self, path: str, body: Json, *, by: Caller = ADMIN) -> Answer:
        """POST."""
        return await self.call("POST", path, body, by=by)

    async def put(self, path: str, body: Json, *, by: Caller = ADMIN) -> Answer:
        """PUT."""
        return await self.call("PUT", path, body, by=by)

    async def patch(self, path: str, body: Json, *, by: Caller = ADMIN, content: str = MERGE) -> Answer:
        """PATCH, a merge patch unless said otherwise."""
        return await self.call("PATCH", path, body, by=by, content=content)

    async def delete(self, path: str, body: Json | None = None, *, by: Caller = ADMIN) -> Answer:
        """DELETE."""
        return await self.call("DELETE", path, body, by=by)

    async def made(self, path: str, body: Json, *, by: Caller = ADMIN) -> Json:
        """Creates an object, which must succeed, and gives it."""
        status, answer = await self.post(path, body, by=by)
        assert status in (200, 201), answer
        return answer

    async def ensured(self, path: str, body: Json) -> Json:
        """Creates an object unless it is there, and gives it."""
        status, answer = await self.post(path, body)
        if status == 409:
            status, answer = await self.get(f"{path}/{body['metadata']['name']}")
        assert status in (200, 201), answer
        return answer

    async def gone(self, path: str) -> None:
        """Deletes an object or a collection and waits until nothing of it is left."""
        await self.delete(path, {"gracePeriodSeconds": 0})

        async def is_gone() -> bool:
            status, answer = await self.get(path)
            return status == 404 or answer.get("items") == []

        await until(is_gone, f"{path} to be gone")

    async def token(
        self, namespace: str, name: str, pod: Json | None = None, *, seconds: int = 3600, audience: str | None = None
    ) -> Caller:
        """The holder of a token of a ServiceAccount, bound to a pod if one is given; for the API server, or another."""
        spec: Json = {"expirationSeconds": seconds} | ({"audiences": [audience]} if audience else {})
        if pod:
            meta = pod["metadata"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        answer = await self.made(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        token: str = answer["status"]["token"]
        self.minted.add(token)
        return Caller(token=token)


def merged(base: Json, change: Json) -> Json:
    """A JSON merge patch (RFC 7396) applied."""
    out = dict(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = merged(out[key] if isinstance(out.get(key), dict) else {}, value)
        else:
            out[key] = value
    return out


def claims(holder: Caller) -> Json:
    """What a token says."""
    assert holder.token
    payload = holder.token.split(".")[1]
    decoded: Json = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def unique(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, *, seconds: float = 30, pause: float = 0.1
) -> None:
    """Waits until a condition holds."""
    for _ in range(int(seconds / pause)):
        if await condition():
            return
        await asyncio.sleep(pause)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")


def sessions(kubeconfig: Path) -> tuple[str, aiohttp.ClientSession, aiohttp.ClientSession]:
    """The server of a kubeconfig, a session of its user and one of nobody."""
    config = yaml.safe_load(kubeconfig.read_text())
    chosen = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    server = next(c["cluster"] for c in config["clusters"] if c["name"] == chosen["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == chosen["user"])
    with tempfile.TemporaryDirectory() as folder:

        def file(values: Json, key: str) -> str:
            if data := values.get(f"{key}-data"):
                path = Path(folder) / key
                path.write_bytes(base64.b64decode(data))
                return str(path)
            return str(kubeconfig.parent / values[key])

        authority = file(server, "certificate-authority")
        admin, others = ssl.create_default_context(cafile=authority), ssl.create_default_context(cafile=authority)
        admin.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
    return (
        server["server"],
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=admin)),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=others)),
    )
