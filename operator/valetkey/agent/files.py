"""Where is the access put, so that kubectl and any client find it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

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


def is_for_kubernetes(delivered: Delivered) -> bool:
    """Whether it is access to the pod's own API server, so that there is a kubeconfig."""
    return {"token", "namespace"} <= delivered.keys()


def files_of(pod: Pod, delivered: Delivered) -> dict[str, str]:
    """The files of an access; where the API server is and whom to trust is never what was delivered; raises OSError."""
    if not is_for_kubernetes(delivered):
        return delivered
    return delivered | {
        "ca.crt": (pod.account / "ca.crt").read_text(),
        "kubeconfig": _kubeconfig(pod.server, delivered["namespace"]),
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
