"""The files of the log: what is appended is on disk whole or not at all, and what is old goes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_BEGAN: Final = "%Y%m%dT%H%M%S%f"
_LONGEST: Final = 4 << 20
"""Bytes: no record is longer, for no object at the API server is."""
_RESERVE: Final = 64 << 20
"""Bytes of the volume that are kept for the records of endings; of a small one, a twentieth."""


class LogFile:
    """A new file, closed to everybody else, that only grows. Raises OSError throughout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._good, self._torn = 0, False

    def append(self, content: bytes) -> None:
        """Returns when it is on disk; of what fails nothing is left."""
        self._mend()
        self._torn = True
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # then the next write begins with it
                self._mend()
            raise
        self._torn = False
        self._good += len(content)

    def close(self) -> None:
        """Ends it, mended if that can be; whatever was acknowledged is on disk already."""
        with contextlib.suppress(OSError):
            self._mend()
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _mend(self) -> None:
        """Cuts off what a failed write has left."""
        if self._torn:
            os.ftruncate(self._file, self._good)
            self._torn = False


def try_writing(directory: Path) -> None:
    """Writes a page that nobody reads and that is gone afterwards; raises OSError where it could not."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"\0" * 4096)
        os.fdatasync(file.fileno())


def nearly_full(directory: Path) -> bool:
    """Whether what is left of the volume is kept for endings; raises OSError."""
    volume = os.statvfs(directory)
    reserve = min(_RESERVE, volume.f_blocks * volume.f_frsize // 20)
    return volume.f_bavail * volume.f_frsize < reserve


def last_written(directory: Path, writer: str) -> tuple[Path, bytes] | None:
    """A writer's newest file that has a whole line, and its last one; None where there is none. Raises OSError."""
    for path in sorted(_files(directory, writer), reverse=True):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LONGEST))
            whole = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        if whole:
            return path, whole[-1]
    return None


def drop_older(directory: Path, writer: str, than: datetime) -> list[str]:
    """Deletes the files of a writer that were last written before then, and gives their names; raises OSError.

    Of that writer only: another may have its own open, and write to it again.
    """
    dropped = []
    for path in sorted(_files(directory, writer)):
        if path.stat().st_mtime < than.timestamp():
            path.unlink()
            dropped.append(path.name)
    return dropped


def name_of(writer: str, began: datetime) -> str:
    """The name of the file that a writer began then; each is of one day and one start."""
    return f"{writer}-{began:{_BEGAN}}.jsonl"


def began(name: str) -> datetime | None:
    """When a file was begun, by its name; None where that is no file of ours."""
    writer, _, rest = name.rpartition("-")
    try:
        at = datetime.strptime(rest, f"{_BEGAN}.jsonl").replace(tzinfo=UTC)
    except ValueError:
        return None
    return at if name == name_of(writer, at) else None


def _files(directory: Path, writer: str) -> Iterable[Path]:
    return directory.glob(f"{writer}-????????T*.jsonl")
