"""Heartbeats: when an agent was last heard of, by this replica's own time, not by that of an agent or a node."""

from __future__ import annotations

from datetime import datetime

from valetkey.controller.backends import Backends
from valetkey.controller.cache import Cache
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError


def due(cache: Cache, surroundings: Surroundings, grant: TaskGrant, now: datetime) -> datetime | None:
    """By when the next beat has to be here; None where none is wanted, or none could have come in lately."""
    within, since = grant.spec.order.heartbeat, surroundings.answered_since
    if within is None or not grant.delivered or since is None or not surroundings.policies_fresh(now):
        return None  # while the API server is away nothing comes from agents, either
    heard = cache.requests.heard(grant.spec.request.uid)
    return max(since, grant.spec.order.opened_at, *(() if heard is None else (heard,))) + within


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
