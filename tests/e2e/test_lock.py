"""A lock: whoever is on call sets it without a right to allow, and it bites at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.cluster.api import Caller, Json, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.people import command

RBAC = "/apis/rbac.authorization.k8s.io/v1"
Person = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
async def guard(operated: World, cluster: Cluster, tmp_path: Path) -> AsyncIterator[Person]:
    """Somebody who may lock, and no more."""
    await bound(operated, "night-guard", "valetkey-policy-lock")
    yield command(cluster, tmp_path, "night-guard")
    await operated.api.delete(f"{OURS}/agentpolicies?labelSelector=valetkey.dev/lock")


@pytest.fixture
async def author(operated: World, cluster: Cluster, tmp_path: Path) -> Person:
    """Somebody who writes policies."""
    await bound(operated, "policy-author", "valetkey-policy-author")
    return command(cluster, tmp_path, "policy-author")


async def bound(world: World, user: str, role: str) -> None:
    body = {
        "metadata": {"name": f"test-{user}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    }
    await world.api.ensured(f"{RBAC}/clusterrolebindings", body)


async def run(person: Person, *arguments: str) -> str:
    done = await asyncio.to_thread(person, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_lock_ends_what_is_granted_and_refuses_what_is_asked_until_somebody_who_may_allow_lifts_it(
    agent: Agent, guard: Person, author: Person
) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    said = await run(guard, "lock", "--subject", "agents/fixer", "--because", "its token leaked")
    await agent.dead(credential)
    assert (await agent.finished(name))["reason"] == "PolicyChanged"
    refused = await agent.ask(spec={"ttl": "5m"})
    assert (await agent.finished(refused))["reason"] == "RequestDenied"
    denial = (await agent.status(refused))["decision"]["denial"]
    assert denial["contact"] == "night-guard: its token leaked"
    lock = said.split()[0]
    lifted = await asyncio.to_thread(guard, "unlock", lock)
    assert lifted.returncode == 1
    assert "cannot delete" in lifted.stderr
    await run(author, "unlock", lock)
    await until_granted(agent)


async def until_granted(agent: Agent) -> None:
    """A request that is denied while the operator has not heard of the end of the lock is asked again."""

    async def granted() -> bool:
        name = await agent.ask(spec={"ttl": "1m"})
        over: Json = {}

        async def known() -> bool:
            conditions = (await agent.status(name)).get("conditions", ())
            over.update({c["type"]: c["status"] for c in conditions if c["status"] == "True"})
            return "Ready" in over or "Finished" in over

        await until(known, "an answer")
        return "Ready" in over

    await until(granted, "the lock to be lifted", seconds=10)


async def test_two_locks_hold_until_both_are_lifted(agent: Agent, guard: Person, author: Person) -> None:
    first = (await run(guard, "lock", "--namespace", "agents", "--because", "an audit")).split()[0]
    second = (await run(guard, "lock", "--namespace", "agents", "--because", "a drill")).split()[0]
    shown = json.loads(await run(guard, "unlock", "-o", "json"))
    assert {first, second} <= {body["metadata"]["name"] for body in shown}
    await run(author, "unlock", first)
    await asyncio.sleep(1)
    name = await agent.ask()
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    await run(author, "unlock", second)
    await until_granted(agent)


async def test_a_lock_with_an_end_is_over_by_itself(agent: Agent, guard: Person) -> None:
    await run(guard, "lock", "--subject", "agents/fixer", "--because", "for a moment", "--until", "4s")
    name = await agent.ask()
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    await asyncio.sleep(4)
    await until_granted(agent)


async def test_nobody_locks_in_the_name_of_somebody_else(operated: World) -> None:
    await bound(operated, "night-guard", "valetkey-policy-lock")
    body = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AgentPolicy",
        "metadata": {"name": "lock-x", "annotations": {"valetkey.dev/locked-by": "somebody-else"}},
        "spec": {"effect": "Deny"},
    }
    status, answer = await operated.api.post(f"{OURS}/agentpolicies?dryRun=All", body, by=Caller(user="night-guard"))
    assert status == 403
    assert "who sets a lock is who says so" in answer["message"]
