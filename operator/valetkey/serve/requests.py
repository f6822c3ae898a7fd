"""The AccessRequests of the pods that come to the door: made for them, followed, and changed as they say."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from valetkey.kinds.base import API_VERSION
from valetkey.kube import paths
from valetkey.kube.api import ApiError, Json, WatchApi
from valetkey.serve.bodies import Asked, AskedSpec, Change
from valetkey.serve.pods import AskingPod

_AGAIN: Final = 0.1
_AT_MOST: Final = 2.0
"""Seconds until what broke is tried again; twice as long each time."""


class GoneError(Exception):
    """There is no such request of that pod, or none any more."""


class TakenError(Exception):
    """There is another of that name."""


class Requests:
    """What the door does at the API server."""

    def __init__(self, api: WatchApi) -> None:
        self._api = api

    async def make(self, pod: AskingPod, asked: Asked) -> Json:
        """Makes a request of a pod; one that is there is its own if it asks for the same. Raises TakenError, ApiError.

        Whoever names it may ask again when no answer came, and gets no second one.
        """
        name = asked.name or f"door-{secrets.token_hex(8)}"
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        body = {
            "apiVersion": API_VERSION,
            "kind": "AccessRequest",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": asked.spec.by(pod).to_api(),
        }
        try:
            return await self._api.create(paths.collection("AccessRequest", pod.namespace), body)
        except ApiError as error:
            if not error.already_exists:
                raise
        try:
            found = await self.find(pod, name)
        except GoneError:
            raise TakenError(name) from None
        if AskedSpec.of(found["spec"]) != asked.spec:
            raise TakenError(name)
        return found

    async def find(self, pod: AskingPod, name: str) -> Json:
        """A request that was made for this pod by the door; raises GoneError, and ApiError."""
        try:
            found = await self._api.get(paths.item("AccessRequest", pod.namespace, name))
        except ApiError as error:
            if error.not_found:
                raise GoneError(name) from None
            raise
        asks = found["spec"]["requester"]
        if (asks["podUID"], asks["via"]) != (pod.uid, "Door"):
            raise GoneError(name)
        return found

    async def change(self, pod: AskingPod, name: str, change: Change) -> Json:
        """Says how a task ended, or that it goes on; raises GoneError, and ApiError."""
        found = await self.find(pod, name)
        # With its uid: one that was made meanwhile under its name is not changed.
        named = {"uid": found["metadata"]["uid"], **change.patch.get("metadata", {})}
        patch = change.patch | {"metadata": named}
        return await self._api.patch(paths.item("AccessRequest", pod.namespace, name), patch)

    async def follow(self, pod: AskingPod, found: Json, enough: Callable[[Json], bool], seconds: float) -> Json:
        """A request when it is `enough`, or as it is when the time is over; raises GoneError.

        It is watched from the version that was seen. A watch that breaks is taken up where it is then.
        """
        if seconds <= 0 or enough(found):
            return found
        latest, pause = found, _AGAIN
        try:
            async with asyncio.timeout(seconds):
                while not enough(latest):
                    try:
                        async with aclosing(self._changes(pod, latest)) as changes:
                            async for latest in changes:
                                pause = _AGAIN
                                if enough(latest):
                                    return latest
                    except ApiError:
                        pass  # it is read again, for as long as there is time
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _AT_MOST)
                    latest = await self._again(pod, latest)
        except TimeoutError:
            pass
        return latest

    async def _changes(self, pod: AskingPod, seen: Json) -> AsyncGenerator[Json, None]:
        where = paths.collection("AccessRequest", pod.namespace)
        name, version = seen["metadata"]["name"], seen["metadata"]["resourceVersion"]
        async with aclosing(self._api.watch(where, name=name, version=version)) as events:
            async for event in events:
                if event["type"] == "DELETED":
                    raise GoneError(name)
                yield event["object"]

    async def _again(self, pod: AskingPod, seen: Json) -> Json:
        try:
            return await self.find(pod, seen["metadata"]["name"])
        except ApiError:
            return seen
