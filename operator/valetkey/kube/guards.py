"""Guards: the admission policies that must be in force, compared with what the API server holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from valetkey.kube.api import Json

KINDS: Final = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")

Id = tuple[str, str]
"""Kind and name."""

# What the API server adds to a policy that does not say otherwise.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "scope": "*",
    "failurePolicy": "Fail",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """Which guards are wrong, and since when all have been right."""

    wrong: tuple[str, ...]
    """`<kind> <name>: <what>` for each that is missing or changed."""
    since: datetime | None
    """The newest write to any of them; None where one is wrong."""


def load(path: Path) -> tuple[Json, ...]:
    """The guards that the chart installed beside this operator."""
    return tuple(orjson.loads(path.read_bytes()))


def identify(body: Json) -> Id:
    """Kind and name of a guard."""
    return body["kind"], body["metadata"]["name"]


def compare(expected: Iterable[Json], live: Mapping[Id, Json]) -> Guards:
    """Compares what must be in force with what is."""
    wrong: list[str] = []
    newest: datetime | None = None
    for guard in expected:
        kind, name = identify(guard)
        found = live.get((kind, name))
        if found is None:
            wrong.append(f"{kind} {name}: missing")
        elif found["metadata"].get("deletionTimestamp"):
            wrong.append(f"{kind} {name}: being deleted")
        elif not _same(guard["spec"], found["spec"]):
            wrong.append(f"{kind} {name}: changed")
        else:
            written = _last_written(found["metadata"])
            newest = written if newest is None else max(newest, written)
    return Guards(wrong=tuple(wrong), since=None if wrong else newest)


def _same(expected: object, found: object) -> bool:
    if isinstance(expected, dict) and isinstance(found, dict):
        added = found.keys() - expected.keys()
        return all(key in found and _same(value, found[key]) for key, value in expected.items()) and all(
            key in _DEFAULTS and found[key] == _DEFAULTS[key] for key in added
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(_same(a, b) for a, b in zip(expected, found, strict=True))
    if isinstance(expected, str) and isinstance(found, str):
        return expected.strip() == found.strip()
    return expected == found


def _last_written(metadata: Json) -> datetime:
    # The controller-manager writes the status of policies, and an apply that changes nothing leaves an entry without a
    # time: neither changes what they hold.
    times = [metadata["creationTimestamp"]] + [
        entry["time"]
        for entry in metadata.get("managedFields", ())
        if "time" in entry and entry.get("subresource") != "status"
    ]
    return max(datetime.fromisoformat(time) for time in times)
