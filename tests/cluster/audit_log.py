"""The API server's audit log: what the operator really asked of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.cluster.api import OPERATOR, Json

_UPKEEP = ("leaders", "customresourcedefinitions")
"""What is asked for whether anything is granted or not."""


def operators(log: Path) -> Iterator[Json]:
    """The operator's requests, oldest first; the log goes on in a new file when it is large."""
    for path in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        with path.open("rb") as lines:
            for line in lines:
                if OPERATOR.encode() in line and line.endswith(b"\n"):
                    event = json.loads(line)
                    if event["user"]["username"] == OPERATOR and "objectRef" in event:
                        yield event


def count(log: Path, since: datetime, until: datetime) -> Counter[str]:
    """How often the operator sent each verb to each resource in that time; no lists, no watches, no Leader, no CRDs."""
    counted: Counter[str] = Counter()
    for event in operators(log):
        upkeep = event["verb"] in ("list", "watch") or event["objectRef"]["resource"] in _UPKEEP
        if not upkeep and since <= datetime.fromisoformat(event["requestReceivedTimestamp"]) <= until:
            reference = event["objectRef"]
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
            counted[f"{event['verb']} {resource}"] += 1
    return counted
