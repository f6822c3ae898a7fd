"""One run at a time works on the local cluster."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.local.places import CACHE, Say


@contextmanager
def alone(say: Say) -> Iterator[None]:
    """Waits for every other run to end; the lock goes with its process, however that ends."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work on the local cluster: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
