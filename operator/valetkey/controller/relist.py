"""Relist: what is there is counted from time to time, for a watch may miss things and never say so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from valetkey.controller.cache import Cache
from valetkey.controller.intake import Intake
from valetkey.controller.queue import Key
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.base import AGENT_LABEL
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json
from valetkey.kube.concurrency import all_of

EVERY: Final = timedelta(seconds=30)
SETTLES_AFTER: Final = timedelta(seconds=1)
AGAIN_AFTER: Final = timedelta(seconds=0.5)
RESTS: Final = 19
"""How many times as long as it looks it rests, up to a limit."""
AT_LEAST_EVERY: Final = timedelta(minutes=5)
AGENTS: Final = f"{AGENT_LABEL}=true"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Collection:
    kind: str
    selector: str
    uids: Callable[[str], Mapping[str, str]]
    """What is known of a namespace: uids by name."""
    has: Callable[[Json], bool]
    take: Callable[[Json], None]
    gone: Callable[[Key, str], None]


class Relist:
    """Reads the agents' namespaces in full at the start; later looks read names and versions, and what differs."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        intake: Intake,
        surroundings: Surroundings,
        namespaces: Iterable[str],
        *,
        settles_after: timedelta = SETTLES_AFTER,
    ) -> None:
        self._api = api
        self._surroundings = surroundings
        self._namespaces = tuple(namespaces)
        self._settles_after = settles_after
        # Grants first, pods last: whatever a grant names and is not found after it is gone.
        self._collections = (
            _Collection("TaskGrant", "", cache.grants.uids, cache.grants.has, intake.grant, intake.grant_gone),
            _Collection(
                "AccessRequest", "", cache.requests.uids, cache.requests.has, intake.request, intake.request_gone
            ),
            _Collection(
                "AccessApproval", "", cache.approvals.uids, cache.approvals.has, intake.approval, intake.approval_gone
            ),
            _Collection("Pod", AGENTS, cache.pods.uids, cache.pods.has, intake.pod, intake.pod_gone),
        )

    async def read_all(self) -> None:
        """Takes in everything; returns when it has, however often the API server has to be asked.

        A namespace that may not be read, as when it is being deleted, is left to the later looks. Policies and guards
        come last, for what was read of them too long ago grants nothing.
        """
        for namespace in self._namespaces:
            try:
                await self._insist(namespace, partial(self._read_namespace, namespace), unless_refused=True)
            except ApiError as error:
                _logger.warning("%s could not be read: %s", namespace, error)
        await self._insist("policies and guards", self._surroundings.refresh)

    async def keep_looking(self) -> None:
        """Looks again for ever, but for no more than a part of the time: where there is much, less often."""
        pause = EVERY.total_seconds()
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            for namespace in self._namespaces:
                await self.look(namespace)
            pause = min(max(EVERY.total_seconds(), (time.monotonic() - began) * RESTS), AT_LEAST_EVERY.total_seconds())

    async def _insist(self, what: str, read: Callable[[], Awaitable[None]], *, unless_refused: bool = False) -> None:
        """Reads until it has succeeded; raises ApiError where it is refused, if that is to be told."""
        while True:
            try:
                return await read()
            except ApiError as error:
                if unless_refused and error.refused:
                    raise
                _logger.warning("%s could not be read: %s; it is tried again", what, error)
                await asyncio.sleep(AGAIN_AFTER.total_seconds())

    async def _read_namespace(self, namespace: str) -> None:
        """Reads side by side, each collection from when the one before it has begun: that is the state it is read in.

        All pages of a list are of the version of its first one.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
        """
        begun = [asyncio.Event() for _ in self._collections]
        begun[0].set()
        await all_of(
            *(
                self._read_collection(collection, namespace, *begun[place : place + 2])
                for place, collection in enumerate(self._collections)
            )
        )

    async def _read_collection(
        self, collection: _Collection, namespace: str, may_begin: asyncio.Event, begun: asyncio.Event | None = None
    ) -> None:
        """Takes in what is there; what an earlier try has read and is gone since is taken out."""
        await may_begin.wait()
        there = set()
        path = paths.collection(collection.kind, namespace)
        try:
            async for body in self._api.list(path, selector=collection.selector):
                if begun is not None:
                    begun.set()
                collection.take(body)
                there.add(body["metadata"]["uid"])
        finally:
            if begun is not None:
                begun.set()
        for name, uid in collection.uids(namespace).items():
            if uid not in there:
                collection.gone(Key(namespace, name), uid)

    async def look(self, namespace: str) -> None:
        """Takes in what is new in one namespace and takes out what is gone; what cannot be read is left for later."""
        for collection in self._collections:
            try:
                await self._look(collection, namespace)
            except ApiError as error:
                _logger.warning("%ss of %s could not be read: %s", collection.kind, namespace, error)

    async def _look(self, collection: _Collection, namespace: str) -> None:
        before = collection.uids(namespace)
        there: set[str] = set()
        unknown: list[Json] = []
        path = paths.collection(collection.kind, namespace)
        async for body in self._api.list(path, metadata_only=True, selector=collection.selector):
            there.add(body["metadata"]["uid"])
            if not collection.has(body):
                unknown.append(body)
        missing = {name for name, uid in before.items() if uid not in there}
        if unknown or missing:
            await asyncio.sleep(self._settles_after.total_seconds())  # the watch is on its way with most of it
            known = collection.uids(namespace)
            late = {body["metadata"]["name"] for body in unknown if not collection.has(body)}
            for name in late | {name for name in missing if known.get(name) == before[name]}:
                await self._read(collection, Key(namespace, name), known.get(name))

    async def _read(self, collection: _Collection, key: Key, uid: str | None) -> None:
        """Reads one object live, in place of what is known of its name."""
        try:
            body = await self._api.get(paths.item(collection.kind, *key))
        except ApiError as error:
            if not error.not_found:
                raise
            body = None
        if uid is not None and (body is None or body["metadata"]["uid"] != uid):
            collection.gone(key, uid)
        if body is not None:
            collection.take(body)
