"""How is a length of time written? As GEP-2257 has it: 30s, 5m, 1h30m."""

from __future__ import annotations

import re
from datetime import timedelta

_WHOLE = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def read(text: str) -> timedelta:
    """Reads one; raises ValueError."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no length of time: write it as 30s, 5m or 1h30m")
    return timedelta(milliseconds=sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text)))


def read_or_none(text: object) -> timedelta | None:
    """Reads one that somebody else wrote; None where it is none."""
    try:
        return read(text) if isinstance(text, str) else None
    except ValueError:
        return None


def write(length: timedelta) -> str:
    """Writes one, largest unit first."""
    rest, parts = length // timedelta(milliseconds=1), []
    for unit, size in _MILLISECONDS.items():
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
