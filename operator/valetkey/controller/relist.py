"""Relist: everything is read in full at start; later, what a watch has missed the deletion of is found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from pydantic import ValidationError

from valetkey.controller.cache import Cache
from valetkey.controller.queue import Key
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import AGENT_LABEL
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths, pods
from valetkey.kube.client import Api, ApiError, Json

EVERY: Final = timedelta(seconds=30)
AGENTS: Final = f"{AGENT_LABEL}=true"

_logger = logging.getLogger(__name__)


class Relist:
    """Reads the agents' namespaces in full."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        surroundings: Surroundings,
        namespaces: Iterable[str],
        wake: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._cache = cache
        self._surroundings = surroundings
        self._namespaces = tuple(namespaces)
        self._wake = wake

    async def read_all(self) -> None:
        """Fills the cache and wakes every key; raises ApiError."""
        await self._surroundings.refresh()
        for namespace in self._namespaces:
            # Grants first, pods last: whatever a grant names and is not found after it is gone.
            async for body in self._api.list(paths.collection("TaskGrant", namespace)):
                self.take_grant(body)
            async for body in self._api.list(paths.collection("AccessRequest", namespace)):
                self.take_request(body)
            async for body in self._api.list(paths.collection("Pod", namespace), selector=AGENTS):
                self._cache.pods.put(pods.parse(body))
        for key in self._cache.grants:
            self._wake(key)
        for key in self._cache.requests:
            self._wake(key)

    async def keep_looking(self) -> None:
        """Looks for missed deletions for ever."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            try:
                for namespace in self._namespaces:
                    await self._find_missed(namespace)
            except ApiError as error:
                _logger.warning("missed deletions could not be looked for: %s", error)

    def take_request(self, body: Json) -> bool:
        """Takes in a request; one that cannot be read is left alone, for it can never be granted."""
        try:
            return self._cache.requests.put(AccessRequest.model_validate(body))
        except ValidationError as error:
            _unreadable("AccessRequest", body, error)
            return False

    def take_grant(self, body: Json) -> bool:
        """Takes in a grant."""
        try:
            return self._cache.grants.put(TaskGrant.model_validate(body))
        except ValidationError as error:
            _unreadable("TaskGrant", body, error)
            return False

    async def _find_missed(self, namespace: str) -> None:
        requests = await self._uids("AccessRequest", namespace)
        for request in self._cache.requests.values():
            metadata = request.metadata
            missed = metadata.namespace == namespace and metadata.uid not in requests
            if missed and await self._gone("AccessRequest", namespace, metadata.name, metadata.uid):
                key = Key(namespace, metadata.name)
                self._cache.requests.remove(key, metadata.uid)
                self._wake(key)
        found = await self._uids("Pod", namespace, AGENTS)
        for pod in self._cache.pods.values():
            missed = pod.namespace == namespace and pod.uid not in found
            if missed and await self._gone("Pod", namespace, pod.name, pod.uid):
                self._cache.pods.remove(namespace, pod.name, pod.uid)
                self._wake_grants_of(namespace, pod.name)

    def _wake_grants_of(self, namespace: str, pod_name: str) -> None:
        for key, grant in self._cache.grants.items():
            if key.namespace == namespace and grant.spec.order.subject.pod_name == pod_name:
                self._wake(key)

    async def _uids(self, kind: str, namespace: str, selector: str = "") -> set[str]:
        listed = self._api.list(paths.collection(kind, namespace), metadata_only=True, selector=selector)
        return {body["metadata"]["uid"] async for body in listed}

    async def _gone(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        try:
            body = await self._api.get(paths.item(kind, namespace, name))
        except ApiError as error:
            if error.not_found:
                return True
            raise
        return bool(body["metadata"]["uid"] != uid)


def _unreadable(kind: str, body: Json, error: ValidationError) -> None:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    metadata = body["metadata"]
    _logger.error("%s %s/%s: %s: %s", kind, metadata.get("namespace"), metadata.get("name"), where, first["msg"])
