"""As much of an API server as the door asks: whose token it is, and the AccessRequests of some namespaces."""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from tests.cluster.api import Json, merged
from valetkey.kube.client import Client
from valetkey.kube.clock import Clock

OURS = "/apis/valetkey.dev/v1alpha1/namespaces/{namespace}/accessrequests"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
EXTRA = "authentication.kubernetes.io"


def user(pod: str, change: Json | None = None, *, namespace: str = "agents", account: str = "fixer") -> Json:
    """A pod as a TokenReview tells of it."""
    extra = {"pod-name": [pod], "pod-uid": [f"uid-{pod}"], "node-name": ["node-1"], "credential-id": [f"JTI={pod}"]}
    return {
        "username": f"system:serviceaccount:{namespace}:{account}",
        "extra": {f"{EXTRA}/{name}": values for name, values in (extra | (change or {})).items() if values is not None},
    }


class Plane:
    """What is there, and what was asked."""

    def __init__(self) -> None:
        self.users: dict[str, Json] = {"one": user("one"), "two": user("two")}
        """By token; each token is for the audience `valetkey`."""
        self.audience = "valetkey"
        self.objects: dict[tuple[str, str], Json] = {}
        self.asked: list[tuple[str, str, Json]] = []
        self.refusing: tuple[int, str, str] | None = None
        """Status, reason and message of the answer to any write."""
        self.away = False
        self._version = 1
        self._events: list[tuple[int, Json]] = []
        self._changed = asyncio.Condition()
        self._watches: set[web.StreamResponse] = set()

    # -- what others do there --------------------------------------------------------------------------------------

    async def write(self, name: str, change: Json, *, namespace: str = "agents") -> Json:
        """Merges into an object."""
        body = merged(self.objects[namespace, name], change)
        return await self._keep(namespace, name, body, "MODIFIED")

    async def say(self, name: str, **status: Any) -> Json:
        """Writes a status."""
        return await self.write(name, {"status": status})

    async def delete(self, name: str, *, namespace: str = "agents") -> None:
        """Takes an object away."""
        body = self.objects.pop((namespace, name))
        await self._tell("DELETED", body)

    async def add(self, name: str, body: Json, *, namespace: str = "agents") -> Json:
        """Puts an object there."""
        body = merged(body, {"metadata": {"name": name, "uid": str(uuid.uuid4())}})
        return await self._keep(namespace, name, body, "ADDED")

    def cut(self) -> int:
        """Breaks every watch; how many there were."""
        watches, self._watches = self._watches, set()
        for watch in watches:
            transport = watch._req.transport if watch._req is not None else None
            if transport is not None:
                transport.abort()
        return len(watches)

    @property
    def watching(self) -> int:
        """How many watches there are."""
        return len(self._watches)

    def made(self) -> list[Json]:
        """Every AccessRequest that somebody tried to make."""
        return [body for method, path, body in self.asked if method == "POST" and path.endswith("/accessrequests")]

    # -- what the door asks ----------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if self.away:
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        body = json.loads(await request.read() or b"{}")
        self.asked.append((request.method, request.path, body))
        if request.path == REVIEWS:
            assert body["spec"]["audiences"] == ["valetkey"]
            return web.json_response({"status": self._review(body["spec"]["token"])}, status=201)
        *_, namespace, kind, name = [*request.path.split("/"), *([""] if request.path.endswith("requests") else [])]
        assert kind == "accessrequests"
        if request.method == "GET" and not name:
            return await self._watch(request, namespace)
        if request.method != "GET" and self.refusing is not None:
            return _status(*self.refusing)
        if request.method == "POST":
            name = body["metadata"]["name"]
            if (namespace, name) in self.objects:
                return _status(409, "AlreadyExists", "it exists")
            return web.json_response(await self.add(name, body, namespace=namespace), status=201)
        if (namespace, name) not in self.objects:
            return _status(404, "NotFound", "not found")
        if request.method == "PATCH":
            if body.get("metadata", {}).get("uid") != self.objects[namespace, name]["metadata"]["uid"]:
                return _status(422, "Invalid", "metadata.uid: field is immutable")
            return web.json_response(await self.write(name, body, namespace=namespace))
        return web.json_response(self.objects[namespace, name])

    def _review(self, token: str) -> Json:
        if token not in self.users:
            return {"authenticated": False, "error": "invalid bearer token"}
        return {"authenticated": True, "audiences": [self.audience], "user": self.users[token]}

    async def _watch(self, request: web.Request, namespace: str) -> web.StreamResponse:
        name = request.query["fieldSelector"].removeprefix("metadata.name=")
        seen = int(request.query["resourceVersion"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        self._watches.add(answer)
        at = 0
        try:
            while answer in self._watches:
                fresh, at = self._events[at:], len(self._events)
                for version, event in fresh:
                    about = event["object"]["metadata"]["name"], event["namespace"]
                    if version > seen and about == (name, namespace):
                        told = {"type": event["type"], "object": event["object"]}
                        await answer.write(json.dumps(told).encode() + b"\n")
                async with self._changed:
                    if at == len(self._events):
                        await self._changed.wait()
        finally:
            self._watches.discard(answer)
        return answer

    async def _keep(self, namespace: str, name: str, body: Json, kind: str) -> Json:
        self._version += 1
        body = merged(body, {"metadata": {"resourceVersion": str(self._version)}})
        self.objects[namespace, name] = body
        await self._tell(kind, body, namespace)
        return copy.deepcopy(body)

    async def _tell(self, kind: str, body: Json, namespace: str = "agents") -> None:
        if kind == "DELETED":
            self._version += 1
        async with self._changed:
            self._events.append((self._version, {"type": kind, "object": copy.deepcopy(body), "namespace": namespace}))
            self._changed.notify_all()


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": message}, status=code)


@asynccontextmanager
async def running(plane: Plane, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves it at a port of this machine."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", plane.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


@asynccontextmanager
async def client_of(plane: Plane) -> AsyncIterator[Client]:
    """A client of it, over a socket."""
    async with running(plane) as port, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session, f"http://127.0.0.1:{port}", clock=Clock())
