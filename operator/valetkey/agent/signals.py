"""What happens to an access when the process is told to terminate? It is left as if the block had been cancelled."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

TERMINATED: Final = 128 + signal.SIGTERM

_guard: Final = threading.Lock()
_open = 0
_leaving = False
_came = False


def hold() -> None:
    """An access is about to open: SIGTERM unwinds the program, where nothing else was to happen on it."""
    global _open
    with _guard:
        _open += 1
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)


def release() -> None:
    """It is closed; with the last one all is as it was before."""
    global _open
    with _guard:
        _open -= 1
        if not _open and _in_main_thread() and signal.getsignal(signal.SIGTERM) == _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def leaving() -> Iterator[None]:
    """While an access is left, SIGTERM waits, for it would only cut short what it is to bring about."""
    global _leaving, _came
    if not _in_main_thread():
        yield
        return
    before, _leaving = _leaving, True
    try:
        yield
    finally:
        _leaving = before
        if _came and not _leaving:
            _came = False
            raise SystemExit(TERMINATED)


def _terminate(signum: int, frame: FrameType | None) -> None:
    global _came
    if _leaving:
        _came = True
    elif _open:
        raise SystemExit(TERMINATED)
    else:  # the last one closed in another thread, which cannot put things back
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
