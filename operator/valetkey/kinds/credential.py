"""Credentials in memory: what an issuer hands to a delivery, in types that cannot print what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from valetkey.kinds.taskgrant import MadeObject

_HIDDEN: Final = "Secret(…)"


@final
class Secret:
    """A secret string that shows itself only where `reveal` is called."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; the caller sees to it that it goes to nobody but its owner."""
        return self._value

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return _HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What was made for one grant."""

    id: str
    """Its public id, as the target system's own log has it."""
    username: str
    issued_at: datetime
    expires_at: datetime
    files: Mapping[str, Secret]
    """What the pod reads, by file name."""
    known_to_reader: frozenset[str] = frozenset()
    """Files that a reader has from its own mount and that are not sealed for it: nobody who can write a status is to
    send it elsewhere."""
    made: tuple[MadeObject, ...]
