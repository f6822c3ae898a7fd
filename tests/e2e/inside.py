"""What a process in an agent's pod has: the ServiceAccount's mount, and the environment that says where the API is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.api import ROOT
from tests.e2e.agent import Agent


@dataclass(frozen=True)
class Mount:
    """A directory as the kubelet makes it, for processes outside of the pod."""

    account: Path
    environment: dict[str, str]


async def mounted(agent: Agent, directory: Path) -> Mount:
    """Makes it for an agent's pod; keys and files of the SDK go beside it."""
    assert agent.token.token is not None
    _, bundle = await agent.api.get(f"/api/v1/namespaces/{agent.namespace}/configmaps/kube-root-ca.crt")
    account = directory / "account"
    account.mkdir()
    files = {"token": agent.token.token, "namespace": agent.namespace, "ca.crt": bundle["data"]["ca.crt"]}
    for name, text in files.items():
        (account / name).write_text(text)
    server = urlsplit(agent.api.server)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
        "PYTHONUNBUFFERED": "1",
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port or 443),
        "VALETKEY_STATE_DIRECTORY": str(directory / "keys"),
        "HOME": str(directory),
    }
    return Mount(account, environment)
