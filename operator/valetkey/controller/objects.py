"""Objects: what was last read of one kind; the newest version wins, whoever brought it.

What was not looked at lately rests as text, a fifth of its weight: ten thousand live grants wait for their end, and
nobody looks at them until then. What is asked of all of them at once is in their notes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import orjson
from pydantic_core import PydanticSerializationError

from valetkey.controller.queue import Key
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import Json

AWAKE: Final = 500
"""How many objects of a kind do not rest."""
AWAKE_WEIGHT: Final = 4 << 20
"""Bytes of their texts: an object of many small words weighs twenty times that in memory."""
_REMEMBERED: Final = 10_000


class Note(Protocol):
    """What is known of an object without looking at it."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def version(self) -> int:
        """Its resource version: those of one object may be compared as numbers since Kubernetes 1.35 (KEP-5504)."""

    @property
    def created(self) -> datetime:
        """When it was made."""


T = TypeVar("T", AccessRequest, TaskGrant, AccessApproval)
N = TypeVar("N", bound=Note)


class Dead:
    """Uids of what is gone: an answer may come in after the watch has told of the deletion, and brings nothing back."""

    def __init__(self) -> None:
        self._uids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def add(self, uid: str) -> None:
        """Remembers one more, and forgets the oldest where there are many."""
        self._uids[uid] = None
        if len(self._uids) > _REMEMBERED:
            self._uids.popitem(last=False)


class _Bodies(Generic[T]):
    """Bodies by key: all as the API server's JSON, those of late also as they are."""

    def __init__(self, kind: type[T]) -> None:
        self._kind: type[T] = kind
        self._texts: dict[Key, bytes | T] = {}
        self._awake: OrderedDict[Key, T] = OrderedDict()
        self._weight = 0

    def get(self, key: Key) -> T | None:
        body = self._awake.get(key)
        if body is not None:
            self._awake.move_to_end(key)
        elif (text := self._texts.get(key)) is not None:
            body = self._kind.model_validate(orjson.loads(text)) if isinstance(text, bytes) else text
            self._wake(key, body)
        return body

    def put(self, key: Key, body: T) -> None:
        self._lay_down(key)
        self._texts[key] = _text(body)
        self._wake(key, body)

    def remove(self, key: Key) -> T | None:
        body = self.get(key)
        self._lay_down(key)
        self._texts.pop(key, None)
        return body

    def _wake(self, key: Key, body: T) -> None:
        self._awake[key] = body
        self._weight += self._weight_of(key)
        while len(self._awake) > AWAKE or self._weight > AWAKE_WEIGHT:
            self._lay_down(next(iter(self._awake)))

    def _lay_down(self, key: Key) -> None:
        if self._awake.pop(key, None) is not None:
            self._weight -= self._weight_of(key)

    def _weight_of(self, key: Key) -> int:
        text = self._texts[key]
        return len(text) if isinstance(text, bytes) else 0


def _text(body: T) -> bytes | T:
    try:
        return body.model_dump_json(by_alias=True, exclude_none=True).encode()
    except (PydanticSerializationError, RecursionError):
        # An agent may have nested its parameters a thousand levels deep; the API server takes that.
        return body


class Objects(Generic[T, N]):
    """Objects of one kind by key, and a note of each."""

    def __init__(self, kind: type[T], note: Callable[[T], N]) -> None:
        """`note` is what is to be known of each without looking at it."""
        self._note: Callable[[T], N] = note
        self._notes: dict[Key, N] = {}
        self._bodies: _Bodies[T] = _Bodies(kind)
        self._dead = Dead()

    def get(self, key: Key) -> T | None:
        """The object under a key."""
        return self._bodies.get(key)

    def note(self, key: Key) -> N | None:
        """What is known of it without looking at it."""
        return self._notes.get(key)

    def has(self, body: Json) -> bool:
        """Whether what was read is known already, in this version or a later one; saves reading it in full."""
        metadata = body["metadata"]
        known = self._notes.get(Key(metadata["namespace"], metadata["name"]))
        if known is None or known.uid != metadata["uid"]:
            return False
        return version_of(metadata["resourceVersion"]) <= known.version

    def uids(self, namespace: str) -> dict[str, str]:
        """The uids of a namespace's objects, by name."""
        return {key.name: note.uid for key, note in self._notes.items() if key.namespace == namespace}

    def put(self, body: T) -> bool:
        """Takes in what was read; gives whether it is news."""
        key, note = Key.of(body.metadata), self._note(body)
        known = self._notes.get(key)
        if note.uid in self._dead:
            return False
        if known is not None:
            if not _newer(note, known):
                return False
            self._leave(key, known)
        self._bodies.put(key, body)
        self._notes[key] = note
        self._enter(key, note)
        return True

    def known_gone(self, uid: str) -> bool:
        """Whether the object of that uid was seen to be gone."""
        return uid in self._dead

    def remove(self, key: Key, uid: str) -> T | None:
        """Takes out the object of that uid; gives it back if it was there."""
        self._dead.add(uid)
        known = self._notes.get(key)
        if known is None or known.uid != uid:
            return None
        self._leave(key, known)
        del self._notes[key]
        return self._bodies.remove(key)

    def __contains__(self, key: Key) -> bool:
        """Whether there is an object under a key."""
        return key in self._notes

    def __iter__(self) -> Iterator[Key]:
        """All keys, as of now."""
        return iter(list(self._notes))

    def notes(self) -> list[tuple[Key, N]]:
        """All keys and what is known of each, as of now."""
        return list(self._notes.items())

    def _enter(self, key: Key, note: N) -> None:
        """Is told of each object that comes in."""

    def _leave(self, key: Key, note: N) -> None:
        """Is told of each object that goes out."""


def version_of(resource_version: str) -> int:
    """A resource version as a number; 0 where it is none."""
    return int(resource_version) if resource_version.isdigit() else 0


def _newer(note: Note, known: Note) -> bool:
    if note.uid != known.uid:
        return note.created >= known.created
    return note.version > known.version
