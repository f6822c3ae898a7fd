"""Where the local cluster keeps what it builds and what it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

Say = Callable[[str], None]
"""Shows progress."""

VERSION: Final = "v1.36.3"
API: Final = "127.96.0.1"
NODE: Final = "valetkey-node"

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "valetkey"
BIN: Final = CACHE / "bin" / VERSION
STATE: Final = CACHE / "cluster"
LOGS: Final = STATE / "log"
AUDIT_LOG: Final = LOGS / "audit.log"
ADMIN: Final = STATE / "admin.kubeconfig"
SOCKET: Final = STATE / "containerd" / "containerd.sock"
HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]


class LocalClusterError(Exception):
    """The local cluster cannot be had; the message says what to do."""


def api_port() -> int:
    """443, which the `kubernetes` Service needs for pods; 6443 for a user who may not have it, and runs no pods."""
    if os.geteuid() == 0:
        return 443
    lowest = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return 443 if lowest.exists() and int(lowest.read_text()) <= 443 else 6443
