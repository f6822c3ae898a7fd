"""Two replicas: one leads, the other takes over; a leader that was stopped and wakes up writes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.api import GRANTS, SYSTEM, Api, Json, merged, unique, until
from tests.cluster.audit_log import operators
from tests.cluster.local.cluster import Cluster
from tests.cluster.replicas import leader, process
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED
from valetkey.kinds.base import parse_duration

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


async def test_whoever_leads_next_knows_how_often_a_policy_has_granted_though_no_request_is_left(
    pair: Api, agent: Agent
) -> None:
    await pair.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"limits": {"perHour": 2}}})
    await agent.policy_ready()
    for kill in (False, True):
        name = await agent.granted()
        await pair.delete(f"{OURS}/namespaces/agents/accessrequests/{name}")
        await agent.nothing_left()
        if kill:
            os.kill(process((await leader(pair))[0]), signal.SIGKILL)
    refused = await agent.ask()
    assert (await agent.finished(refused))["reason"] == "RequestDenied"
    denial = (await agent.status(refused))["decision"]["denial"]
    assert denial["reason"] == "LimitReached"
    assert timedelta(minutes=58) < parse_duration(denial["retryAfter"]) <= timedelta(hours=1)
    _, namespace = await pair.get("/api/v1/namespaces/agents")
    _, ledger = await pair.get(f"{OURS}/namespaces/{SYSTEM}/ledgers/{namespace['metadata']['uid']}")
    assert [one["policy"] for one in ledger["spec"]["opened"]].count(agent.policy) == 2


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


@pytest.fixture
async def three(pair: Api, install: Callable[[Json], None]) -> AsyncIterator[Api]:
    """Three replicas; two again afterwards."""
    await asyncio.to_thread(install, merged(OPERATED, {"replicas": 3}))
    yield pair
    await asyncio.to_thread(install, merged(OPERATED, {"replicas": 2}))
    await pair.gone(f"{PODS}/valetkey-2")


async def test_of_three_replicas_one_leads_and_when_it_goes_one_other(
    three: Api, cluster: Cluster, agent: Agent
) -> None:
    before, uid = await leader(three)
    _, found = await three.get(f"{PODS}?labelSelector=app.kubernetes.io/name=valetkey")
    replicas = {body["metadata"]["uid"]: body["metadata"]["name"] for body in found["items"]}
    assert sorted(replicas.values()) == ["valetkey-0", "valetkey-1", "valetkey-2"]
    assert replicas[uid] == before
    await three.delete(f"{PODS}/{before}")

    async def followed() -> bool:
        return (await leader(three))[1] in replicas.keys() - {uid}

    await until(followed, "another of the three to lead", seconds=4)
    now, since = (await leader(three))[1], datetime.now(UTC)
    name = await agent.granted()
    await agent.report(name)
    await agent.finished(name)
    assert (await leader(three))[1] == now
    if cluster.audit_log is not None:
        writers = {pod: await asyncio.to_thread(written, cluster.audit_log, pod, since) for pod in replicas}
        assert [pod for pod, writes in writers.items() if writes] == [now], "one of them has done all of it"


async def test_a_leader_that_was_stopped_amid_work_and_wakes_up_writes_nothing(
    pair: Api, cluster: Cluster, agent: Agent
) -> None:
    began = datetime.now(UTC)
    first = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    before, uid = await leader(pair)
    stopped = process(before)
    async with at_work(agent.world, 4) as done:
        await asyncio.sleep(2)
        os.kill(stopped, signal.SIGSTOP)
        try:
            await agent.report(first)  # the stopped leader's watch brings it, when it wakes
            assert await agent.dead(credential, seconds=8) < 8
            await agent.finished(first)
            assert (await leader(pair))[1] != uid
            followed, amid = datetime.now(UTC), sum(done.values())
            second = await agent.granted(spec={"ttl": "5m"})
            held = await agent.credential()
            await asyncio.sleep(30)
            assert sum(done.values()) > amid
        finally:
            os.kill(stopped, signal.SIGCONT)
            awake = time.monotonic()

        async def gone() -> bool:
            return not runs(stopped)

        await until(gone, "the old leader to end itself", seconds=20)
        await no_orphans(pair, seconds=max(0.5, awake + 5 - time.monotonic()))
        await asyncio.sleep(2)  # whatever else it had on its way has come in
    assert all(done.values())
    assert (await leader(pair))[1] != uid
    assert await agent.may(held)
    assert await credentials(pair, second) == [f"valetkey-{(await latest(agent))['spec']['request']['uid']}"]
    assert (await latest(agent))["metadata"]["name"] == second
    if cluster.audit_log is not None:
        assert await asyncio.to_thread(written, cluster.audit_log, uid, began), "the audit log has what it wrote before"
        assert await asyncio.to_thread(written, cluster.audit_log, uid, followed) == []


async def no_orphans(api: Api, *, seconds: float) -> None:
    """Waits until every account of grants belongs to a TaskGrant."""

    async def swept() -> bool:
        _, accounts = await api.get(f"/api/v1/namespaces/{GRANTS}/serviceaccounts?labelSelector=valetkey.dev/request")
        # After the accounts: a grant is there before its account, and goes after it.
        _, grants = await api.get(f"{OURS}/taskgrants")
        known = {body["metadata"]["labels"]["valetkey.dev/request"] for body in grants["items"]}
        return {body["metadata"]["labels"]["valetkey.dev/request"] for body in accounts["items"]} <= known

    await until(swept, "every account to belong to a TaskGrant", seconds=seconds)


@asynccontextmanager
async def at_work(world: World, number: int) -> AsyncIterator[Counter[str]]:
    """Agents that ask, work and report one task after the other; gives how many tasks each has done."""
    agents = [Agent(world, unique("busy")) for _ in range(number)]
    await asyncio.gather(*(agent.begin() for agent in agents))
    done, over = Counter({agent.name: 0 for agent in agents}), asyncio.Event()

    async def work(agent: Agent) -> None:
        while not over.is_set():
            task = await agent.granted()
            credential = await agent.credential()
            await agent.report(task)
            await agent.dead(credential, seconds=15)
            await agent.finished(task)
            done[agent.name] += 1

    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(work(agent))
        yield done
        over.set()
    await asyncio.gather(*(agent.leave() for agent in agents))


def written(log: Path, pod_uid: str, since: datetime) -> list[str]:
    """What a pod has written since then, by the API server's audit log; what was refused is not written."""
    return [
        f"{event['verb']} {event['objectRef']['resource']}"
        for event in operators(log)
        if event["user"].get("extra", {}).get("authentication.kubernetes.io/pod-uid") == [pod_uid]
        and event["verb"] in ("create", "update", "patch", "delete")
        and event["responseStatus"]["code"] < 300
        and datetime.fromisoformat(event["requestReceivedTimestamp"]) > since
    ]
