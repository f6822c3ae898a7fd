"""The whole system: the chart with its operator running from its image, and agents that ask."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.cluster.api import SYSTEM, Api, Json, merged, until
from tests.cluster.conftest import LOG, VALUES, Helm, api, helm
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World
from tests.e2e.agent import Agent
from tests.e2e.witness import Witness

__all__ = ["api", "helm"]

Stop = Callable[[], Awaitable[None]]

OPERATED = merged(
    VALUES,
    {
        "replicas": 1,
        "historyTTL": "20s",
        "pendingTTL": "30s",
        "renewAfter": "4s",
        "sweepEvery": "3s",
        "limits": {"active": 1000},
    },
)
"""The tests' values, with an operator that forgets and renews sooner than people would want."""


@pytest.fixture(scope="session")
def install(helm: Helm) -> Callable[[Json], None]:
    """Installs or upgrades the chart with these values, and waits for the operator."""

    def run(values: Json) -> None:
        done = helm(
            *("upgrade", "--install", "valetkey", "charts/valetkey", "--namespace", SYSTEM, "--create-namespace"),
            *("--wait", "--timeout", "120s"),
            values=values,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
async def operated(cluster: Cluster, api: Api, install: Callable[[Json], None]) -> AsyncIterator[World]:
    """The running operator, and the people and pods around it."""
    assert cluster.node is not None, "pods need a node: run the tests as root"
    for name in ("agents", "agents-b", "shop", "elsewhere"):
        await api.ensured("/api/v1/namespaces", {"metadata": {"name": name}})
    for kind in ("agentpolicies", "namespaces/agents/accessrequests"):
        # What a run that was cut off has left would decide for this one.
        await api.delete(f"/apis/valetkey.dev/v1alpha1/{kind}")
    LOG.mkdir(parents=True, exist_ok=True)
    os.chown(LOG, 65532, 65532)
    async with Witness(cluster.kubeconfig, LOG) as witness:
        await asyncio.to_thread(install, OPERATED)
        await asyncio.sleep(4)  # a request is granted only if the guards stood three seconds before it
        world = World(api)
        await world.build()
        yield world
        assert await witness.written_down() == [], "a credential was written down outside its Secret"
        assert witness.tokens, "the witness has seen nothing"
        assert any(witness.output.values()), "the witness has read nothing"
        await world.leave()
    _, operator = await api.get(f"/api/v1/namespaces/{SYSTEM}/pods/valetkey-0")
    restarts = [status["restartCount"] for status in operator["status"]["containerStatuses"]]
    assert restarts == [0], "the operator stopped by itself while the tests ran: kubectl logs --previous says why"


@pytest.fixture
async def stop(operated: World, install: Callable[[Json], None]) -> AsyncIterator[Stop]:
    """Stops the operator, as `replicas: 0` does; it is back afterwards."""

    async def gone() -> bool:
        return (await operated.api.get(f"/api/v1/namespaces/{SYSTEM}/pods/valetkey-0"))[0] == 404

    async def run() -> None:
        await asyncio.to_thread(install, merged(OPERATED, {"replicas": 0}))
        await until(gone, "the operator to stop", seconds=60)

    yield run
    await asyncio.to_thread(install, OPERATED)


@pytest.fixture(scope="session")
def log_directory() -> Path:
    """Where the operator's log is, on this machine."""
    return LOG


_count = itertools.count(1)


@pytest.fixture
async def agent(operated: World) -> AsyncIterator[Agent]:
    """An agent of its own for this test: a pod with a Secret volume, and its token."""
    agent = Agent(operated, f"agent-{next(_count)}-{os.getpid()}")
    await agent.begin()
    yield agent
    await agent.leave()
