"""The whole system: the chart with its operator running from its image, and agents that ask."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.api import SYSTEM, Api, Caller, Json, merged, unique, until
from tests.cluster.conftest import LOG, VALUES, Helm, api, helm
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World
from tests.e2e.agent import Agent
from tests.e2e.witness import Witness
from valetkey.issuers.kubernetes import TOKEN_TTL

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
        assert witness.tokens, "the witness has seen nothing"
        assert witness.own, "the witness does not know the operator's own tokens"
        assert any(witness.output.values()), "the witness has read nothing"
        witness.tokens |= api.minted
        assert await witness.written_down() == [], "a token was written down outside its Secret"
        assert witness.unstructured() == [], "the operator has said something that is no JSON"
        await world.leave()
    _, operator = await api.get(f"/api/v1/namespaces/{SYSTEM}/pods/valetkey-0")
    restarts = [status["restartCount"] for status in operator["status"]["containerStatuses"]]
    assert restarts == [0], "the operator stopped by itself while the tests ran: kubectl logs --previous says why"


async def fresh(api: Api, old: Json, containers: int) -> None:
    """Waits until the operator's pod is another than `old`, with so many containers that are ready."""

    async def there() -> bool:
        status, pod = await api.get(f"/api/v1/namespaces/{SYSTEM}/pods/valetkey-0")
        ready = [one["ready"] for one in pod.get("status", {}).get("containerStatuses", ())] if status == 200 else []
        return ready == [True] * containers and pod["metadata"]["uid"] != old["metadata"]["uid"]

    await until(there, "the operator to be as it is told", seconds=90)


LAST = "test_a_token_that_nobody_revokes_or_renews_is_refused_when_its_time_is_over"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A token lives for eleven minutes: what looks at its end comes after all other tests, of whatever directory."""
    items.sort(key=lambda item: item.name == LAST)


@dataclass(frozen=True)
class Abandoned:
    """A token that is left alone, of an account that stays, with rights that stay."""

    credential: Caller
    account: str
    reads: str
    made: float
    """By this machine's steady clock."""


@pytest.fixture(scope="session", autouse=True)
async def abandoned(api: Api) -> AsyncIterator[Abandoned]:
    """Asked for as the operator asks, when the first of these tests begins.

    Its account is not where those of grants are: the operator that runs would sweep it, and then not time would end it.
    """
    home, name = "/api/v1/namespaces/elsewhere", unique("abandoned")
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/elsewhere"
    meta, account, reads = {"name": name}, f"{home}/serviceaccounts/{name}", f"{home}/configmaps/any"
    await api.ensured("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    await api.made(f"{home}/serviceaccounts", {"metadata": meta})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    await api.made(f"{rbac}/roles", {"metadata": meta, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "elsewhere"}
    await api.made(f"{rbac}/rolebindings", {"metadata": meta, "roleRef": role, "subjects": [subject]})
    credential = await api.token("elsewhere", name, seconds=int(TOKEN_TTL.total_seconds()))
    made = time.monotonic()

    async def works() -> bool:
        return (await api.get(reads, by=credential))[0] == 404  # there is no such ConfigMap

    await until(works, "the token that is to be left alone to work")
    yield Abandoned(credential, account, reads, made)
    for path in (f"{rbac}/rolebindings/{name}", f"{rbac}/roles/{name}", account):
        await api.delete(path)


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
