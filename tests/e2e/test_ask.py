"""What policy says, asked by people: before a request is made, of one that was, and backwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.api import Json
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World, unfilled
from tests.e2e.agent import OURS, Agent
from tests.e2e.people import command

RBAC = "/apis/rbac.authorization.k8s.io/v1"
Person = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
async def reader(operated: World, cluster: Cluster, tmp_path: Path) -> Person:
    """Somebody who may read what decisions read, and change nothing."""
    read = ["get", "list"]
    rules = [
        {"apiGroups": ["valetkey.dev"], "resources": ["*"], "verbs": read},
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": read},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["get"]},
    ]
    await operated.api.ensured(f"{RBAC}/clusterroles", {"metadata": {"name": "test-reader"}, "rules": rules})
    body = {
        "metadata": {"name": "test-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}],
    }
    await operated.api.ensured(f"{RBAC}/clusterrolebindings", body)
    return command(cluster, tmp_path, "reader")


async def say(person: Person, code: int, *arguments: str) -> str:
    done = await asyncio.to_thread(person, *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


async def test_whether_a_pod_could_have_something_is_said_and_nothing_is_created(
    agent: Agent, reader: Person, tmp_path: Path
) -> None:
    body: Json = unfilled()
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump(body))
    _, before = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests")
    said = await say(reader, 0, "can-i", "-f", str(file), "--as-pod", f"agents/{agent.name}")
    assert said.startswith(f"yes: policy {agent.policy}, entry restart, for 5m")
    body["spec"]["access"]["kubernetes"]["scopes"][0]["rules"][0]["verbs"] = ["delete"]
    file.write_text(yaml.safe_dump(body))
    told = json.loads(await say(reader, 3, "can-i", "-f", str(file), "--as-pod", f"agents/{agent.name}", "-o", "json"))
    assert (told["outcome"], told["reason"]) == ("Denied", "AccessBeyondPolicy")
    assert "patch" in told["allowed"]
    _, after = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests")
    assert len(after["items"]) == len(before["items"])


async def test_a_request_is_explained_policy_by_policy(agent: Agent, reader: Person) -> None:
    name = await agent.granted()
    told = json.loads(await say(reader, 0, "explain", f"agents/{name}", "-o", "json"))
    (one,) = (entry for entry in told if entry["policy"] == agent.policy)
    assert (one["says"], one["effect"]) == ("grants", "Allow")
    refused = await agent.ask(spec={"task": {"purpose": "holiday"}})
    said = await say(reader, 3, "explain", refused, "-n", "agents")
    assert "no, PurposeUnknown: " in said


async def test_what_became_of_a_request_is_said_in_a_word_and_by_the_exit_code(agent: Agent, reader: Person) -> None:
    name = await agent.granted()
    assert (await say(reader, 0, "get", f"agents/{name}")).startswith(f"agents/{name}: Ready\n")
    assert f"agents/{name}" in await say(reader, 0, "get", "-n", "agents")
    await agent.report(name)
    await agent.finished(name)
    assert (await say(reader, 5, "get", f"agents/{name}")).startswith(f"agents/{name}: TaskReleased\n")
    refused = await agent.ask(spec={"ttl": "16m"})
    await agent.finished(refused)
    said = await say(reader, 3, "get", refused, "-n", "agents")
    assert said.startswith(f"agents/{refused}: RequestDenied\n")
    assert "allowed: ttl: 15m" in said


async def test_policies_are_read_backwards(agent: Agent, reader: Person) -> None:
    told = json.loads(await say(reader, 0, "who-can", "patch", "deployments.apps", "-n", "shop", "-o", "json"))
    (one,) = (entry for entry in told if entry["policy"] == agent.policy)
    assert one["subjects"] == ["agents/fixer (pods by label)"]
    assert one["purposes"] == ["remediation"]
    assert await say(reader, 0, "who-can", "delete", "nodes") == "no policy is about it: nobody\n"


async def test_who_may_not_read_is_told_what(operated: World, cluster: Cluster, tmp_path: Path) -> None:
    done = await asyncio.to_thread(command(cluster, tmp_path, "nobody"), "who-can", "get", "pods")
    assert done.returncode == 1
    assert "agentpolicies.valetkey.dev is forbidden" in done.stderr
