"""The kubeconfig that lies beside a delivered token; it holds no secret itself."""

from __future__ import annotations

import orjson


def kubeconfig(server: str, namespace: str) -> str:
    """A kubeconfig (JSON, which is YAML) whose token and CA are the files next to it, so that a renewal reaches it."""
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "grant", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "grant", "context": {"cluster": "cluster", "user": "grant", "namespace": namespace}}],
            "current-context": "grant",
        },
        option=orjson.OPT_INDENT_2,
    ).decode()
