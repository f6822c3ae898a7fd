"""How is an access used where nothing is awaited? Its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from valetkey.agent import signals

T = TypeVar("T")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="valetkey", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the work; interrupted, it is cancelled and takes back what it has done."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                # The future is cancelled at once, the work is when it has tidied up.
                with signals.leaving():
                    asyncio.run_coroutine_threadsafe(_others(), self._loop).result()
            raise

    def run_to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the work, even if interrupted meanwhile; twice is meant."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            concurrent.futures.wait([future])
            raise

    def close(self) -> None:
        """Ends loop and thread."""
        try:
            # There, for this thread may be within a loop that runs, and no thread runs two.
            self.run_to_its_end(self._loop.shutdown_asyncgens())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _others() -> None:
    """Waits for everything else that runs in this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
