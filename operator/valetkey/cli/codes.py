"""Exit codes that scripts go by; 0 is done, 1 a failure, 2 bad usage."""

from __future__ import annotations

from typing import Final

DENIED: Final = 3
WAITING: Final = 4
ENDED: Final = 5
