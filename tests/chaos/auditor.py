"""The auditor: finds every credential that was ever delivered, tries it, and looks for what is left of any.

It knows the names that the README gives, and nothing of the operator's code, caches or logs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import defaultdict
from typing import Final

import aiohttp

Json = dict[str, object]
_UID: Final = re.compile(r"^valetkey-(t-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=20, connect=2)


class Auditor:
    """Looks with the administrator's eyes, past any proxy."""

    def __init__(
        self,
        server: str,
        admin: aiohttp.ClientSession,
        nobody: aiohttp.ClientSession,
        *,
        agents: str,
        path: str,
    ) -> None:
        """`path` is what every credential may read while it lives."""
        self._server, self._admin, self._nobody = server, admin, nobody
        self._agents, self._path = agents, path
        self.tokens: defaultdict[str, set[str]] = defaultdict(set)
        """Every token that was ever seen, by the Secret that held it."""
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def watch(self) -> None:
        """Collects tokens, for ever; an API server that is away has nothing to show."""
        while True:
            try:
                listed = await self._get(self._secrets)
                for body in listed["items"]:
                    self._keep(body)
                version = listed["metadata"]["resourceVersion"]
                await self._follow(f"{self._secrets}&watch=true&timeoutSeconds=60&resourceVersion={version}")
            except (aiohttp.ClientError, OSError, TimeoutError, LookupError, ValueError):
                await asyncio.sleep(0.2)

    async def refused(self, token: str) -> bool | None:
        """Whether a token is good for nothing; None where nobody could say.

        An API server that has lost its store refuses everybody: so the administrator asks it too, between two tries.
        """
        if not (refused := await self._tried(token)):
            return refused
        try:
            await self._get(f"/api/v1/namespaces/{self._agents}")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        return await self._tried(token)

    async def _tried(self, token: str) -> bool | None:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._nobody.get(self._server + self._path, headers=headers, timeout=_TIMEOUT) as answer:
                await answer.read()
                if answer.status in (200, 404):
                    return False
                return True if answer.status in (401, 403) else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def seen(self, secret: str, *, seconds: float) -> bool:
        """Waits for a token in a Secret; false where there is none in that time."""
        try:
            await asyncio.wait_for(self._news[secret].wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def accepted(self) -> dict[str, str]:
        """Tries every token that was ever seen; gives those that still work, each with the Secret that held it."""
        work = [(secret, token) for secret, tokens in self.tokens.items() for token in tokens]
        room = asyncio.Semaphore(16)

        async def works(token: str) -> bool:
            async with room:
                return not await self.refused(token)

        tried = await asyncio.gather(*(works(token) for _, token in work))
        return {token: secret for (secret, token), accepted in zip(work, tried, strict=True) if accepted}

    async def left(self) -> list[str]:
        """Whatever there is of any grant: accounts, roles, bindings, Secrets, TaskGrants."""
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        named = {
            "ServiceAccount": "/api/v1/namespaces/valetkey-grants/serviceaccounts",
            "Secret of valetkey-grants": "/api/v1/namespaces/valetkey-grants/secrets",
            "Job": "/apis/batch/v1/jobs",
            "Role": f"{rbac}/roles",
            "RoleBinding": f"{rbac}/rolebindings",
            "ClusterRole": f"{rbac}/clusterroles",
            "ClusterRoleBinding": f"{rbac}/clusterrolebindings",
        }
        found = []
        for kind, path in named.items():
            for body in (await self._get(path))["items"]:
                found += [f"{kind} {name}"] if _UID.match(name := body["metadata"]["name"]) else []
        for kind, path in (("Secret", self._secrets), ("TaskGrant", "/apis/valetkey.dev/v1alpha1/taskgrants")):
            found += [f"{kind} {body['metadata']['name']}" for body in (await self._get(path))["items"]]
        return found

    @property
    def _secrets(self) -> str:
        return f"/api/v1/namespaces/{self._agents}/secrets?fieldSelector=type%3Dvaletkey.dev/credential"

    def _keep(self, body: dict) -> None:  # type: ignore[type-arg]
        encoded = (body.get("data") or {}).get("token")
        if encoded:
            self.tokens[body["metadata"]["name"]].add(base64.b64decode(encoded).decode())
            self._news[body["metadata"]["name"]].set()

    async def _get(self, path: str) -> dict:  # type: ignore[type-arg]
        async with self._admin.get(self._server + path, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            return json.loads(await answer.read())  # type: ignore[no-any-return]

    async def _follow(self, path: str) -> None:
        timeout = aiohttp.ClientTimeout(total=70, connect=2)
        async with self._admin.get(self._server + path, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                self._keep(event["object"])
