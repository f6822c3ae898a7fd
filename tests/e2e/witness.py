"""The witness: sees every credential that is delivered, and looks for each wherever one might be written down."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import aiohttp

from tests.cluster.api import SYSTEM, Json, sessions

_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_PAUSE: Final = 0.3


class Witness:
    """Follows Secrets and the operator's output; `written_down` says where a credential was found."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._kubeconfig, self._log = kubeconfig, log
        self.tokens: set[str] = set()
        self.output: dict[str, bytearray] = {}
        """What each container of the operator has said, by its pod and start."""
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Witness:
        self._server, self._admin, nobody = sessions(self._kubeconfig)
        for session in (self._admin, nobody):
            await self._stack.enter_async_context(session)
        self._tasks = [asyncio.create_task(work()) for work in (self._watch_secrets, self._watch_output)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def written_down(self) -> list[str]:
        """Every place but a Secret that holds a credential."""
        texts = {f"output of {name}": bytes(said) for name, said in self.output.items()}
        texts |= {str(path.name): path.read_bytes() for path in self._log.glob("*.jsonl")}
        async for path in self._listable():
            with suppress(aiohttp.ClientResponseError):  # some kinds cannot be listed by anybody
                texts[path] = json.dumps(await self._get(path)).encode()
        return found(self.tokens, texts)

    async def _watch_secrets(self) -> None:
        path = "/api/v1/secrets?fieldSelector=type%3Dvaletkey.dev/credential&watch=true"
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._admin.get(self._server + path) as answer:
                    async for line in answer.content:
                        self._keep(json.loads(line)["object"])
            await asyncio.sleep(_PAUSE)

    def _keep(self, body: Json) -> None:
        encoded = (body.get("data") or {}).get("token")
        if encoded:
            self.tokens.add(base64.b64decode(encoded).decode())

    async def _watch_output(self) -> None:
        """Follows each container of the operator from its start: a pod's output goes with the pod."""
        path, seen = f"/api/v1/namespaces/{SYSTEM}/pods", set[str]()
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                for pod in (await self._get(path))["items"]:
                    for status in pod.get("status", {}).get("containerStatuses", ()):
                        name, container = pod["metadata"]["name"], status.get("containerID", "")
                        if "running" in status["state"] and container not in seen:
                            seen.add(container)
                            self._tasks.append(asyncio.create_task(self._follow(name, container)))
            await asyncio.sleep(_PAUSE)

    async def _follow(self, pod: str, container: str) -> None:
        said = self.output.setdefault(f"{pod} {container[-12:]}", bytearray())
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}/log?follow=true"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._admin.get(self._server + path, timeout=aiohttp.ClientTimeout(total=None)) as answer:
                async for part in answer.content.iter_any():
                    said.extend(part)

    async def _listable(self) -> AsyncIterator[str]:
        for root in ("/api", "/apis"):
            for group in (await self._get(root, _DISCOVERY))["items"]:
                name = group["metadata"].get("name", "")
                version = group["versions"][0]
                base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                for resource in version.get("resources", ()):
                    if "list" in resource["verbs"] and (name, resource["resource"]) != ("", "secrets"):
                        yield f"{base}/{resource['resource']}"

    async def _get(self, path: str, accept: str = "application/json") -> Json:
        async with self._admin.get(self._server + path, headers={"Accept": accept}) as answer:
            answer.raise_for_status()
            body: Json = json.loads(await answer.text())
            return body


def found(tokens: set[str], texts: dict[str, bytes]) -> list[str]:
    """The texts that hold a token; its signature alone would be enough to find it by."""
    signatures = [token.rpartition(".")[2].encode() for token in tokens]
    return [name for name, text in texts.items() if any(signature in text for signature in signatures)]
