"""Reads the log back: the story of one task or one request, and whether each chain is whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from valetkey.audit.record import CONTINUED, GENESIS, SHORTENED, digest

Record = dict[str, Any]
REVOKED: Final = "CredentialRevoked"
"""What the leader says of a grant that it let go."""
GONE: Final = "GrantGone"
"""What another replica says that saw it go."""
_OVER: Final = {REVOKED, GONE}
_CLOCKS_APART: Final = timedelta(days=1)
REVIEWED: Final = "BreakGlassReviewed"
"""What the leader says of what was granted in an emergency, once somebody has looked at it."""
UNREVIEWED: Final = "BreakGlassUnreviewed"
"""That nobody has in time."""
FORGOTTEN: Final = "BreakGlassForgotten"
"""That nobody can any more."""
RESTORED: Final = "StoreRestored"
# At its place in a record: words of agents that look the same, anywhere in it, are not worth a closer look.
_TEXT: Final = rb'"(?:[^"\\]|\\.)*"'
_LIKELY: Final = re.compile(
    rb'\{"seq":\d+,"prev":%s,"cluster":%s,"writer":%s,"at":%s,"reason":"(?:%s)"'
    % (_TEXT, _TEXT, _TEXT, _TEXT, "|".join(sorted({*_OVER, RESTORED})).encode())
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A place where a chain does not hold."""

    file: str
    line: int
    """Counted from one; 0 is its end."""
    why: str


def read(directory: Path, *, elsewhere: Set[str] = frozenset()) -> tuple[list[Record], list[Broken]]:
    """Every record of every writer in order of time, and every break in a chain; files `elsewhere` are not missed.

    Raises FileNotFoundError where there is no such directory.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    records: list[Record] = []
    broken: list[Broken] = []
    ended: dict[str, str] = {}
    for path in sorted(directory.glob("*.jsonl")):
        ended[path.name] = GENESIS
        for entry in _chain(path):
            if isinstance(entry, Broken):
                broken.append(entry)
            else:
                records.append(entry)
                ended[path.name] = str(entry.get("hash", ""))
    broken.extend(_cut(records, ended, elsewhere))
    return sorted(records, key=lambda record: str(record.get("at", ""))), broken


def select(records: list[Record], *, task: str | None, request: str | None) -> list[Record]:
    """The records of one task (its id) or of one request (namespace/name, or uid)."""
    return [
        record
        for record in records
        if (task is None or record.get("task") == task)
        and (request is None or request in (record.get("request"), record.get("request_uid")))
    ]


@dataclass(frozen=True, slots=True)
class Past:
    """What the log knows and the API server's store may have forgotten."""

    ended: dict[str, str]
    """Why grants and requests ended, by the uid of either."""
    restored: datetime | None
    """When the store was last found to have been restored."""


def past(directory: Path, uids: Set[str], *, since: datetime) -> Past:
    """What every log here says of these grants and requests, and of the store.

    Reads what was written since the first of them was made, some hundred MB each second. Chains are not checked.
    Raises OSError.
    """
    ended: dict[str, str] = {}
    restored: datetime | None = None
    earliest = (since - _CLOCKS_APART).timestamp()
    for path in directory.glob("*.jsonl"):
        if path.stat().st_mtime < earliest:
            continue
        with path.open("rb") as lines:
            for line in lines:
                record = (_record(line) if _LIKELY.match(line) else None) or {}
                if record.get("reason") == RESTORED:
                    restored = max(filter(None, (restored, _time(record))), default=None)
                elif record.get("reason") in _OVER:
                    known = {str(record.get("request_uid")), str(record.get("grant"))} & uids
                    ended |= dict.fromkeys(known, str(record.get("end", "")))
    return Past(ended, restored)


def _time(record: Record) -> datetime | None:
    """When a record was written; None of one that no writer of ours wrote."""
    try:
        at = datetime.fromisoformat(str(record.get("at")))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def _cut(records: Iterable[Record], ended: Mapping[str, str], elsewhere: Set[str]) -> Iterator[Broken]:
    """Files that lack their last records, or are not there at all, though a later file tells of them."""
    shortened = (record.get("files") for record in records if record.get("reason") == SHORTENED)
    dropped = {file for files in shortened if isinstance(files, list) for file in map(str, files)}
    for record in records:
        if record.get("reason") != CONTINUED:
            continue
        file = str(record.get("file"))
        if file in ended and ended[file] != record.get("last"):
            yield Broken(file, 0, "its last records are missing")
        elif file not in ended and file not in dropped and file not in elsewhere:
            yield Broken(file, 0, "it is missing, and no record says that it was too old to be kept")


def _chain(path: Path) -> Iterator[Record | Broken]:
    expected = GENESIS
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                # The writer died in the middle of it: nobody was told that it is on disk.
                return
            record = _record(line)
            if record is None:
                yield Broken(path.name, number, "not a record")
                continue
            if record.get("prev") != expected:
                yield Broken(path.name, number, "records before it are missing or were changed")
            if not _holds(record):
                yield Broken(path.name, number, "it was changed")
            expected = str(record.get("hash", ""))
            yield record


def _holds(record: Record) -> bool:
    try:
        return record.get("hash") == digest(record)
    except TypeError:  # nested more deeply than any writer of ours nests
        return False


def _record(line: bytes) -> Record | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None
