"""World: as much of an API server as the step machine needs, which dies at any request that a test names.

It stands in for the real one in the one test that the real one cannot serve: a crash at every await, thousands
of times.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from tests.cluster.api import merged
from valetkey.delivery.sealed import binding
from valetkey.errors import UnavailableError
from valetkey.kinds.base import REQUEST_LABEL, SECRET_TYPE, Metadata, format_time
from valetkey.kinds.schema import KINDS, crd
from valetkey.kube.api import ApiError, Json
from valetkey.reasons import Reason

_ITEM = re.compile(
    r"^(?P<prefix>/.*?)(/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(/(?P<name>[^/]+)(/(?P<sub>[a-z]+))?)?$"
)
_KINDS = {
    "accessrequests": "AccessRequest",
    "taskgrants": "TaskGrant",
    "accessapprovals": "AccessApproval",
    "agentpolicies": "AgentPolicy",
    "subjectaccessreviews": "SubjectAccessReview",
    "pods": "Pod",
    "secrets": "Secret",
    "namespaces": "Namespace",
    "serviceaccounts": "ServiceAccount",
    "jobs": "Job",
    "leaders": "Leader",
    "ledgers": "Ledger",
    "roles": "Role",
    "rolebindings": "RoleBinding",
    "clusterroles": "ClusterRole",
    "clusterrolebindings": "ClusterRoleBinding",
    "validatingadmissionpolicies": "ValidatingAdmissionPolicy",
    "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
    "customresourcedefinitions": "CustomResourceDefinition",
}
_CRDS = {body["metadata"]["name"]: merged(body, {"metadata": {"resourceVersion": "1"}}) for body in map(crd, KINDS)}
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
"""The agents' key, where they ask for sealed delivery."""
PUBLIC_KEY = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
Place = tuple[str, str, str]
"""Kind, namespace, name."""


class Crash(BaseException):
    """The operator's process died here."""


class World:
    """Objects with uids, versions, finalizers, preconditions and the leash on Secrets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.objects: dict[Place, Json] = {}
        self.tokens: dict[str, tuple[str, str]] = {}
        """Account name and uid, by token."""
        self.placed: list[tuple[str, str]] = []
        """Request uid and token, of every credential that ever lay in a Secret or in a request, sealed."""
        self.records: list[dict[str, Any]] = []
        self.granted: list[datetime] = []
        """When each TaskGrant was created."""
        self.approvers: dict[str, set[str]] = {}
        """Who may approve, by policy."""
        self.log_is_nearly_full = False
        self.events: list[tuple[str, str, str]] = []
        self._count = 0
        self.fuse: int | None = None
        self.fuse_after = False
        self.dead = False
        self.faults: list[int] = []
        self.lists = 0
        self.before_list: tuple[int, Callable[[], Awaitable[None]]] | None = None
        """What goes on elsewhere before one of the lists, counted from 1, is answered."""

    # -- what the operator sees ------------------------------------------------------------------------------------

    async def get(self, path: str) -> Json:
        kind, namespace, name, _ = self._parse(path)
        assert kind != "Secret", "the operator may not read Secrets"
        async with self._request():
            return self._found(kind, namespace, name)

    async def create(self, path: str, body: Json) -> Json:
        kind, namespace, name, sub = self._parse(path)
        async with self._request():
            if sub == "token":
                return self._token(self._found("ServiceAccount", namespace, name))
            if kind == "Event":
                return body
            if kind == "SubjectAccessReview":
                return {"status": {"allowed": self._may(body["spec"])}}
            return self.add(kind, body | {"metadata": body["metadata"] | {"namespace": namespace}})

    async def replace(self, path: str, body: Json) -> Json:
        kind, namespace, name, _ = self._parse(path)
        async with self._request():
            old = self._found(kind, namespace, name)
            if kind in ("Leader", "Ledger"):
                if body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
                    raise ApiError(409, "Conflict", "resourceVersion differs")
                return self._store(kind, body | {"metadata": old["metadata"] | body["metadata"]})
            ours = body["metadata"]["labels"][REQUEST_LABEL]
            if old.get("type") != SECRET_TYPE or old["metadata"].get("labels", {}).get(REQUEST_LABEL) != ours:
                raise ApiError(403, "Forbidden", "ValidatingAdmissionPolicy 'operator-leash' denied request")
            return self._store(kind, old | body | {"metadata": old["metadata"] | body["metadata"]})

    async def patch(self, path: str, body: Json) -> Json:
        kind, namespace, name, sub = self._parse(path)
        async with self._request():
            old = self._found(kind, namespace, name)
            wanted = body.get("metadata", {})
            for field in ("uid", "resourceVersion"):
                if field in wanted and wanted[field] != old["metadata"][field]:
                    raise ApiError(409, "Conflict", f"{field} differs")
            patch = (
                {"status": body.get("status", {})}
                if sub == "status"
                else {k: v for k, v in body.items() if k != "status"}
            )
            patch.get("metadata", {}).pop("resourceVersion", None)
            return self._store(kind, _merge(old, patch))

    async def delete(self, path: str, *, uid: str) -> Json:
        kind, namespace, name, _ = self._parse(path)
        async with self._request():
            found = self.objects.get((kind, namespace, name))
            if found is None:
                return {"kind": "Status"}
            if found["metadata"]["uid"] != uid:
                raise ApiError(409, "Conflict", "uid differs")
            return self.remove(kind, namespace, name) or {"kind": "Status"}

    async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        kind, namespace, _, _ = self._parse(path)
        self.lists += 1
        if self.before_list is not None and self.lists == self.before_list[0]:
            await self.before_list[1]()
        for (of, ns, _), body in list(self.objects.items()):
            labels = body["metadata"].get("labels") or {}
            chosen = not selector or selector in (*labels, *(f"{name}={value}" for name, value in labels.items()))
            if of == kind and namespace in ("", ns) and chosen:
                yield copy.deepcopy({"metadata": body["metadata"]} if metadata_only else body)

    async def watch(self, path: str, *, name: str, version: str | None = None) -> AsyncGenerator[Json, None]:
        kind, namespace, _, _ = self._parse(path)
        while True:
            body = self.objects.get((kind, namespace, name))
            if body is None:
                yield {"type": "DELETED", "object": {}}
                return
            if body["metadata"]["resourceVersion"] != version:
                version = body["metadata"]["resourceVersion"]
                yield {"type": "MODIFIED", "object": copy.deepcopy(body)}
            await asyncio.sleep(0.01)

    async def write(self, reason: str, **fields: Any) -> None:
        async with self._request():
            self.records.append({"reason": str(reason), **fields})

    def demand_room(self) -> None:
        if self.log_is_nearly_full:
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "the log's volume is nearly full")

    def post(self, _: str, about: Metadata, reason: str, message: str, *, severity: str = "Normal") -> None:
        self.events.append((about.uid, str(reason), severity))

    # -- what everybody else does ----------------------------------------------------------------------------------

    def add(self, kind: str, body: Json) -> Json:
        metadata = body["metadata"]
        place = (kind, metadata.get("namespace") or "", metadata["name"])
        if place in self.objects:
            raise ApiError(409, "AlreadyExists", f"{place} already exists")
        self._count += 1
        self.granted += [self.now] if kind == "TaskGrant" else []
        stamped = {
            "uid": f"{self._count:08d}-0000-4000-8000-000000000000",
            "creationTimestamp": format_time(self.now),
            "generation": 1,
        }
        return self._store(kind, {**body, "kind": kind, "metadata": {**metadata, **stamped}})

    def change(self, kind: str, namespace: str, name: str, patch: Json) -> None:
        self._store(kind, _merge(self._found(kind, namespace, name), patch))

    def remove(self, kind: str, namespace: str, name: str) -> Json | None:
        """Deletes as the API server does; gives the object where a finalizer keeps it."""
        body = self.objects[kind, namespace, name]
        if not body["metadata"].get("finalizers"):
            del self.objects[kind, namespace, name]
            self._collect(body["metadata"]["uid"])
            return None
        if "deletionTimestamp" in body["metadata"]:
            return copy.deepcopy(body)
        return self._store(kind, _merge(body, {"metadata": {"deletionTimestamp": format_time(self.now)}}))

    def pass_time(self, by: timedelta) -> None:
        """Time goes by, and Jobs that run nothing end when theirs is over; the operator may not be there to see it."""
        self.now += by
        for job in list(self.of("Job")):
            if self.now >= ends_at(job):
                self.remove("Job", job["metadata"]["namespace"], job["metadata"]["name"])

    def of(self, kind: str) -> Sequence[Json]:
        return [body for (of, _, _), body in self.objects.items() if of == kind]

    def live_tokens(self) -> set[str]:
        accounts = {body["metadata"]["name"]: body["metadata"]["uid"] for body in self.of("ServiceAccount")}
        return {token for token, (name, uid) in self.tokens.items() if accounts.get(name) == uid}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _collect(self, uid: str) -> None:
        """What the garbage collector does, at once."""
        for (kind, namespace, name), body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners) and (kind, namespace, name) in self.objects:
                self.remove(kind, namespace, name)

    def _may(self, asked: Json) -> bool:
        right = asked["resourceAttributes"]
        assert (right["group"], right["resource"], right["verb"]) == ("valetkey.dev", "agentpolicies", "approve")
        return asked["user"] in self.approvers.get(right["name"], ())

    def _request(self) -> _Request:
        return _Request(self)

    def _parse(self, path: str) -> tuple[str, str, str, str]:
        found = _ITEM.match(path)
        assert found, path
        plural = found["plural"]
        return _KINDS.get(plural, "Event"), found["ns"] or "", found["name"] or "", found["sub"] or ""

    def _found(self, kind: str, namespace: str, name: str) -> Json:
        if kind == "CustomResourceDefinition":
            return _CRDS[name]
        try:
            return copy.deepcopy(self.objects[kind, namespace, name])
        except KeyError:
            raise ApiError(404, "NotFound", f"{kind} {namespace}/{name}") from None

    def _store(self, kind: str, body: Json) -> Json:
        self._count += 1
        body = copy.deepcopy(body)
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(self._count)
        place = (kind, metadata.get("namespace") or "", metadata["name"])
        before = self.objects.get(place)
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self.objects.pop(place, None)
            self._collect(metadata["uid"])
        else:
            self.objects[place] = body
        if kind == "Secret" and body.get("data", {}).get("token"):
            token = base64.b64decode(body["data"]["token"]).decode()
            self.placed.append((metadata["labels"][REQUEST_LABEL], token))
        if kind == "AccessRequest" and "ciphertext" in _sealed(body):
            self._take_sealed(body, _sealed(before or {}))
        return copy.deepcopy(body)

    def _take_sealed(self, body: Json, before: Json) -> None:
        """Opens what has come into a request, as the agent does; its sequence is higher than that of what was there."""
        sealed = _sealed(body)
        if sealed == before:
            return
        assert sealed["sequence"] > before.get("sequence", 0), "an agent would not open it"
        self.placed.append((body["metadata"]["uid"], opened(body)["token"]))

    def _token(self, account: Json) -> Json:
        self._count += 1
        issued = int(self.now.timestamp())
        metadata = account["metadata"]
        claims = {
            "jti": str(self._count),
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "iat": issued,
            "exp": issued + 600,
        }
        token = f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"
        self.tokens[token] = (metadata["name"], metadata["uid"])
        return {"status": {"token": token}}


class _Request:
    """One request or one record: it may fail, and the process may die before it or right after it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)  # whoever works beside has its turn
        world = self._world
        if world.dead:
            raise Crash
        if world.fuse is not None:
            world.fuse -= 1
            if world.fuse <= 0 and not world.fuse_after:
                world.dead = True
                raise Crash
        if world.faults:
            status = world.faults.pop()
            if status:
                raise ApiError(status, {409: "Conflict", 429: "TooManyRequests"}.get(status, "InternalError"), "fault")

    async def __aexit__(self, *_: object) -> None:
        world = self._world
        if world.fuse is not None and world.fuse <= 0:
            world.dead = True
            raise Crash


def opened(request: Json) -> dict[str, str]:
    """The files that are sealed in a request's status."""
    status, spec, sealed = request["status"], request["spec"], _sealed(request)
    uids = request["metadata"]["uid"], spec["subject"]["podUID"], status["grant"]["uid"]
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
    text = suite.decrypt(base64.b64decode(sealed["ciphertext"]), KEY, info=binding(*uids, sealed["sequence"]))
    return dict(json.loads(text))


def _sealed(request: Json) -> Json:
    return dict(request.get("status", {}).get("delivery", {}).get("sealed", {}))


def ends_at(job: Json) -> datetime:
    """When a Job's time is over."""
    began = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    return began + timedelta(seconds=job["spec"]["activeDeadlineSeconds"])


def _merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
