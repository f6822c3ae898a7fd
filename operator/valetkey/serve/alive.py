"""Whether this process still works: a file that its event loop touches, for the kubelet's probe to look at."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Final

BEAT: Final = timedelta(seconds=1)


async def stay_alive(directory: Path) -> None:
    """Touches `alive` there each second, for ever; a loop that is stuck lets it grow old."""
    while True:
        (directory / "alive").touch()
        await asyncio.sleep(BEAT.total_seconds())
