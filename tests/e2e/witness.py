"""The witness: sees every credential that is delivered, and looks for each wherever one might be written down.

Requests, grants and Events are gone before the tests are over: so it follows them, as it follows Secrets and output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import aiohttp

from tests.cluster.api import SYSTEM, Json, sessions
from tests.cluster.replicas import process

_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_PAUSE: Final = 0.3
_SHORT_LIVED: Final = (
    "/apis/valetkey.dev/v1alpha1/accessrequests",
    "/apis/valetkey.dev/v1alpha1/taskgrants",
    "/apis/events.k8s.io/v1/events",
)
_OWN_TOKEN: Final = "run/secrets/kubernetes.io/serviceaccount/token"
_LINE: Final = {"at", "level", "logger", "message"}
_LONG: Final = re.compile(rb"[\w+/-]{80,}")
"""Words that may hold a token's signature, plain or in base64: the shortest that Kubernetes makes has 86 letters."""
_ONE_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


class Witness:
    """Follows what is delivered and what is shown; `written_down` says where a credential was found."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._kubeconfig, self._log = kubeconfig, log
        self.tokens: set[str] = set()
        """Every credential that lay in a Secret, the operator's own tokens, and what else it is told to look for."""
        self.own: set[str] = set()
        """The operator's own tokens, where its pods run on this machine."""
        self._shown: dict[str, bytearray] = {path: bytearray() for path in _SHORT_LIVED}
        self.output: dict[str, bytearray] = {}
        """What each container of the operator has said, by its pod and start."""
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Witness:
        self._server, self._admin, nobody = sessions(self._kubeconfig)
        for session in (self._admin, nobody):
            await self._stack.enter_async_context(session)
        self._tasks = [asyncio.create_task(work()) for work in (self._watch_secrets, self._watch_output)]
        self._tasks += [asyncio.create_task(self._watch_shown(path)) for path in _SHORT_LIVED]
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
        texts |= {f"{path}, once": bytes(shown) for path, shown in self._shown.items()}
        async for path in self._listable():
            with suppress(aiohttp.ClientResponseError):  # some kinds cannot be listed by anybody
                texts[path] = json.dumps(await self._get(path)).encode()
        return found(self.tokens | self.own, texts)

    def unstructured(self) -> list[str]:
        """What the operator, or the door, has said otherwise than in lines that are JSON objects."""
        lines = []
        for name, said in self.output.items():
            if re.match(r"valetkey-(\d+|door-\S+) ", name):
                # The last may have been cut, or be the kubelet's own word that the container is gone.
                lines += [f"{name}: {line!r}" for line in bytes(said).split(b"\n")[:-2] if not _structured(line)]
        return lines

    async def _watch_secrets(self) -> None:
        path = "/api/v1/secrets?fieldSelector=type%3Dvaletkey.dev/credential&watch=true"
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._admin.get(self._server + path) as answer:
                    async for line in answer.content:
                        self._keep(json.loads(line)["object"])
            await asyncio.sleep(_PAUSE)

    async def _watch_shown(self, path: str) -> None:
        """Keeps of what is shown of some objects the long words alone: all of it would be a hundred megabytes."""
        shown = self._shown[path]
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._admin.get(f"{self._server}{path}?watch=true") as answer:
                    answer.raise_for_status()  # before the chart is there, nobody knows the kind
                    rest = b""
                    async for part in answer.content.iter_any():
                        *lines, rest = (rest + part).split(b"\n")
                        for line in lines:
                            shown.extend(b" ".join(_LONG.findall(line)) + b"\n")
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
                            self._tasks.append(asyncio.create_task(self._ask_own(name)))
                            self._tasks.append(asyncio.create_task(self._follow(name, container)))
            await asyncio.sleep(_PAUSE)

    async def _ask_own(self, pod: str) -> None:
        """Reads the token that a replica's process has, once that is there."""
        for _ in range(20):
            with suppress(RuntimeError, OSError):
                self.own.add(_token_of(process(pod)))
                return
            await asyncio.sleep(_PAUSE)

    async def _follow(self, pod: str, container: str) -> None:
        said = self.output.setdefault(f"{pod} {container[-12:]}", bytearray())
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}/log?follow=true"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._admin.get(self._server + path, timeout=aiohttp.ClientTimeout(total=None)) as answer:
                answer.raise_for_status()
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
    """The texts that hold a token, plain or in base64; its signature alone would be enough to find it by."""
    forms = {form for token in tokens for form in _forms(token.rpartition(".")[2].encode())}
    words = {name: b" ".join(set(_LONG.findall(text))).translate(_ONE_ALPHABET) for name, text in texts.items()}
    return [name for name, text in words.items() if any(form in text for form in forms)]


def _forms(secret: bytes) -> list[bytes]:
    """A secret as it is, and as it stands in the base64 of any text that it is part of."""
    forms = [secret.translate(_ONE_ALPHABET)]
    for before, unsure in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(before) + secret)
        forms.append(encoded[unsure : (before + len(secret)) // 3 * 4])  # what depends on no neighbour
    return forms


def _token_of(process_id: int) -> str:
    return Path(f"/proc/{process_id}/root/{_OWN_TOKEN}").read_text().strip()


def _structured(line: bytes) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and said.keys() >= _LINE
