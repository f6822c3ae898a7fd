"""Work that is handed on: a planner in one namespace, a worker in another, and what becomes of both."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.api import Json
from tests.cluster.world import World
from tests.e2e.agent import OURS, SHOP, Agent
from tests.e2e.test_ask import Person, reader, say

__all__ = ["reader"]

WORKERS = {"namespace": "agents-b", "serviceAccount": "fixer"}
READS: Json = {
    "kubernetes": {
        "scopes": [
            {
                "namespace": "shop",
                "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}],
            }
        ]
    }
}


@pytest.fixture
async def worker(operated: World, agent: Agent) -> AsyncIterator[Agent]:
    """An agent of another namespace that is granted only what works for another request."""
    worker = Agent(operated, f"{agent.name}-worker-{os.getpid()}", namespace="agents-b")
    await worker.begin(delegation={"required": True})
    yield worker
    await worker.leave()


async def lets_hand_on(planner: Agent) -> None:
    """Its policy lets what it grants be handed on to workers."""
    path = f"{OURS}/agentpolicies/{planner.policy}"
    status, body = await planner.api.patch(path, {"spec": {"delegation": {"to": [WORKERS]}}})
    assert status == 200, body
    await planner.policy_ready()


async def plan(planner: Agent) -> Json:
    """A live plan that hands reading on; how it is named as a parent."""
    name = await planner.granted(spec={"delegation": {"to": [WORKERS], "access": [READS]}})
    _, body = await planner.api.get(f"{OURS}/namespaces/agents/accessrequests/{name}")
    return {"namespace": "agents", "name": name, "uid": body["metadata"]["uid"]}


async def denied(agent: Agent, **spec: Any) -> Json:
    """What it is told."""
    name = await agent.ask(spec=spec)
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    denial: Json = (await agent.status(name))["decision"]["denial"]
    return denial


async def test_what_is_handed_on_works_while_its_parent_lives_and_dies_with_it(agent: Agent, worker: Agent) -> None:
    told = await denied(agent, delegation={"to": [WORKERS]})
    assert (told["reason"], told["field"]) == ("AccessBeyondPolicy", "spec.delegation")
    await lets_hand_on(agent)
    parent = await plan(agent)
    assert " → agents-b/fixer: shop: get deployments.apps" in (await agent.status(parent["name"]))["access"]

    assert (await denied(worker, access=READS))["reason"] == "ParentNotLive"
    assert (await denied(worker, parent=parent))["reason"] == "BeyondParent"  # it would patch, too
    name = await worker.granted(spec={"parent": parent, "access": READS, "ttl": "15m"})
    credential = await worker.credential()
    assert await worker.may(credential)
    status, _ = await worker.api.patch(f"{SHOP}/checkout", {"metadata": {"labels": {"a": "b"}}}, by=credential)
    assert status == 403
    grants = {}
    for namespace, of in (("agents", parent["name"]), ("agents-b", name)):
        _, grants[of] = await agent.api.get(f"{OURS}/namespaces/{namespace}/taskgrants/{of}")
    order = grants[name]["spec"]["order"]
    assert order["act"] == [{"namespace": "agents", "serviceAccount": "fixer"}]
    assert order["notAfter"] == grants[parent["name"]]["spec"]["order"]["notAfter"]

    await agent.report(parent["name"])
    assert await worker.dead(credential) < 5
    end = await worker.finished(name)
    assert end["reason"] == "ParentEnded"
    assert end["message"] == f"what was granted to its parent agents/{parent['name']} has ended"
    assert await worker.traces(credential) == []
    assert (await denied(worker, parent=parent, access=READS))["reason"] == "ParentNotLive"


async def test_a_policy_that_lets_nothing_be_handed_on_any_more_ends_what_was(
    agent: Agent, worker: Agent, reader: Person
) -> None:
    await lets_hand_on(agent)
    parent = await plan(agent)
    name = await worker.granted(spec={"parent": parent, "access": READS})
    credential = await worker.credential()
    assert f"yes: policy {worker.policy}" in await say(reader, 0, "explain", f"agents-b/{name}")
    status, _ = await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"delegation": None}})
    assert status == 200
    assert (await agent.finished(parent["name"]))["reason"] == "PolicyChanged"
    assert "no, ParentNotLive: " in await say(reader, 3, "explain", f"agents-b/{name}")
    assert (await worker.finished(name))["reason"] == "ParentEnded"
    assert not await worker.may(credential)
