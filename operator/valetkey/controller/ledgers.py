"""Ledgers: how often policies that limit that have granted lately, and what was granted in emergencies and nobody has
reviewed; nobody's restart or deletion makes it forget.

There is one object of kind Ledger for each agents' namespace, in the operator's own, where no agent has rights. The
leader alone writes them, before it opens the grant, and knows what it has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from valetkey.controller.queue import Key
from valetkey.errors import InvalidError, UnavailableError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_duration, whole_seconds
from valetkey.kinds.ledger import MOST_EMERGENCIES, MOST_OPENED, REMEMBERS, Emergency, Ledger, Opened
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json
from valetkey.policy.compile import Policies
from valetkey.policy.facts import Unreviewed
from valetkey.policy.outcomes import Approved
from valetkey.reasons import Reason

_TRIES: Final = 3


@dataclass(slots=True)
class _Book:
    """The ledger of one namespace, as this replica knows it."""

    name: str = ""
    version: str = ""
    """Of the object as last read or written; empty where there is none yet."""
    opened: dict[str, Opened] = field(default_factory=dict)
    """By request."""
    emergencies: dict[str, Emergency] = field(default_factory=dict)
    """By request: uses of break-glass policies that nobody has reviewed."""
    reviewed: set[str] = field(default_factory=set)
    """Requests of those that somebody has, and that may still be on record."""
    written: frozenset[str] = frozenset()
    """What is on record: requests of `opened`, marks of `emergencies`."""
    unreadable: str = ""
    """The name of an object that this version cannot read."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, found: Ledger, now: datetime) -> None:
        """Takes in the object as it is; of what is here too, what is here is newer.

        A time that is still to come is none at which a grant can have been opened: it counts as now.
        """
        self.name, self.version = found.metadata.name, found.metadata.resource_version
        there = {one.request: one.model_copy(update={"at": min(one.at, now)}) for one in found.spec.opened}
        self.opened = there | self.opened
        used = {one.request: one for one in found.spec.emergencies or ()}
        self.emergencies = {uid: one for uid, one in (used | self.emergencies).items() if uid not in self.reviewed}
        self.written = frozenset(there.keys() | set(map(_mark, used.values())))

    def forget_all_but(self, number: int, *, like: Opened) -> None:
        """Keeps the latest of those of one account and policy."""
        alike = [
            one
            for one in self.opened.values()
            if (one.policy, one.service_account) == (like.policy, like.service_account)
        ]
        for one in sorted(alike, key=lambda one: one.at)[:-number]:
            del self.opened[one.request]

    def since(self, at: datetime) -> tuple[Opened, ...]:
        """What was opened after a moment."""
        return tuple(one for one in self.opened.values() if one.at > at)


class Ledgers:
    """Remember grants of policies that limit how often they grant."""

    def __init__(
        self, api: Api, *, namespace: str, clock: Callable[[], datetime], served: Iterable[str] | None = None
    ) -> None:
        """`namespace` is the operator's own; `served` are those whose agents are served, or all."""
        self._served = None if served is None else frozenset(served)
        self._api, self._namespace, self._clock = api, namespace, clock
        self._books: dict[str, _Book] = {}
        self._known = False
        self._reading = asyncio.Lock()

    async def read(self) -> None:
        """Reads all of them, once: from then on this replica has written whatever is there. Raises ApiError."""
        async with self._reading:
            if self._known:
                return
            found = [body async for body in self._api.list(paths.collection("Ledger", self._namespace))]
            # Of a namespace that was made anew there may be two; the later one is written to.
            for body in sorted(found, key=lambda body: str(body["metadata"]["creationTimestamp"])):
                self._take(self._book(str(body["spec"]["namespace"])), body)
            self._known = True

    def _take(self, book: _Book, body: Json) -> None:
        try:
            book.take(Ledger.model_validate(body), self._clock())
            book.unreadable = ""
        except ValidationError:
            book.unreadable = str(body["metadata"]["name"])

    async def opened(self, request: AccessRequest, account: str, policies: Policies) -> dict[str, tuple[datetime, ...]]:
        """When grants of an account were opened lately, by policy that limits how often.

        That of this very request does not count. Only as many of each are given as its limits look at, the latest.
        Raises ApiError, and UnavailableError where the ledger of its namespace cannot be read.
        """
        await self.read()
        _demand_readable(self._book(request.metadata.namespace))
        uid = request.metadata.uid
        times: dict[str, list[datetime]] = {}
        for one in self._book(request.metadata.namespace).since(self._clock() - REMEMBERS):
            if one.service_account == account and one.request != uid:
                times.setdefault(one.policy, []).append(one.at)
        remember = {one.policy.metadata.name: one.policy.spec.limits.remembers for one in policies.usable("Allow")}
        return {name: tuple(sorted(at)[-most:]) for name, at in times.items() if (most := remember.get(name, 0))}

    def unreviewed(self, request: AccessRequest, account: str) -> dict[str, tuple[Unreviewed, ...]]:
        """By break-glass policy: its uses by an account that nobody has reviewed; after `opened`.

        That of this very request does not count.
        """
        namespace = request.metadata.namespace
        uses: dict[str, tuple[Unreviewed, ...]] = {}
        for one in self._book(namespace).emergencies.values():
            if one.service_account == account and one.request != request.metadata.uid:
                name = f"{namespace}/{one.name}"
                told = Unreviewed(request=name, uid=one.request, at=one.at, review_by=one.review_by)
                uses[one.policy] = (*uses.get(one.policy, ()), told)
        return uses

    def emergencies(self) -> list[tuple[str, Emergency]]:
        """Every use that nobody has reviewed, and the namespace that it was in, as far as was read.

        Those of namespaces whose agents are not served any more are left out: nobody can speak there.
        """
        books = ((name, book) for name, book in self._books.items() if self._served is None or name in self._served)
        return [(namespace, one) for namespace, book in books for one in book.emergencies.values()]

    async def enter(self, request: AccessRequest, account: str, approved: Approved, at: datetime) -> Emergency | None:
        """Puts on record that a grant is about to be opened; from the first moment on it counts for others.

        Gives what is to be reviewed, where it is an emergency.

        Of the account's earlier grants by that policy only as many stay as it remembers. Raises ApiError, and
        InvalidError where no more fits in.
        """
        key, uid = Key.of(request.metadata), request.metadata.uid
        policy = approved.policy.name
        book, wanted = self._book(key.namespace), set[str]()
        if approved.remembers:
            self._demand_room(book, uid)
            made = Opened(request=uid, policy=policy, service_account=account, at=at)
            book.opened[uid] = made
            book.forget_all_but(approved.remembers, like=made)
            book.written -= {uid}
            wanted.add(uid)
        if approved.review_within is not None:
            _demand_room_for_emergencies(book, uid)
            by = at + approved.review_within
            used = Emergency(request=uid, name=key.name, policy=policy, service_account=account, at=at, review_by=by)
            if _mark(book.emergencies.get(uid)) != _mark(
                used
            ):  # the first time counts, however often it is tried again
                book.emergencies[uid] = used
            wanted.add(_mark(used))
        async with book.writing:
            if not wanted <= book.written:  # one write takes along whatever has come since the one before it began
                await self._write(key.namespace, book)
        return book.emergencies.get(uid)

    async def reviewed(self, namespace: str, use: Emergency) -> None:
        """Takes a use off the record, for somebody has reviewed it. Raises ApiError, and UnavailableError."""
        book = self._book(namespace)
        async with book.writing:
            if book.emergencies.get(use.request) != use:
                return
            book.reviewed.add(use.request)
            del book.emergencies[use.request]
            try:
                await self._write(namespace, book)
            except BaseException:
                book.emergencies[use.request] = use
                raise
            finally:
                book.reviewed.discard(use.request)

    def forget(self, namespace: str) -> None:
        """Forgets a namespace that is gone: its ledger went with it."""
        self._books.pop(namespace, None)

    def _book(self, namespace: str) -> _Book:
        return self._books.setdefault(namespace, _Book())

    def _demand_room(self, book: _Book, uid: str) -> None:
        lately = book.since(self._clock() - REMEMBERS)
        book.opened = {one.request: one for one in lately}
        if uid in book.opened or len(lately) < MOST_OPENED:
            return
        free = min(one.at for one in lately) + REMEMBERS - self._clock()
        again = format_duration(whole_seconds(free))
        raise InvalidError(
            Reason.LIMIT_REACHED,
            f"policies that limit how often they grant have granted {MOST_OPENED} times within the last hour in this "
            f"namespace, and no more can be remembered; ask again in {again}",
        )

    async def _write(self, namespace: str, book: _Book) -> None:
        for tries_left in reversed(range(_TRIES)):
            opened, emergencies = tuple(book.opened.values()), tuple(book.emergencies.values())
            try:
                body = await self._send(namespace, book, opened, emergencies)
            except ApiError as error:
                if not tries_left or not (error.conflict or error.already_exists or error.not_found):
                    raise
                await self._read_again(book)
            else:
                book.version = body["metadata"]["resourceVersion"]
                book.written = frozenset((*(one.request for one in opened), *map(_mark, emergencies)))
                return

    async def _send(
        self, namespace: str, book: _Book, opened: Iterable[Opened], emergencies: Iterable[Emergency]
    ) -> Json:
        """Writes the object, or makes it: it belongs to its namespace and goes with it."""
        of = {"kind": "Ledger", "apiVersion": paths.api_version("Ledger")}
        spec: Json = {"namespace": namespace, "opened": [one.to_api() for one in opened]}
        if used := [one.to_api() for one in emergencies]:  # left out where there is none: the version before reads that
            spec["emergencies"] = used
        if not book.name:
            found = await self._api.get(paths.item("Namespace", None, namespace))
            book.name = found["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": book.name}
        metadata = {"name": book.name, "namespace": self._namespace, "ownerReferences": [owner]}
        if not book.version:
            path = paths.collection("Ledger", self._namespace)
            return await self._api.create(path, of | {"metadata": metadata, "spec": spec})
        body = of | {"metadata": metadata | {"resourceVersion": book.version}, "spec": spec}
        return await self._api.replace(paths.item("Ledger", self._namespace, book.name), body)

    async def _read_again(self, book: _Book) -> None:
        """After a write that found another version than the last one, or none, as when the namespace was made anew."""
        if not book.name:
            return  # the namespace itself is gone
        try:
            found = await self._api.get(paths.item("Ledger", self._namespace, book.name))
        except ApiError as error:
            if not error.not_found:
                raise
            book.name = book.version = ""
        else:
            self._take(book, found)
            _demand_readable(book)


def _mark(use: Emergency | None) -> str:
    """A use, by its request and the policy that it is of."""
    return "" if use is None else f"{use.request}/{use.policy}"


def _demand_room_for_emergencies(book: _Book, uid: str) -> None:
    if uid not in book.emergencies and len(book.emergencies) >= MOST_EMERGENCIES:
        raise InvalidError(
            Reason.REVIEW_OVERDUE,
            f"{MOST_EMERGENCIES} uses of break-glass policies in this namespace wait for their review, and no more can "
            "be remembered: somebody has to review them first (kubectl valetkey review)",
        )


def _demand_readable(book: _Book) -> None:
    if book.unreadable:
        raise UnavailableError(
            Reason.POLICIES_NOT_READY,
            f"Ledger {book.unreadable} in the operator's namespace cannot be read by this version: install the one "
            "that wrote it; or delete it, which forgets what was granted and is to be reviewed, and restart it",
        )
