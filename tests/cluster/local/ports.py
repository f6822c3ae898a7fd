"""Who listens on an address?"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"
_EVERYWHERE: Final = ("00000000", "0" * 32)


def holder(address: str, port: int) -> str | None:
    """The process that listens there, as a person would name it; None if the address is free."""
    wanted = {*_EVERYWHERE, socket.inet_aton(address)[::-1].hex().upper()}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            host, _, number = fields[1].partition(":")
            if fields[3] == _LISTENING and int(number, 16) == port and host in wanted:
                return _owner(fields[9])
    return None


def _owner(inode: str) -> str:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:  # gone meanwhile, or another user's
            continue
    return "a process of another user"
