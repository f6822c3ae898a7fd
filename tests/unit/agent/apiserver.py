"""As much of an API server as an agent talks to, with an operator that does what a test says; it lives in a thread."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Json = dict[str, Any]
T = TypeVar("T")
Serve = Callable[[], Any]

NAMESPACE = "shop-agents"
COLLECTION = f"/apis/valetkey.dev/v1alpha1/namespaces/{NAMESPACE}/accessrequests"
POD = {"name": "fixer-0", "uid": str(uuid.UUID(int=0xF1))}
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


def token(jti: str = "t-1", **change: Any) -> str:
    """A token of the agent's pod, as far as the agent reads it."""
    bound = {
        "namespace": NAMESPACE,
        "pod": POD,
        "node": {"name": "node-1", "uid": str(uuid.UUID(int=0xA0))},
        "serviceaccount": {"name": "fixer", "uid": str(uuid.UUID(int=0x5A))},
    }
    said = {"sub": f"system:serviceaccount:{NAMESPACE}:fixer", "jti": jti, "kubernetes.io": bound | change}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip('=')}.sig"


def sealed(request: Json, text: str, *, sequence: int, grant: str, pod: str = POD["uid"]) -> str:
    """What the operator puts into the status of a request."""
    key = X25519PublicKey.from_public_bytes(base64.b64decode(request["spec"]["delivery"]["sealed"]["publicKey"]))
    info = f"valetkey/v1{request['metadata']['uid']}{pod}{grant}".encode() + sequence.to_bytes(8, "big")
    return base64.b64encode(SUITE.encrypt(text.encode(), key, info=info)).decode()


class Apiserver:
    """The API server, and what its operator does with each new request (`decides`)."""

    def __init__(self, folder: Path) -> None:
        self.account = folder
        self.requests: dict[str, Json] = {}
        self.calls: list[tuple[str, str, Json]] = []
        self.peers: set[object] = set()
        """Connections that requests came by, watches apart: those end with what they watch."""
        """Each request that came in: method, path and body."""
        self.decides: Callable[[str], Any] = self.grant
        self.tokens = {"t-1"}
        """The tokens that are taken, by their `jti`."""
        self.faults: dict[str, deque[Any]] = defaultdict(deque)
        """For each method, what becomes of the next ones: a status, a web.Response, `lost` or `silent`."""
        self.stamps_are_late_by = timedelta()
        self._version = 1000
        self._oldest = 0
        self._log: list[tuple[int, str, Json]] = []
        self._changed = asyncio.Event()
        self._cut = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self.port = 0
        _certify(folder)
        self.put_token()

    def put_token(self, jti: str = "t-1") -> None:
        """Puts a token where the kubelet does."""
        (self.account / "token").write_text(token(jti))

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()
        self.back()

    def stop(self) -> None:
        """Ends."""
        self.away()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def away(self) -> None:
        """Nobody answers from here on."""

        async def close() -> None:
            if self._runner is not None:
                self._cut += 1
                self._changed.set()
                # Cut, for a client that was killed says no farewell, and TLS would wait for one.
                for handler in self._runner.server.connections if self._runner.server is not None else ():
                    if handler.transport is not None:
                        handler.transport.abort()
                await self._runner.cleanup()
                await asyncio.sleep(0.02)
                self._runner = None

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(20)

    def back(self) -> None:
        """It answers, at the same address as before."""

        async def serve() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._answer)
            self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
            await self._runner.setup()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.account / "ca.crt", self.account / "server.key")
            site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
            await site.start()
            self.port = self._runner.addresses[0][1]

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result(20)

    # What the operator does.

    def grant(
        self,
        name: str,
        *,
        token: str = "granted-1",
        sequence: int = 1,
        files: dict[str, str] | None = None,
        **change: Any,
    ) -> None:
        """Grants a request, or renews what was granted."""

        def write(request: Json) -> None:
            uid = request.setdefault("status", {}).setdefault("grant", {"name": name, "uid": str(uuid.uuid4())})["uid"]
            text = json.dumps({"namespace": "shop", "token": token} if files is None else files)
            given = {"sequence": sequence, "ciphertext": sealed(request, text, sequence=sequence, grant=uid)} | change
            request["status"]["delivery"] = {"sealed": given}
            at = datetime.now(UTC) + timedelta(minutes=5) - self.stamps_are_late_by
            request["status"]["expiresAt"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
            _say(request, "Approved", "True", "PolicyMatched", "")
            _say(request, "Ready", "True", "AccessDelivered", "")

        self.change(name, write)

    def deny(self, name: str, **denial: Any) -> None:
        """Denies a request."""

        def write(request: Json) -> None:
            said = {"reason": "AccessBeyondPolicy", "message": "restart allows no delete"} | denial
            request["status"] = {"decision": {"id": "d-17", "outcome": "Denied", "denial": said}}
            _say(request, "Approved", "False", said["reason"], said["message"])
            _say(request, "Finished", "True", "RequestDenied", said["message"])

        self.change(name, write)

    def say(self, name: str, kind: str, status: str, reason: str, message: str = "it is so") -> None:
        """Writes a condition."""
        self.change(name, lambda request: _say(request, kind, status, reason, message))

    def ask_people(self, name: str) -> None:
        """Lets a request wait for people."""
        self.say(name, "Approved", "Unknown", "AwaitingApproval", "restart asks 1 of shop-leads until 14:32")

    def nothing(self, name: str) -> None:
        """An operator that is not there."""

    def delete(self, name: str) -> None:
        """Deletes a request."""

        def delete() -> None:
            self._record("DELETED", self.requests.pop(name))

        self._do(delete)

    def change(self, name: str, write: Callable[[Json], None]) -> None:
        """Changes a request."""

        def change() -> None:
            changed = json.loads(json.dumps(self.requests[name]))
            write(changed)
            self.requests[name] = changed
            self._record("MODIFIED", changed)

        self._do(change)

    def cut_watches(self, *, forget: bool = False) -> None:
        """Breaks every watch; where it forgets, what it has seen so far is compacted away."""

        def cut() -> None:
            self._cut += 1
            if forget:
                self._version += 1
                self._oldest = self._version
            self._changed.set()

        self._do(cut)

    # What a test sees.

    @property
    def names(self) -> list[str]:
        """The requests that are there."""
        return list(self.requests)

    def only(self) -> Json:
        """The one request that is there."""
        (request,) = self.requests.values()
        return request

    def outcome(self, name: str | None = None) -> str | None:
        """What was said of how the task ended."""
        request = self.only() if name is None else self.requests[name]
        outcome: str | None = request["spec"].get("outcome")
        return outcome

    def connected(self) -> int:
        """How many connections are open."""
        assert self._runner is not None
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    def made(self, method: str) -> list[Json]:
        """The bodies of the requests of one method."""
        return [body for m, _, body in self.calls if m == method]

    # What it does.

    def _do(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        if threading.current_thread() is self._thread:
            return work()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    def _record(self, kind: str, request: Json) -> None:
        self._version += 1
        request["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, kind, json.loads(json.dumps(request))))
        self._changed.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body: Json = json.loads(await request.read() or b"{}")
        watched = "watch" in request.query
        self.calls.append(("WATCH" if watched else request.method, request.path, body))
        if not watched and request.transport is not None:
            self.peers.add(request.transport.get_extra_info("peername"))
        faults = self.faults["WATCH" if watched else request.method]
        fault = faults.popleft() if faults else None
        if isinstance(fault, web.Response):
            return fault
        if isinstance(fault, int):
            return _status(fault, "Fault", f"the server says {fault}")
        if fault == "silent":
            await asyncio.sleep(60)
        said = _claims(request.headers.get("Authorization", ""))
        if said.get("jti") not in self.tokens:
            return _status(401, "Unauthorized", "Unauthorized")
        if watched:
            return await self._watch(request)
        answer = {"GET": self._get, "POST": self._post, "PATCH": self._patch}[request.method](
            request.path.removeprefix(f"{COLLECTION}/"), body, said
        )
        if fault == "lost":
            assert request.transport is not None
            request.transport.abort()
        return answer

    def _get(self, name: str, body: Json, said: Json) -> web.Response:
        return web.json_response(self.requests[name]) if name in self.requests else _status(404, "NotFound", name)

    def _post(self, _: str, body: Json, said: Json) -> web.Response:
        name = body["metadata"]["name"]
        if name in self.requests:
            return _status(409, "AlreadyExists", name)
        if why := _not_attested(body, said):
            return _status(422, "Invalid", why)
        body["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE}
        self.requests[name] = body
        self._record("ADDED", body)
        self._loop.call_soon(self.decides, name)
        return web.json_response(body, status=201)

    def _patch(self, name: str, body: Json, said: Json) -> web.Response:
        if name not in self.requests:
            return _status(404, "NotFound", name)
        if said["kubernetes.io"]["pod"]["uid"] != POD["uid"]:
            return _status(422, "Invalid", "not your request")
        before = self.requests[name]
        if outcome := body.get("spec", {}).get("outcome"):
            if before["spec"].get("outcome", outcome) != outcome:
                return _status(422, "Invalid", "outcome has been said and does not change")

            def write(request: Json) -> None:
                request["spec"]["outcome"] = outcome
                _say(request, "Finished", "True", "TaskReleased", "the agent said so")

            self.change(name, write)
        for key, value in body.get("metadata", {}).get("annotations", {}).items():
            self.change(name, lambda r: r["metadata"].setdefault("annotations", {}).update({key: value}))  # noqa: B023
        return web.json_response(self.requests[name])

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        name = request.query["fieldSelector"].removeprefix("metadata.name=")
        version, cut = int(request.query["resourceVersion"]), self._cut
        response = web.StreamResponse()
        await response.prepare(request)
        if version < self._oldest:
            await _write(response, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
            return response
        while cut == self._cut:
            self._changed.clear()
            for at, kind, thing in list(self._log):
                if at > version and thing["metadata"]["name"] == name:
                    version = at
                    await _write(response, kind, thing)
            version = max(version, self._version)
            waiting = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait({waiting}, timeout=0.02)
            waiting.cancel()
        assert request.transport is not None
        request.transport.abort()
        return response


@contextmanager
def serving(folder: Path) -> Iterator[Apiserver]:
    """An API server for one test."""
    server = Apiserver(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def _write(response: web.StreamResponse, kind: str, thing: Json) -> None:
    await response.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")


def _say(request: Json, kind: str, status: str, reason: str, message: str) -> None:
    said = request.setdefault("status", {}).setdefault("conditions", [])
    said[:] = [c for c in said if c["type"] != kind]
    said.append({"type": kind, "status": status, "reason": reason, "message": message})


def _not_attested(body: Json, said: Json) -> str:
    bound = said["kubernetes.io"]
    pod = {"podName": bound["pod"]["name"], "podUID": bound["pod"]["uid"]}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": bound["pod"]["name"], "uid": bound["pod"]["uid"]}
    requester = pod | {
        "username": said["sub"],
        "serviceAccount": "fixer",
        "nodeName": bound["node"]["name"],
        "credentialID": f"JTI={said['jti']}",
        "via": "API",
    }
    spec = body["spec"]
    if spec["requester"] != requester or spec["subject"] != pod or body["metadata"]["ownerReferences"] != [owner]:
        return "requester, subject and owner are the pod that asks, with the token that was sent"
    return "" if "outcome" not in spec else "outcome comes later"


def _claims(header: str) -> Json:
    part = header.removeprefix("Bearer ").split(".")[1]
    said: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return said


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)


def _certify(folder: Path) -> None:
    """Writes a certificate for 127.0.0.1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an API server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").write_bytes(pem)
