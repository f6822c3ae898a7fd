"""Real containers: the credential comes into a pod that was already running, and goes when its program ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.api import until
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import Agent

CONTAINER = {
    "name": "agent",
    "image": "valetkey-demo:dev",
    "imagePullPolicy": "Never",
    "volumeMounts": [{"name": "valetkey", "mountPath": "/var/run/valetkey", "readOnly": True}],
    "securityContext": {
        "runAsUser": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}


@pytest.fixture
async def running(cluster: Cluster, agent: Agent) -> Agent:
    """An agent whose container runs until it finds /tmp/done."""
    program = "while [ ! -e /tmp/done ]; do sleep 0.1; done"
    await agent.start(
        nodeName=cluster.node,
        hostNetwork=True,
        restartPolicy="Never",
        containers=[
            CONTAINER
            | {
                "command": ["sh", "-c", program],
                "volumeMounts": [*CONTAINER["volumeMounts"], {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        volumes=[
            {"name": "valetkey", "secret": {"secretName": agent.secret, "optional": True, "defaultMode": 0o444}},
            {"name": "tmp", "emptyDir": {}},
        ],
    )

    async def started() -> bool:
        _, pod = await agent.api.get(f"/api/v1/namespaces/agents/pods/{agent.name}")
        return bool(pod["status"].get("phase") == "Running")

    await until(started, "the container to run", seconds=60)
    return agent


async def inside(cluster: Cluster, agent: Agent, *command: str) -> tuple[int, str]:
    """Runs a command in the container."""
    process = await asyncio.create_subprocess_exec(
        *("kubectl", "exec", "-n", "agents", agent.name, "--", *command),
        env=cluster.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_the_credential_comes_into_the_running_container_and_goes(cluster: Cluster, running: Agent) -> None:
    assert (await inside(cluster, running, "ls", "/var/run/valetkey"))[1] == ""
    name = await running.granted()

    async def there() -> bool:
        return (await inside(cluster, running, "test", "-s", "/var/run/valetkey/token"))[0] == 0

    await until(there, "the file to come", seconds=5)
    credential = await running.credential()
    assert (await inside(cluster, running, "cat", "/var/run/valetkey/token"))[1] == credential.token
    _, listed = await inside(cluster, running, "ls", "/var/run/valetkey")
    assert listed.split() == ["ca.crt", "kubeconfig", "namespace", "token"]
    command = ("kubectl", "--kubeconfig=/var/run/valetkey/kubeconfig", "auth", "can-i", "patch", "deployments.apps")
    assert (await inside(cluster, running, *command))[1].strip() == "yes"

    await running.report(name)

    async def gone() -> bool:
        return not await there()

    await until(gone, "the file to go", seconds=5)


async def test_a_container_that_ends_takes_its_access_with_it(cluster: Cluster, running: Agent) -> None:
    name = await running.granted()
    credential = await running.credential()
    assert (await inside(cluster, running, "touch", "/tmp/done"))[0] == 0
    await running.dead(credential)
    assert (await running.finished(name))["reason"] == "PodFinished"
    assert await running.traces(credential) == []
