"""How are files replaced beneath a program that may read them at any moment? All at once, as the kubelet does it.

The files lie in a directory of their own, `..data` is a link to it that is replaced by renaming, and each name is a
link through `..data`: whoever opens one before sees the old, whoever opens one after sees the new, and none is missing.
The set that was there before is kept until the next comes: who was led to it a moment ago finds it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

_DATA: Final = "..data"
_NEW: Final = "..new"


class Volume:
    """A directory whose files are replaced as a set."""

    def __init__(self, path: Path, *, mode: int = 0o644) -> None:
        """`mode` is that of each file: as projected tokens have it, so that who may mount it may read it."""
        self.path = path
        """Where the files are; it must be there."""
        self._mode = mode

    def write(self, files: dict[str, str]) -> None:
        """Puts all of them there, or leaves what was there; raises OSError."""
        before = self._current()
        new = self.path / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{os.urandom(4).hex()}"
        try:
            new.mkdir()
            _fill(new, files, self._mode)
            for name in files:
                self._link(name, f"{_DATA}/{name}")
            self._link(_DATA, new.name)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self._unlink(keep=files.keys())
        self._clear(keep={new.name, before})

    def remove(self) -> None:
        """Takes them away."""
        self._unlink(keep=())
        (self.path / _DATA).unlink(missing_ok=True)
        self._clear(keep=set())

    def _link(self, name: str, target: str) -> None:
        """Links by renaming; a link that is right already is left alone."""
        link, new = self.path / name, self.path / _NEW
        if link.is_symlink() and os.readlink(link) == target:
            return
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)

    def _unlink(self, *, keep: Collection[str]) -> None:
        """Takes away the names of files that are no more."""
        for path in self._entries():
            if path.name not in keep and path.is_symlink() and os.readlink(path) == f"{_DATA}/{path.name}":
                path.unlink(missing_ok=True)

    def _current(self) -> str:
        """The name of the set that is shown; empty where none is."""
        try:
            return os.readlink(self.path / _DATA)
        except OSError:
            return ""

    def _clear(self, *, keep: set[str]) -> None:
        """Takes away sets of files that nobody is led to any more, those of an earlier process too."""
        for path in self._entries():
            if path.name.startswith("..2") and path.name not in keep and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            (self.path / _NEW).unlink(missing_ok=True)

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir())


def _fill(directory: Path, files: dict[str, str], mode: int) -> None:
    """Writes files into a directory that was just made, and into no other that somebody has put in its place."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "somebody else has put a directory in its place", str(directory))
        os.fchmod(opened, mode | ((mode & 0o444) >> 2))  # who may read a file may look it up
        for name, text in files.items():
            written = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=opened)
            with open(written, "w") as file:
                os.fchmod(written, mode)
                file.write(text)
    finally:
        os.close(opened)
