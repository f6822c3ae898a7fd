"""Restored: what a store that was restored from an older snapshot has brought back, and the log knows to be over.

A TaskGrant that was seen to go never comes back by itself. Where one has, the store was restored, and nothing that was
made before is trusted: what ended while nobody here looked cannot be told from what did not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from valetkey.audit import history
from valetkey.controller.backends import Backends
from valetkey.errors import UnavailableError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import Metadata
from valetkey.kube import paths
from valetkey.kube.client import ApiError
from valetkey.kube.concurrency import all_of
from valetkey.reasons import Reason, word

_logger = logging.getLogger(__name__)


async def over(backends: Backends, log: Path) -> dict[str, Reason]:
    """The requests (uids) whose grants are over though they look alive, and why they ended; raises ApiError."""
    cache = backends.cache
    grants = {grant.spec.request.uid: grant for grant in cache.grants.values()}
    live = {uid: grant.metadata for uid, grant in grants.items() if grant.status.end is None}
    asked = {one.metadata.uid: one.metadata for one in cache.requests.values() if one.finished is None}
    asked = {uid: metadata for uid, metadata in asked.items() if uid not in grants}
    if not live and not asked:
        return {}
    past = await _past(log, live, asked)
    back = {uid: past.ended[body.uid] for uid, body in live.items() if body.uid in past.ended}
    restored = past.restored
    if back:
        restored = backends.clock()
        message = f"{len(back)} grants are there that had gone; what was made before ends"
        _logger.warning("%s: %s", history.RESTORED, message)
        try:
            await backends.log.write(history.RESTORED, message=message)
        except UnavailableError as error:
            _logger.error("%s: not in the log: %s", history.RESTORED, error.message)
    known = {**back, **{uid: past.ended[uid] for uid in asked if uid in past.ended}}
    if restored is not None:
        older = (uid for uid, body in {**live, **asked}.items() if body.creation_timestamp < restored)
        known = {uid: known.get(uid, "") for uid in (*older, *known)}
    # What only looks unfinished, for the watch has not told of its end yet, is nothing to be ended.
    await all_of(*(_read(backends, asked[uid]) for uid in known if uid in asked))
    return {uid: word(end) or Reason.GRANT_DELETED for uid, end in known.items()}


async def _past(log: Path, live: Mapping[str, Metadata], asked: Mapping[str, Metadata]) -> history.Past:
    since = min(body.creation_timestamp for body in (*live.values(), *asked.values()))
    uids = {body.uid for body in live.values()} | asked.keys()
    try:
        return await asyncio.to_thread(history.past, log, uids, since=since)
    except OSError as error:
        _logger.error("what had ended cannot be read from the log: %s", error)
        return history.Past({}, None)


async def _read(backends: Backends, asked: Metadata) -> None:
    """Takes in a request as it is now."""
    try:
        body = await backends.api.get(paths.item("AccessRequest", asked.namespace, asked.name))
    except ApiError as error:
        if not error.not_found:
            raise
    else:
        backends.cache.requests.put(AccessRequest.model_validate(body))
