"""The objects of one grant at the API server: made as ordered, told from others' by label and uid, proved gone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Final

from valetkey.errors import InvalidError, UnavailableError
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kinds.taskgrant import MadeObject, PlannedObject
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json, namespace_goes, unavailable
from valetkey.reasons import Reason

_OWNER: Final = re.compile(r"[0-9a-f-]{36}")
_NAMES: Final = {"ServiceAccount": "valetkey-(t-)?{}", "Job": "valetkey-{}"}
"""What an object of an owner is called; all but accounts and timers are numbered."""


class Objects:
    """Makes and unmakes; `owner` is always the uid of the request that an object is for.

    Both raise AccessError; `owned` raises ApiError.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def ensure(self, owner: str, entry: PlannedObject, content: Json, *, compared: Iterable[str]) -> MadeObject:
        """Creates an object, or takes over the one that an earlier try left; either way it is what was ordered."""
        body = _body(owner, entry) | content
        try:
            found = await self._create_or_read(entry, body)
        except ApiError as error:
            raise refusal(error, entry) from error
        if found["metadata"].get("labels", {}).get(REQUEST_LABEL) != owner:
            raise InvalidError(Reason.ORDER_INVALID, f"{_where(entry)} exists and is not this grant's")
        if any(found.get(field) != body[field] for field in compared):
            raise InvalidError(Reason.ISSUED_BEYOND_ORDER, f"{_where(entry)} is not what was ordered")
        return _made(entry, found)

    async def create_afresh(
        self, owner: str, entry: PlannedObject, content: Json, *, goes_with: MadeObject | None = None
    ) -> MadeObject:
        """Creates an object; one that an earlier try left is deleted first, and what hangs on its uid dies.

        It is collected when what it `goes_with` is gone.
        """
        path, body = paths.collection(entry.kind, entry.namespace), _body(owner, entry) | content
        if goes_with is not None:
            body["metadata"]["ownerReferences"] = [
                {
                    "apiVersion": paths.api_version(goes_with.kind),
                    "kind": goes_with.kind,
                    "name": goes_with.name,
                    "uid": goes_with.uid,
                }
            ]
        try:
            try:
                found = await self._api.create(path, body)
            except ApiError as error:
                if not error.already_exists:
                    raise
                await self._delete(owner, entry, None)
                found = await self._api.create(path, body)
        except ApiError as error:
            raise refusal(error, entry) from error
        return _made(entry, found)

    async def remove(self, owner: str, entry: PlannedObject, uid: str | None) -> None:
        """Deletes an object, by the uid that was recorded or else the one that is found."""
        try:
            await self._delete(owner, entry, uid)
        except ApiError as error:
            raise held_up(error, entry) from error

    async def prove_absent(self, owner: str, entry: PlannedObject, known: str | None, *, alone: bool = False) -> None:
        """Reads that an object is gone, or with `alone` the one of the `known` uid; raises UnavailableError if not."""
        path = paths.item(entry.kind, entry.namespace, entry.name)
        try:
            left = await self._uid(owner, entry, known)
            if left is None or (alone and left != known):
                return
            await self._api.delete(path, uid=left)
            # Somebody's finalizer keeps it alive, and with it the rights: they end with the grant all the same.
            await self._api.patch(path, {"metadata": {"uid": left, "finalizers": None}})
        except ApiError as error:
            raise held_up(error, entry) from error
        raise UnavailableError(Reason.REVOCATION_PENDING, f"{_where(entry)} is still there after its deletion")

    async def owned(self, kind: str, namespace: str | None = None) -> AsyncIterator[tuple[str, MadeObject]]:
        """Every object of a kind whose name and label say the same owner; each with that owner.

        Whoever may write Roles can make one with any name and label: what no grant could be called is passed over.
        """
        called = _NAMES.get(kind, "valetkey-{}-[0-9]{{1,2}}")
        path = paths.collection(kind, namespace)
        async for body in self._api.list(path, metadata_only=True, selector=REQUEST_LABEL):
            metadata = body["metadata"]
            owner = metadata["labels"][REQUEST_LABEL]
            if _OWNER.fullmatch(owner) and re.fullmatch(called.format(owner), metadata["name"]):
                yield (
                    owner,
                    MadeObject(
                        kind=kind,
                        namespace=metadata.get("namespace") or None,
                        name=metadata["name"],
                        uid=metadata["uid"],
                    ),
                )

    async def _create_or_read(self, entry: PlannedObject, body: Json) -> Json:
        try:
            return await self._api.create(paths.collection(entry.kind, entry.namespace), body)
        except ApiError as error:
            if not error.already_exists:
                raise
            try:
                return await self._api.get(paths.item(entry.kind, entry.namespace, entry.name))
            except ApiError as missing:
                # Gone in between: it is tried again.
                raise (error if missing.not_found else missing) from error

    async def _delete(self, owner: str, entry: PlannedObject, uid: str | None) -> None:
        uid = uid or await self._uid(owner, entry, None)
        if uid is None:
            return
        try:
            await self._api.delete(paths.item(entry.kind, entry.namespace, entry.name), uid=uid)
        except ApiError as error:
            # Another uid under that name: the proof looks at what it is.
            if not (error.conflict or await self._gone_with_namespace(entry, error)):
                raise

    async def _uid(self, owner: str, entry: PlannedObject, known: str | None) -> str | None:
        """The uid of an object if it is the owner's: by its label or, where that was taken off, by the `known` uid."""
        try:
            found = await self._api.get(paths.item(entry.kind, entry.namespace, entry.name))
        except ApiError as error:
            if error.not_found or await self._gone_with_namespace(entry, error):
                return None
            raise
        metadata = found["metadata"]
        uid: str = metadata["uid"]
        return uid if uid == known or metadata.get("labels", {}).get(REQUEST_LABEL) == owner else None

    async def _gone_with_namespace(self, entry: PlannedObject, error: ApiError) -> bool:
        """Whether a request was refused only because the namespace is gone, and with it the operator's rights there."""
        return error.status == 403 and entry.namespace is not None and await namespace_goes(self._api, entry.namespace)


def refusal(error: ApiError, entry: PlannedObject) -> InvalidError | UnavailableError:
    """What it means that an object could not be made."""
    if error.not_found and entry.namespace:
        return InvalidError(Reason.ORDER_INVALID, f"namespace {entry.namespace} does not exist; ask for one that does")
    if error.status == 403 and "terminated" in error.message:
        return InvalidError(Reason.ORDER_INVALID, f"namespace {entry.namespace} is being deleted")
    if error.unauthorized:
        told = f"{_where(entry)} was refused: {error.message[:1000]}; it is tried again"
        return UnavailableError(Reason.BACKEND_UNAVAILABLE, told)
    if error.refused:
        # The API server's own words name the rights that the operator may not hand out; they hold no secret.
        return InvalidError(Reason.ORDER_INVALID, f"{_where(entry)} was refused: {error.message[:1000]}")
    return unavailable(error, Reason.BACKEND_UNAVAILABLE)


def held_up(error: ApiError, entry: PlannedObject) -> UnavailableError:
    """What it means that an object could not be taken away, with the API server's own words where it refused."""
    told = unavailable(error, Reason.REVOCATION_PENDING)
    words = f"; it says: {error.message[:1000]}" if error.refused else ""
    return UnavailableError(Reason.REVOCATION_PENDING, f"{_where(entry)}: {told.message}{words}", after=told.after)


def _body(owner: str, entry: PlannedObject) -> Json:
    metadata: Json = {"name": entry.name, "labels": {REQUEST_LABEL: owner}}
    if entry.namespace:
        metadata["namespace"] = entry.namespace
    return {"apiVersion": paths.api_version(entry.kind), "kind": entry.kind, "metadata": metadata}


def _made(entry: PlannedObject, found: Json) -> MadeObject:
    return MadeObject(kind=entry.kind, namespace=entry.namespace, name=entry.name, uid=found["metadata"]["uid"])


def _where(entry: PlannedObject) -> str:
    return f"{entry.kind} {entry.namespace}/{entry.name}" if entry.namespace else f"{entry.kind} {entry.name}"
