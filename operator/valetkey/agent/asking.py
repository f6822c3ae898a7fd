"""How does a request come to be, and how is it said that its task is over?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from valetkey.agent import answer
from valetkey.agent.api import Api, ApiError, persistently
from valetkey.agent.ask import COLLECTION, Ask
from valetkey.agent.entries import Entry, Reference
from valetkey.agent.pod import Pod
from valetkey.agent.sealed import public_key

Json = dict[str, Any]
Failed = Callable[[str], None]
_log: Final = logging.getLogger("valetkey")
_END_OLD_FOR: Final = 10.0


def path_of(reference: Reference) -> str:
    """Where a request is."""
    return f"{COLLECTION.format(reference.namespace)}/{reference.name}"


async def asked(api: Api, pod: Pod, entry: Entry, ask: Ask, failed: Failed) -> tuple[Json, X25519PrivateKey]:
    """The request that an earlier process left behind for the same task, else a new one; raises ApiError."""
    reference, key = entry.reference(), entry.key()
    if reference is not None and (found := await _left_behind(api, reference, failed)) is not None:
        if key is not None and _is_for(found, key) and not _is_over(found):
            entry.refer(reference._replace(uid=found["metadata"]["uid"], kept=False))
            return found, key
        if not _is_over(found):
            await report(api, reference, reference.outcome or "Cancelled", seconds=_END_OLD_FOR)
    return await _made(api, pod, entry, ask, failed)


async def report(api: Api, reference: Reference, outcome: str, *, seconds: float) -> bool:
    """Says that the task is over, until it has been heard; False where it has not been in time."""
    trouble = [""]
    try:
        async with asyncio.timeout(seconds):
            await persistently(
                lambda: api.patch(path_of(reference), {"spec": {"outcome": outcome}}),
                lambda why: trouble.__setitem__(0, why),
            )
    except TimeoutError:
        _log.warning(
            "%s: for %g s the API server has not heard that the task is over (%s); the access ends with its time",
            *(reference.name, seconds, trouble[0]),
        )
        return False
    except ApiError as error:
        if error.status != 404:
            _log.warning("%s: it could not be said that the task is over: %s", reference.name, error)
    return True


async def _left_behind(api: Api, reference: Reference, failed: Failed) -> Json | None:
    """An earlier process's request; None where it was never made or is gone."""
    try:
        found = await persistently(lambda: api.get(path_of(reference)), failed)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found if reference.uid in (None, found["metadata"]["uid"]) else None


def _is_over(request: Json) -> bool:
    return "outcome" in request["spec"] or answer.read(request).over is not None


def _is_for(request: Json, key: X25519PrivateKey) -> bool:
    sealed: Json = request["spec"]["delivery"].get("sealed") or {}
    return sealed.get("publicKey") == public_key(key)


async def _made(api: Api, pod: Pod, entry: Entry, ask: Ask, failed: Failed) -> tuple[Json, X25519PrivateKey]:
    key = entry.new_key()
    reference = Reference(namespace=pod.namespace, name=ask.name())
    # Before it is asked for: were we to die in between, the next process would look for it by this name.
    entry.refer(reference)

    def body(token: str) -> Json:
        return ask.body(reference.name, pod=pod, token=token, public_key=public_key(key))

    try:
        made = await persistently(lambda: api.create(COLLECTION.format(pod.namespace), body), failed)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            entry.forget()
            raise
        # It had been carried out, and the answer was lost.
        made = await persistently(lambda: api.get(path_of(reference)), failed)
        if not _is_for(made, key):
            entry.forget()
            raise
    entry.refer(reference._replace(uid=made["metadata"]["uid"]))
    return made, key
