"""Parents: whether the request that another works for is live, as last read and as it is now.

Whoever ends a grant writes that first; the cache, which learns of it by whatever way, then wakes who works for it.
Whoever opens one reads its parent again before anything is made. So of the two at least one finds the other.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Final

from valetkey.controller.backends import Backends
from valetkey.controller.cache import Cache
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.errors import NotReadyError
from valetkey.kinds.delegation import Parent
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError
from valetkey.policy.facts import ParentFacts
from valetkey.policy.lineage import parent_facts
from valetkey.reasons import Reason

SOON: Final = timedelta(seconds=1)
_UNREAD: Final = "the request that it works for is not known here yet"


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
    if grant is None or (request is None and not grant.ending):
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
    """Reads a parent that is not known here; raises ApiError, and NotReadyError where it goes on and is to be read.

    It is not taken in: what a watch or a list brings is woken and looked at itself.
    """
    if step.parent is None:
        return progress
    if await goes_on(backends, step.parent):
        raise NotReadyError(Reason.ISSUE_PENDING, f"{_UNREAD}: {step.parent}", after=SOON)
    return learnt(progress, parent_gone=True)


async def demand_known(backends: Backends, parent: Parent | None) -> None:
    """Raises NotReadyError where a parent is live and was not read here yet, and ApiError.

    Who may not read it serves nobody there: no grant of it is live.
    """
    if parent is None or standing(backends.cache, parent) is not Standing.UNKNOWN:
        return
    try:
        unread = await goes_on(backends, parent)
    except ApiError as error:
        if not error.refused:
            raise
        return
    if unread:
        raise NotReadyError(Reason.POLICIES_NOT_READY, f"{_UNREAD}: {parent}", after=SOON)


async def goes_on(backends: Backends, parent: Parent | None) -> bool:
    """Whether what was granted to a parent goes on, read now; raises ApiError."""
    if parent is None:
        return True
    try:
        body = await backends.api.get(paths.item("TaskGrant", parent.namespace, parent.name))
    except ApiError as error:
        if not error.not_found:
            raise
        return False
    grant = TaskGrant.model_validate(body)
    return grant.spec.request.uid == parent.uid and not grant.ending
