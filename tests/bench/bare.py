"""The bare client: the requests of chain.md and nothing else, by one keep-alive session, on copies of the kinds.

It has the operator's rights and no more: the API server lets a superuser hand out rights unchecked, and makes everybody
else wait until it has read the bindings anew, up to 100 ms.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from tests.bench.server import AGENTS, SHOP, Server
from tests.cluster.api import Json

GROUP = "without.example"  # after ours in discovery, so that what a cut-off run leaves is not what kubectl finds
GRANTS = "bench-grants"
OURS = f"/apis/{GROUP}/v1alpha1"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SHOP}"


class Bare:
    """Grants without an operator."""

    def __init__(self, server: Server, log: Path, token: str) -> None:
        self._server, self._token = server, token
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def begin(
        self, name: str, request: Json, grant: Json, pod: Json, *, sealed: bool = False
    ) -> tuple[str, dict[str, str]]:
        """Makes one grant up to its delivery and all that follows; gives its token and the uids of what was made.

        What is sealed lies in the request's status, and in no Secret.
        """
        send = self._send
        made_request = await send("POST", f"{OURS}/namespaces/{AGENTS}/accessrequests", request)
        await send("GET", f"/api/v1/namespaces/{AGENTS}/pods/{pod['metadata']['name']}")
        await self.sync()
        made_grant = await send("POST", f"{OURS}/namespaces/{AGENTS}/taskgrants", grant)
        await asyncio.gather(
            send("GET", f"{OURS}/namespaces/{AGENTS}/accessrequests/{name}"), send("GET", f"{OURS}/agentpolicies/bench")
        )
        await self.sync()
        (account, token), (role, binding) = await asyncio.gather(self._account(name), self._rights(name))
        await self.sync()
        answer: Json = _STATUS
        made: list[Json] = []
        if sealed:
            answer = _STATUS | {"delivery": {"sealed": {"ciphertext": "x" * 1700, "sequence": 1}}}
        else:
            made.append(await send("POST", f"/api/v1/namespaces/{AGENTS}/secrets", _secret(name, token)))
        await asyncio.gather(
            send("PATCH", f"{OURS}/namespaces/{AGENTS}/accessrequests/{name}/status", {"status": answer}),
            self.sync(),
            *(self._touch(pod, name) for _ in made),
        )
        await send("PATCH", f"{OURS}/namespaces/{AGENTS}/taskgrants/{name}/status", {"status": _STATUS})
        await send("POST", f"/apis/events.k8s.io/v1/namespaces/{AGENTS}/events", event(made_request))
        objects = {"request": made_request, "grant": made_grant, "account": account, "role": role}
        objects |= {"binding": binding} | ({"secret": made[0]} if made else {})
        return token, {kind: body["metadata"]["uid"] for kind, body in objects.items()}

    async def end(self, name: str, uids: dict[str, str], pod: Json, *, reversible: bool = False) -> float:
        """Ends one grant, as an outcome does or what is `reversible`; gives when the outcome was sent."""
        send = self._send
        ours = f"{OURS}/namespaces/{AGENTS}"
        sent = time.perf_counter()
        await send("PATCH", f"{ours}/accessrequests/{name}", {"spec": {"outcome": "Succeeded"}})
        binding = f"{RBAC}/rolebindings/{name}"
        await self.sync()
        written, unbound = self._write_end(f"{ours}/taskgrants/{name}", uids), self._delete(binding, uids["binding"])
        if reversible:
            await written
            await unbound
        else:
            await asyncio.gather(written, unbound)
        accounts = f"/api/v1/namespaces/{GRANTS}/serviceaccounts"
        await asyncio.gather(
            self._delete(f"{RBAC}/roles/{name}", uids["role"]),
            self._delete(f"{accounts}/{name}", uids["account"]),
            *((self._take_away(name, uids["secret"], pod),) if "secret" in uids else ()),
        )
        paths = (binding, f"{RBAC}/roles/{name}", f"{accounts}/{name}")
        await asyncio.gather(*(send("GET", path, missing=True) for path in paths))
        await self.sync()
        request = await send("PATCH", f"{ours}/accessrequests/{name}/status", {"status": _STATUS})
        await send("PATCH", f"{ours}/taskgrants/{name}", {"metadata": {"finalizers": []}}, missing=True)
        await send("POST", f"/apis/events.k8s.io/v1/namespaces/{AGENTS}/events", event(request))
        return sent

    async def _send(self, method: str, path: str, body: Json | None = None, *, missing: bool = False) -> Json:
        return await self._server.send(method, path, body, token=self._token, missing=missing)

    async def sync(self) -> None:
        """One record on disk."""
        await asyncio.to_thread(self._append)

    def _append(self) -> None:
        os.write(self._log, b"x" * 700 + b"\n")
        os.fdatasync(self._log)

    async def _account(self, name: str) -> tuple[Json, str]:
        path = f"/api/v1/namespaces/{GRANTS}/serviceaccounts"
        account = await self._send("POST", path, {"metadata": {"name": name}})
        answer = await self._send("POST", f"{path}/{name}/token", {"spec": {"expirationSeconds": 600}})
        return account, answer["status"]["token"]

    async def _rights(self, name: str) -> tuple[Json, Json]:
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
        role = await self._send("POST", f"{RBAC}/roles", {"metadata": {"name": name}, "rules": rules})
        body = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": GRANTS}],
        }
        return role, await self._send("POST", f"{RBAC}/rolebindings", body)

    async def _write_end(self, path: str, uids: dict[str, str]) -> None:
        await self._send("PATCH", f"{path}/status", {"status": _STATUS})
        await self._delete(path, uids["grant"])

    async def _take_away(self, name: str, uid: str, pod: Json) -> None:
        await self._delete(f"/api/v1/namespaces/{AGENTS}/secrets/{name}", uid)
        await self._touch(pod, None)

    async def _touch(self, pod: Json, value: str | None) -> None:
        path = f"/api/v1/namespaces/{AGENTS}/pods/{pod['metadata']['name']}"
        await self._send("PATCH", path, {"metadata": {"annotations": {"bench": value}}})

    async def _delete(self, path: str, uid: str) -> None:
        await self._send("DELETE", path, {"preconditions": {"uid": uid}}, missing=True)


RIGHTS: list[Json] = [
    {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "update", "delete"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["create", "get", "delete"]},
    {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": ["create", "get", "delete"],
    },
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
]
"""What an operator needs for the chain, and what it hands out."""


def event(about: Json) -> Json:
    """An Event about a request."""
    metadata = about["metadata"]
    return {
        "metadata": {"generateName": f"{metadata['name']}-", "namespace": AGENTS},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "valetkey.dev/bench",
        "reportingInstance": "bench",
        "action": "AccessDelivered",
        "reason": "AccessDelivered",
        "type": "Normal",
        "note": "the same for kubectl describe",
        "regarding": {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "AccessRequest",
            "name": metadata["name"],
            "namespace": AGENTS,
            "uid": metadata["uid"],
        },
    }


def _secret(name: str, token: str) -> Json:
    files = {"token": token, "ca.crt": "x" * 700, "namespace": SHOP, "kubeconfig": "x" * 500}
    return {"metadata": {"name": name, "labels": {"bench": "bare"}}, "stringData": files}


def _condition(kind: str) -> Json:
    return {
        "type": kind,
        "status": "True",
        "reason": "AccessDelivered",
        "message": "in Secret valetkey-bench",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


_STATUS: dict[str, Any] = {"conditions": [_condition(kind) for kind in ("Identified", "Approved", "Ready", "Finished")]}
