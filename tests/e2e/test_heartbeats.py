"""What ends a grant when nobody says so: an agent that is not heard of, a container that dies."""

from __future__ import annotations

import asyncio

from tests.cluster.api import until
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import OURS, Agent
from tests.e2e.test_containers import CONTAINER, inside


async def beat(agent: Agent, name: str, word: str) -> None:
    path = f"{OURS}/namespaces/agents/accessrequests/{name}"
    body = {"metadata": {"annotations": {"valetkey.dev/heartbeat": word}}}
    status, answer = await agent.api.patch(path, body, by=agent.token)
    assert status == 200, answer


async def test_an_agent_that_beats_keeps_its_access_and_one_that_stops_loses_it(agent: Agent) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"heartbeat": {"within": "15s"}}})
    await agent.policy_ready()
    name = await agent.granted()
    credential = await agent.credential()
    assert (await agent.status(name))["heartbeat"] == {"within": "15s"}
    for number in range(5):
        await asyncio.sleep(4)
        await beat(agent, name, str(number))
    assert await agent.may(credential)
    assert (await agent.finished(name, seconds=30))["reason"] == "HeartbeatLost"
    assert not await agent.may(credential)


async def test_a_container_that_dies_and_is_started_again_ends_what_it_was_granted(
    cluster: Cluster, agent: Agent
) -> None:
    program = "while [ ! -e /tmp/done ]; do sleep 0.1; done; rm /tmp/done"
    volumes = [
        {"name": "valetkey", "secret": {"secretName": agent.secret, "optional": True, "defaultMode": 0o444}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts = [*CONTAINER["volumeMounts"], {"name": "tmp", "mountPath": "/tmp"}]
    container = CONTAINER | {"command": ["sh", "-c", program], "volumeMounts": mounts}
    await agent.start(
        nodeName=cluster.node, hostNetwork=True, restartPolicy="Always", containers=[container], volumes=volumes
    )

    async def started(times: int = 0) -> bool:
        _, pod = await agent.api.get(f"/api/v1/namespaces/agents/pods/{agent.name}")
        statuses = pod["status"].get("containerStatuses", [{}])
        return bool(statuses[0].get("started") and statuses[0]["restartCount"] == times)

    await until(started, "the container to run", seconds=60)
    name = await agent.granted()
    credential = await agent.credential()
    await asyncio.sleep(3)  # what was granted within two seconds of a death may be of who came after
    await inside(cluster, agent, "touch", "/tmp/done")
    assert (await agent.finished(name, seconds=60))["reason"] == "ContainerRestarted"
    assert not await agent.may(credential)
    await until(lambda: started(1), "the container to run again", seconds=60)
    again = await agent.granted()
    assert await agent.may(await agent.credential())
    await agent.report(again)
    await agent.finished(again)
