"""The log, served by the operator's pod to who may make a token of the auditor's account."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.api import SYSTEM, Caller, Json, merged, unique, until
from tests.cluster.local import pki
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World
from tests.e2e.agent import Agent
from tests.e2e.conftest import OPERATED, fresh
from tests.e2e.people import command
from tests.unit.controller.test_listener import free

SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Served:
    """Where the log is served, and the CA of who serves it."""

    url: str
    authority: Path


@pytest.fixture
async def served(
    operated: World, install: Callable[[Json], None], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """The operator with its log served; afterwards it is as before."""
    api, folder, port = operated.api, tmp_path_factory.mktemp("tls"), free()
    pki.authority(folder)
    pki.certificate(folder, "server", "/CN=valetkey-log")
    data = {
        name: base64.b64encode((folder / file).read_bytes()).decode()
        for name, file in (("tls.crt", "server.crt"), ("tls.key", "server.key"))
    }
    name = unique("log-tls")
    await api.made(SECRETS, {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data})
    _, old = await api.get(f"{PODS}/valetkey-0")
    values = {"log": {"server": {"tlsSecret": name, "port": port}}}
    await asyncio.to_thread(install, merged(OPERATED, values))
    await fresh(api, old, 2)
    yield Served(f"https://127.0.0.1:{port}", folder / "ca.crt")
    _, old = await api.get(f"{PODS}/valetkey-0")
    await asyncio.to_thread(install, OPERATED)
    await fresh(api, old, 1)
    await api.gone(f"{SECRETS}/{name}")


async def test_an_auditor_reads_the_story_of_a_task_and_nobody_else_does(
    served: Served, agent: Agent, cluster: Cluster, tmp_path: Path
) -> None:
    api, task = agent.api, unique("task")
    name = await agent.granted(spec={"task": {"id": task}})
    await agent.report(name)
    await agent.finished(name)
    auditor, other = Caller(user=unique("auditor")), Caller(user=unique("other"))
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": str(auditor.user)}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valetkey-auditor"}
    body = {"metadata": {"name": str(auditor.user)}, "roleRef": role, "subjects": [subject]}
    bindings = f"{RBAC}/namespaces/{SYSTEM}/rolebindings"
    await api.made(bindings, body)
    try:

        async def may() -> bool:
            review = {"spec": {"audiences": ["valetkey-log"], "expirationSeconds": 600}}
            path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/valetkey-auditor/token"
            return (await api.post(path, review, by=auditor))[0] == 201

        await until(may, "the API server to know the auditor")
        asks = ("log", "--task", task, "--log-url", served.url, "--log-ca", str(served.authority), "-o", "json")
        told = await asyncio.to_thread(command(cluster, tmp_path, str(auditor.user)), *asks)
        assert told.returncode == 0, told.stderr
        reasons = [json.loads(line)["reason"] for line in told.stdout.splitlines()]
        assert reasons[0] == "PolicyMatched"
        assert {"CredentialIssued", "CredentialDelivered", "CredentialRevoked"} <= set(reasons)
        refused = await asyncio.to_thread(command(cluster, tmp_path, str(other.user)), *asks)
        assert refused.returncode == 1
        assert 'cannot create resource "serviceaccounts/token"' in refused.stderr
        assert refused.stdout == ""
        # Every other token, the operator's own among them, is nobody's here.
        trusted = ssl.create_default_context(cafile=str(served.authority))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session:
            for caller in (agent.token, *[await api.token(SYSTEM, name) for name in ("valetkey", "valetkey-auditor")]):
                headers = {"Valetkey-Token": str(caller.token)}
                async with session.get(f"{served.url}/files", headers=headers) as answer:
                    assert answer.status == 401
    finally:
        await api.gone(f"{bindings}/{auditor.user}")
