"""How is a denial told to the agent that reads it?

It says which field stands in the way, what to change, what would pass and whom to ask; never an expression's text.
"""

from __future__ import annotations

import json
from datetime import timedelta

from valetkey.kinds.accessrequest import Denial
from valetkey.reasons import Reason

_MESSAGE, _FIELD, _ALLOWED = 2048, 256, 2048


def denial(
    reason: Reason,
    message: str,
    *,
    field: str | None = None,
    allowed: str | None = None,
    retry_after: timedelta | None = None,
    contact: str | None = None,
) -> Denial:
    """A denial that fits into its fields; what is allowed is left out rather than cut, since it is to be pasted."""
    return Denial(
        reason=reason.value,
        message=_cut(message, _MESSAGE),
        field=None if field is None else _cut(field, _FIELD),
        allowed=allowed if allowed is not None and len(allowed) <= _ALLOWED else None,
        retry_after=retry_after,
        contact=contact,
    )


def add_note(told: Denial, note: str) -> Denial:
    """The denial with one more sentence, which is never cut away."""
    if not note:
        return told
    return told.model_copy(update={"message": _cut(told.message, _MESSAGE - len(note) - 1) + " " + note})


def of_handed_on(told: Denial, at: int) -> Denial:
    """A denial of what is handed on, which was decided as if it were asked for: the same, about its own field."""
    own, handed_on = "spec.access", f"spec.delegation.access[{at}]"
    field = None if told.field is None else told.field.replace(own, handed_on, 1)
    message = _cut(told.message.replace(own, handed_on), _MESSAGE)
    return told.model_copy(update={"message": message, "field": field})


def quoted(text: str) -> str:
    """A word of the request, on one line and not too long."""
    return json.dumps(_cut(text, 64), ensure_ascii=True)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
