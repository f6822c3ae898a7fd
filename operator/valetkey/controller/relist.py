"""Relist: everything is read in full at start and from time to time, for a watch may miss things and never say so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from valetkey.controller.cache import Cache
from valetkey.controller.intake import Intake
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.base import AGENT_LABEL
from valetkey.kube import paths
from valetkey.kube.client import Api, ApiError, Json

EVERY: Final = timedelta(seconds=30)
AGENTS: Final = f"{AGENT_LABEL}=true"

_logger = logging.getLogger(__name__)


class Relist:
    """Reads the agents' namespaces in full."""

    def __init__(
        self, api: Api, cache: Cache, intake: Intake, surroundings: Surroundings, namespaces: Iterable[str]
    ) -> None:
        self._api = api
        self._cache = cache
        self._intake = intake
        self._surroundings = surroundings
        self._namespaces = tuple(namespaces)

    async def read_all(self) -> None:
        """Takes in everything; raises ApiError.

        A namespace that may not be read, as when it is being deleted, is left to the later looks.
        """
        await self._surroundings.refresh()
        for namespace in self._namespaces:
            try:
                await self.look(namespace)
            except ApiError as error:
                if not error.refused:
                    raise
                _logger.warning("%s could not be read: %s", namespace, error)

    async def keep_looking(self) -> None:
        """Looks again for ever."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            for namespace in self._namespaces:
                try:
                    await self.look(namespace)
                except ApiError as error:
                    _logger.warning("%s could not be read: %s", namespace, error)

    async def look(self, namespace: str) -> None:
        """Takes in one namespace, and takes out what is gone from it; raises ApiError."""
        # Grants first, pods last: whatever a grant names and is not found after it is gone.
        grants = await self._read("TaskGrant", namespace, self._intake.grant)
        requests = await self._read("AccessRequest", namespace, self._intake.request)
        pods = await self._read("Pod", namespace, self._intake.pod, AGENTS)
        for key, grant in self._cache.grants.items():
            uid, missing = grant.metadata.uid, key.namespace == namespace and grant.metadata.uid not in grants
            if missing and await self._gone("TaskGrant", *key, uid, self._intake.grant):
                self._intake.grant_gone(key, uid)
        for key, request in self._cache.requests.items():
            uid, missing = request.metadata.uid, key.namespace == namespace and request.metadata.uid not in requests
            if missing and await self._gone("AccessRequest", *key, uid, self._intake.request):
                self._intake.request_gone(key, uid)
        for pod in self._cache.pods.values():
            missing = pod.namespace == namespace and pod.uid not in pods
            if missing and await self._gone("Pod", namespace, pod.name, pod.uid, self._intake.pod):
                self._intake.pod_gone(pod)

    async def _read(self, kind: str, namespace: str, take: Callable[[Json], None], selector: str = "") -> set[str]:
        uids = set()
        async for body in self._api.list(paths.collection(kind, namespace), selector=selector):
            uids.add(body["metadata"]["uid"])
            take(body)
        return uids

    async def _gone(self, kind: str, namespace: str, name: str, uid: str, take: Callable[[Json], None]) -> bool:
        """Whether it is not there now; what came after the collection was read is taken in instead."""
        try:
            body = await self._api.get(paths.item(kind, namespace, name))
        except ApiError as error:
            if error.not_found:
                return True
            raise
        take(body)
        return bool(body["metadata"]["uid"] != uid)
