"""What does a process leave behind for the next one, if it dies?

Below the state directory there is `<pod uid>/<fingerprint>` for each access:

    lock      held while the access lives; the kernel lets go of it when the process dies, however it dies
    request   the request's namespace, name and uid; written before it is asked for, so that none is forgotten
    key       the private key that the access is sealed for
    files     what was delivered
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from valetkey.agent.errors import AccessError
from valetkey.agent.volume import Volume

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is put there is checked
_PRIVATE: Final = 0o700


class Reference(NamedTuple):
    """Which request an entry is about."""

    namespace: str
    name: str
    uid: str | None = None
    """None until the API server has answered."""
    kept: bool = False
    """Whether it was left to be found by a later call, rather than by a crash."""
    sequence: int = 0
    """That of what was opened last: nothing older is opened after a crash, either."""
    outcome: str | None = None
    """How its task ended, where that was not heard yet."""


class Entry:
    """One access, on disk; its lock is held by this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self.files = path, path / "files"
        self._lock = lock
        _held.add(lock)

    def reference(self) -> Reference | None:
        """Which request it is about, if any."""
        try:
            return Reference(**json.loads((self.path / "request").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def refer(self, reference: Reference) -> None:
        """Says which request it is about."""
        write(self.path / "request", json.dumps(reference._asdict()).encode())

    def forget(self) -> None:
        """There is no request that it is about."""
        (self.path / "request").unlink(missing_ok=True)

    def key(self) -> X25519PrivateKey | None:
        """The key that its access is sealed for, if it is there."""
        try:
            return X25519PrivateKey.from_private_bytes((self.path / "key").read_bytes())
        except (OSError, ValueError):
            return None

    def new_key(self) -> X25519PrivateKey:
        """Another key, which replaces the one that was there."""
        key = X25519PrivateKey.generate()
        write(self.path / "key", key.private_bytes_raw())
        return key

    def volume(self) -> Volume:
        """Where what was delivered is put, for this user alone; raises OSError."""
        self.files.mkdir(mode=_PRIVATE, exist_ok=True)
        return Volume(self.files, mode=0o600)

    def shred(self) -> None:
        """Takes away key and files; which request it is about stays."""
        (self.path / "key").unlink(missing_ok=True)
        shutil.rmtree(self.files, ignore_errors=True)

    def remove(self) -> None:
        """Takes it away."""
        self.shred()
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Leaves it to be found."""
        if self._lock in _held:
            _held.remove(self._lock)
            os.close(self._lock)


def take(directory: Path, fingerprint: str) -> Entry:
    """The first entry for a fingerprint that no living access holds; `directory` is the pod's."""
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    for number in count(1):
        path = directory / (fingerprint if number == 1 else f"{fingerprint}-{number}")
        path.mkdir(mode=_PRIVATE, exist_ok=True)
        with suppress(FileNotFoundError):  # somebody has taken it away meanwhile: its number is left out
            if (lock := _locked(path)) is not None:
                return Entry(path, lock)
    raise AssertionError("numbers do not end")


def dead(directory: Path) -> Iterator[Entry]:
    """Each entry whose holder has died, or left it to be found."""
    with suppress(FileNotFoundError):
        for path in sorted(directory.iterdir()):
            with suppress(OSError):
                if (lock := _locked(path)) is not None:
                    yield Entry(path, lock)


def state_directory(given: Path | str | None = None) -> Path:
    """Where entries are: as given, as the environment says, or in memory; raises AccessError where others reach it."""
    chosen = given or os.environ.get("VALETKEY_STATE_DIRECTORY")
    if chosen:
        path = Path(chosen).absolute()
    else:
        in_memory = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        path = (_SHARED_MEMORY if in_memory else Path(tempfile.gettempdir())) / f"valetkey-{os.getuid()}"
    try:
        path.mkdir(mode=_PRIVATE, parents=bool(chosen), exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise AccessError(
            f"{path} cannot be made: {error.strerror}; set VALETKEY_STATE_DIRECTORY to another directory"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise AccessError(
            f"{path} is not a directory of this user alone (mode 0700, no symbolic link): keys are not put there; "
            "set VALETKEY_STATE_DIRECTORY to one that is, or that is not there yet"
        )
    return path


def write(path: Path, content: bytes) -> None:
    """Replaces a file: who reads it sees the old content or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _locked(path: Path) -> int | None:
    """The lock of an entry; None where somebody holds it. Raises FileNotFoundError where the entry is gone."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have taken the entry away, and somebody else made another.
        if os.path.samestat(os.fstat(lock), (path / "lock").stat()):
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


_held: set[int] = set()


def _let_go() -> None:
    """A process that was forked from the holder would keep its locks after its death."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
