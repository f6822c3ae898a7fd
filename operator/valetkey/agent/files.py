"""Where is the access put, so that kubectl and any client find it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from valetkey.agent.entries import write
from valetkey.agent.pod import Pod
from valetkey.agent.sealed import Delivered


class Place(Protocol):
    """Where the files of one access are put."""

    @property
    def path(self) -> Path:
        """The directory that they are read from."""
        ...

    def write(self, files: dict[str, str]) -> None:
        """Puts all of them there, or leaves what was there; raises OSError."""
        ...


class Directory:
    """A directory of this process alone; each file is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, files: dict[str, str]) -> None:
        """Puts them there, the token last: whatever needs the others finds them."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        for name, text in files.items():
            write(self.path / name, text.encode())


def files_of(pod: Pod, delivered: Delivered) -> dict[str, str]:
    """The files of an access; where the API server is and whom to trust is never what was delivered; raises OSError."""
    return {
        "ca.crt": (pod.account / "ca.crt").read_text(),
        "namespace": delivered.namespace,
        "kubeconfig": _kubeconfig(pod.server, delivered.namespace),
        "token": delivered.token,
    }


def _kubeconfig(server: str, namespace: str) -> str:
    """JSON is YAML; token and CA are the files beside it, so that it stays true when they are replaced."""
    cluster = {"server": server, "certificate-authority": "ca.crt"}
    context = {"cluster": "cluster", "user": "grant", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "grant", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "grant", "context": context}],
        "current-context": "grant",
    }
    return json.dumps(config, indent=2)
