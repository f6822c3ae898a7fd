"""Can what the agent says about its task be shown and recorded as it is?"""

from __future__ import annotations

import re
from typing import Final

from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import Task
from valetkey.reasons import Reason

# C0, DEL and C1 (with U+0085), the line and paragraph separators, and what turns the direction of writing:
# each lets a text look like another one to the person who reads it. Lone surrogates are no text at all.
UNSHOWABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def check_claims(task: Task) -> None:
    """Raises InvalidError unless the objective is text that shows what it says."""
    for field, text in (("objective", task.objective), ("purpose", task.purpose), ("id", task.id)):
        if UNSHOWABLE.search(text):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"spec.task.{field} holds control characters or marks of writing direction: write one plain line.",
            )
