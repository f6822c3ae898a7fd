"""The API server, the installed chart, and the people and pods that attack it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable

import pytest

from tests.cluster.api import ROOT, SYSTEM, Api, Json, sessions, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.local.places import STATE
from tests.cluster.world import World

LOG = STATE / "tests-log"
VALUES: Json = {
    "cluster": "test",
    "agentNamespaces": ["agents", "agents-b"],
    "grantable": {
        "namespaces": [
            {
                "name": "shop",
                "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "patch"]}],
                "clusterRoles": ["log-reader"],
            }
        ],
        "cluster": {"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}]},
        "podTemplates": True,
    },
    "replicas": 0,
    "image": "valetkey:dev",
    "imagePullPolicy": "Never",
    "hostNetwork": True,
    "metrics": {"host": "127.0.0.1"},
    "log": {"hostPath": str(LOG)},
}

Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """The API server, as whoever a test says."""
    server, admin, others = sessions(cluster.kubeconfig)
    async with admin, others:
        yield Api(server, admin, others)


@pytest.fixture(scope="session")
def helm(cluster: Cluster) -> Helm:
    """Runs helm on the chart; values as JSON."""

    def run(*arguments: str, values: Json | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                shutil.which("helm", path=cluster.environment["PATH"]) or "helm",
                *arguments,
                *(["--values", "-"] if values is not None else []),
            ],
            input=json.dumps(values) if values is not None else None,
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )

    return run


@pytest.fixture(scope="session")
async def installed(api: Api, helm: Helm) -> Json:
    """The chart, installed without a running operator and with its guards in force; gives its values."""
    for name in ("agents", "agents-b", "shop", "elsewhere"):
        await api.ensured("/api/v1/namespaces", {"metadata": {"name": name}})
    done = await asyncio.to_thread(
        helm,
        *("upgrade", "--install", "valetkey", "charts/valetkey", "--namespace", SYSTEM, "--create-namespace"),
        values=VALUES,
    )
    assert done.returncode == 0, done.stderr

    async def guarded() -> bool:
        # A policy of another guard's binding may be polled a second later: each is asked for.
        for path, body in _CANARIES:
            _, answer = await api.post(f"{path}?dryRun=All", body)
            if ".valetkey.dev' with binding" not in answer.get("message", ""):
                return False
        return True

    async def stopped() -> bool:
        _, pods = await api.get(f"/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io/name=valetkey")
        return not pods["items"]

    await until(stopped, "an earlier run's operator to be gone")
    await until(guarded, "the guards to be in force")
    await asyncio.sleep(1.5)  # policies are polled each second, in no order
    return VALUES


_SPEC: Json = {
    "task": {"id": "canary", "objective": "none", "purpose": "none"},
    "access": {"kubernetes": {"scopes": [{"namespace": "shop", "clusterRole": "none"}]}},
    "subject": {"podName": "none", "podUID": "none"},
    "requester": {
        "username": "none",
        "serviceAccount": "none",
        "podName": "none",
        "podUID": "none",
        "nodeName": "none",
        "credentialID": "none",
    },
}
_CANARIES: tuple[tuple[str, Json], ...] = (
    (
        "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests",
        {
            "apiVersion": "valetkey.dev/v1alpha1",
            "kind": "AccessRequest",
            "metadata": {"name": "canary"},
            "spec": _SPEC,
        },
    ),
    ("/api/v1/namespaces/valetkey-grants/serviceaccounts", {"metadata": {"name": "canary"}}),
    ("/api/v1/namespaces/agents/secrets", {"metadata": {"name": "canary"}, "type": "valetkey.dev/credential"}),
)


@pytest.fixture(scope="session")
async def world(api: Api, installed: Json) -> AsyncIterator[World]:
    """The people and the pods."""
    assert installed
    world = World(api)
    await world.build()
    yield world
    await world.leave()
