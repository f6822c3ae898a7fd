"""A launcher and a pod without an API token, as a sandbox controller makes one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.api import Json, until
from tests.e2e.agent import OURS, Agent

SANDBOXES = "/apis/agents.x-k8s.io/v1alpha1/namespaces/agents/sandboxes"


@pytest.fixture
async def sandbox(agent: Agent) -> AsyncIterator[Json]:
    """An object of the kind Sandbox, as kubernetes-sigs/agent-sandbox has it, as far as its pods' owner goes."""
    name, group = "sandboxes.agents.x-k8s.io", "agents.x-k8s.io"
    names = {"plural": "sandboxes", "singular": "sandbox", "kind": "Sandbox", "listKind": "SandboxList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": schema}
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": [version]}
    await agent.api.made(definitions, {"metadata": {"name": name}, "spec": spec})

    async def served() -> bool:
        return (await agent.api.get(SANDBOXES))[0] == 200

    await until(served, "Sandbox to be served")
    body = {"apiVersion": f"{group}/v1alpha1", "kind": "Sandbox", "metadata": {"name": agent.name}}
    yield await agent.api.made(SANDBOXES, body)
    await agent.api.gone(f"{definitions}/{name}")


async def test_a_launcher_asks_for_a_sandbox_that_has_no_token_and_it_is_the_sandbox_that_receives(
    agent: Agent, sandbox: Json
) -> None:
    launcher = Agent(agent.world, f"{agent.name}-launcher")
    await launcher.start(volumes=[], labels={})
    meta = sandbox["metadata"]
    owner = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": meta["name"], "uid": meta["uid"]}
    await agent.start(automountServiceAccountToken=False)
    path = f"/api/v1/namespaces/agents/pods/{agent.name}"
    assert (await agent.api.patch(path, {"metadata": {"ownerReferences": [owner]}}))[0] == 200

    subject = {"podName": agent.name, "podUID": agent.pod["metadata"]["uid"]}
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": agent.name, "uid": subject["podUID"]}]
    asks: Json = {
        "spec": {"subject": subject, "delivery": {"secret": {"name": None}}},
        "metadata": {"ownerReferences": owners},
    }
    name = await launcher.ask(**asks)
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    assert (await agent.status(name))["decision"]["denial"]["reason"] == "SubjectNotAllowed"

    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"onBehalfOf": ["fixer"]}})
    await agent.policy_ready()
    name = await launcher.granted(**asks)
    credential = await agent.credential()
    assert await agent.may(credential)
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}")
    assert grant["spec"]["order"]["subject"]["podUID"] == subject["podUID"]

    await agent.api.gone(f"/api/v1/namespaces/agents/pods/{launcher.name}")
    assert await agent.may(credential), "it does not end with the pod that asked"
    await agent.api.delete(path, {"gracePeriodSeconds": 0})
    await agent.dead(credential)
    await agent.nothing_left()
