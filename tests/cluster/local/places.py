"""Where the local cluster keeps what it builds and what it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

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
