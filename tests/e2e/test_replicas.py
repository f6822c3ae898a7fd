"""Two replicas: one leads, the other takes over; a leader that was stopped and wakes up writes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.cluster.api import SYSTEM, Api, Json, merged, until
from tests.cluster.replicas import leader, process
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED

PODS = f"/api/v1/namespaces/{SYSTEM}/pods"


@pytest.fixture
async def pair(operated: World, install: Callable[[Json], None]) -> AsyncIterator[Api]:
    """Two replicas; afterwards one again, and a fresh one, for the tests count how often it had to be started."""
    api = operated.api
    await asyncio.to_thread(install, merged(OPERATED, {"replicas": 2}))
    yield api
    await asyncio.to_thread(install, OPERATED)
    await api.gone(f"{PODS}/valetkey-1")
    _, old = await api.get(f"{PODS}/valetkey-0")
    await api.delete(f"{PODS}/valetkey-0")

    async def fresh() -> bool:
        status, pod = await api.get(f"{PODS}/valetkey-0")
        if status != 200:
            return False
        ready = [c["status"] for c in pod.get("status", {}).get("conditions", ()) if c["type"] == "Ready"]
        leads = (await leader(api))[1] == pod["metadata"].get("uid")
        return bool(pod["metadata"].get("uid") != old["metadata"].get("uid") and ready == ["True"] and leads)

    await until(fresh, "the operator to be as it was", seconds=60)


def runs(process_id: int) -> bool:
    """Whether a process is there."""
    return Path(f"/proc/{process_id}/cmdline").exists()


async def credentials(api: Api, name: str) -> list[str]:
    """What is at the API server of the grants of one request: the names of its accounts."""
    _, request = await api.get(f"{OURS}/namespaces/agents/accessrequests/{name}")
    selector = f"labelSelector=valetkey.dev/request={request['metadata']['uid']}"
    _, accounts = await api.get(f"/api/v1/namespaces/valetkey-grants/serviceaccounts?{selector}")
    return [body["metadata"]["name"] for body in accounts["items"]]


async def test_a_leader_that_is_killed_is_followed_and_no_live_grant_notices(pair: Api, agent: Agent) -> None:
    live = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    before, _ = await leader(pair)
    os.kill(process(before), signal.SIGKILL)
    await agent.report(live)
    assert await agent.dead(credential, seconds=8) < 8
    await agent.finished(live)
    await agent.granted()
    await agent.report((await latest(agent))["metadata"]["name"])
    await agent.nothing_left()


async def latest(agent: Agent) -> Json:
    _, found = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants")
    ours = [body for body in found["items"] if body["spec"]["order"]["subject"]["podName"] == agent.name]
    (body,) = ours
    return dict(body)


async def test_a_leader_that_is_told_to_stop_lets_the_other_lead_at_once(pair: Api, agent: Agent) -> None:
    before, uid = await leader(pair)
    await pair.delete(f"{PODS}/{before}")

    async def handed_over() -> bool:
        name, now = await leader(pair)
        return bool(name and now != uid)

    await until(handed_over, "the other replica to lead", seconds=4)
    assert (await leader(pair))[0] != before
    await agent.granted()


async def test_a_leader_that_was_stopped_and_wakes_up_writes_nothing(pair: Api, agent: Agent) -> None:
    first = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    before, uid = await leader(pair)
    stopped = process(before)
    os.kill(stopped, signal.SIGSTOP)
    try:
        await agent.report(first)  # the stopped leader's watch brings it, when it wakes
        assert await agent.dead(credential, seconds=8) < 8
        await agent.finished(first)
        second = await agent.granted(spec={"ttl": "5m"})
        assert (await leader(pair))[1] != uid
        held = await agent.credential()
    finally:
        os.kill(stopped, signal.SIGCONT)

    async def gone() -> bool:
        return not runs(stopped)

    await until(gone, "the old leader to end itself", seconds=20)
    assert (await leader(pair))[1] != uid
    assert await agent.may(held)
    assert await credentials(pair, second) == [f"valetkey-{(await latest(agent))['spec']['request']['uid']}"]
    assert (await latest(agent))["metadata"]["name"] == second
