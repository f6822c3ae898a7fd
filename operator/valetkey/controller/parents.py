"""Parents: whether the request that another works for is live, as last read and as it is now.

Whoever ends a grant writes that first and then looks for who works for it; whoever opens one reads its parent again
before anything is made. So of the two at least one finds the other.
"""

from __future__ import annotations

from enum import Enum

from valetkey.controller.backends import Backends
from valetkey.controller.cache import Cache
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.delegation import Parent
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError, Json
from valetkey.kube.concurrency import both
from valetkey.policy.facts import ParentFacts
from valetkey.policy.lineage import parent_facts


class Standing(Enum):
    """What is known of a parent."""

    LIVE = "live"
    GONE = "gone"
    UNKNOWN = "unknown"
    """Its grant was not read; it may be over long since, or in a namespace that could not be read yet."""


def standing(cache: Cache, parent: Parent | None) -> Standing:
    """Whether what was granted to a parent goes on, as far as was read; who has none is free of it."""
    if parent is None:
        return Standing.LIVE
    key = Key(parent.namespace, parent.name)
    grant, request = cache.grants.note(key), cache.requests.note(key)
    if grant is None:
        return Standing.UNKNOWN
    same = grant.request == parent.uid and request is not None and request.uid == parent.uid
    return Standing.LIVE if same and not grant.ending else Standing.GONE


def facts(cache: Cache, parent: Parent | None) -> ParentFacts | None:
    """What a decision reads of a live parent; None where there is none, or it is not known to be live."""
    if parent is None or standing(cache, parent) is not Standing.LIVE:
        return None
    key = Key(parent.namespace, parent.name)
    grant, request = cache.grants.get(key), cache.requests.get(key)
    return None if grant is None or request is None else parent_facts(grant, request)


async def look_up(backends: Backends, step: LookUp, progress: Progress) -> Progress:
    """Reads a parent that is not known here, and takes it in; raises ApiError."""
    parent, cache = step.parent, backends.cache
    if parent is None:
        return progress
    grant, request = await both(_read(backends, "TaskGrant", parent), _read(backends, "AccessRequest", parent))
    if _goes_on(grant, parent) and request is not None:
        cache.grants.put(TaskGrant.model_validate(grant))
        cache.requests.put(AccessRequest.model_validate(request))
    return learnt(progress, parent_gone=standing(cache, parent) is not Standing.LIVE)


async def goes_on(backends: Backends, parent: Parent | None) -> bool:
    """Whether what was granted to a parent goes on, read now; raises ApiError."""
    return parent is None or _goes_on(await _read(backends, "TaskGrant", parent), parent)


def _goes_on(body: Json | None, parent: Parent) -> bool:
    if body is None:
        return False
    grant = TaskGrant.model_validate(body)
    return grant.spec.request.uid == parent.uid and not grant.metadata.terminating and grant.status.end is None


async def _read(backends: Backends, kind: str, parent: Parent) -> Json | None:
    try:
        return await backends.api.get(paths.item(kind, parent.namespace, parent.name))
    except ApiError as error:
        if not error.not_found:
            raise
        return None
