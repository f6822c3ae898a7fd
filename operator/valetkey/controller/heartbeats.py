"""Heartbeats: when an agent was last heard of, by this replica's own time, not by that of an agent or a node."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from valetkey.controller.backends import Backends
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError

_NONE: Final = ""


class Heartbeats:
    """The last beat of each grant whose policy wants them, and when it was found to be another than before."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._heard: dict[Key, tuple[str, str, datetime]] = {}
        """The grant's uid, the last beat, and when it came."""

    def due(self, key: Key, grant: TaskGrant, request: AccessRequest, now: datetime) -> datetime | None:
        """By when the next beat has to be here; None where none is wanted, or none could have come in lately."""
        within = grant.spec.order.heartbeat
        if within is None or not grant.delivered:
            return None
        uid, beat = grant.metadata.uid, request.beat or _NONE
        known = self._heard.get(key)
        if known is None or known[:2] != (uid, beat):
            known = self._heard[key] = uid, beat, now
        since = self._surroundings.answered_since
        if since is None or not self._surroundings.policies_fresh(now):
            return None  # the API server is away: from its agents, too
        return max(known[2], since) + within

    def forget(self, key: Key) -> None:
        """A grant is over."""
        self._heard.pop(key, None)


async def look_up(backends: Backends, step: LookUp, progress: Progress) -> Progress:
    """Reads a request live whose beat is overdue: it may have come, and the watch be late. Raises ApiError."""
    if not step.beat:
        return progress
    key, requests = Key.of(step.grant.metadata), backends.cache.requests
    try:
        body = await backends.api.get(paths.item("AccessRequest", *key))
    except ApiError as error:
        if not error.not_found:
            raise
        requests.remove(key, step.grant.spec.request.uid)
    else:
        requests.put(AccessRequest.model_validate(body))
    return learnt(progress, listened=True)
