"""What does a `$name` in a ceiling stand for this time?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REFERENCE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_-]*)")


def referenced(word: str) -> str | None:
    """The parameter that a word stands for, if it is `$name` as a whole."""
    found = REFERENCE.fullmatch(word)
    return found[1] if found else None


def substitute(words: Iterable[str], parameters: Mapping[str, Any]) -> tuple[frozenset[str], bool]:
    """The words with each `$name` replaced, and whether some `$name` has no text to stand for.

    A parameter's text is taken as it is: it never refers to another parameter, and it is never a wildcard.
    """
    known: set[str] = set()
    open_ended = False
    for word in words:
        name = referenced(word)
        if name is None:
            known.add(word)
            continue
        texts = _texts(parameters.get(name))
        known.update(texts)
        open_ended = open_ended or not texts
    return frozenset(known), open_ended


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    return ()
