"""The backstop: what a timer Job ends with the operator gone, and what becomes of the Job while it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from tests.cluster.api import GRANTS, Json, claims, until
from tests.cluster.world import World
from tests.e2e.agent import OURS, SHOP, Agent, account_path, timer_path
from tests.e2e.conftest import OPERATED, Stop


@pytest.fixture
async def timed(operated: World, agent: Agent) -> AsyncIterator[Agent]:
    """An agent whose policy says `backstop: Job`."""
    timed = Agent(operated, f"{agent.name}-timed")
    await timed.begin(backstop="Job")
    yield timed
    await timed.leave()


async def test_with_the_operator_gone_a_timer_ends_the_access_at_its_time_and_without_one_the_token_goes_on(
    agent: Agent, timed: Agent, stop: Stop, install: Callable[[Json], None]
) -> None:
    api = agent.api
    names = [await one.granted(spec={"ttl": "25s"}) for one in (agent, timed)]
    plain, backed = [await one.credential() for one in (agent, timed)]
    assert (await api.get(timer_path(plain)))[0] == 404
    _, account = await api.get(account_path(backed))
    _, job = await api.get(timer_path(backed))
    assert [owner["uid"] for owner in account["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    await stop()
    _, grant = await api.get(f"{OURS}/namespaces/agents/taskgrants/{names[1]}")
    assert "end" not in grant["status"], "the operator is to be gone before the time is over"
    over = datetime.fromisoformat(grant["spec"]["order"]["notAfter"])
    assert await timed.may(backed)

    async def collected() -> bool:
        return (await api.get(account_path(backed)))[0] == 404

    await until(collected, "the account to go with its timer", seconds=60)
    late = (datetime.now(UTC) - over).total_seconds()
    assert late > 0, "not before its time"

    async def unauthenticated() -> bool:
        return (await api.get(f"{SHOP}/checkout", by=backed))[0] == 401

    await until(unauthenticated, "the token to be refused", seconds=15)
    assert (await api.get(timer_path(backed)))[0] == 404
    assert (await api.get(f"/api/v1/namespaces/{GRANTS}/pods"))[1]["items"] == []
    assert await reasons(agent, job) <= {"DeadlineExceeded"}, "no pod was ever made, or tried to be"
    assert (await api.get(account_path(plain)))[0] == 200
    assert await agent.may(plain), "without a timer only its expiry ends a token"
    assert len(await timed.traces(backed)) == 2, "Role and binding are where nothing of ours owns them"
    await asyncio.to_thread(install, OPERATED)
    for one, name, credential in ((agent, names[0], plain), (timed, names[1], backed)):
        assert (await one.finished(name))["reason"] == "TTLReached"
        await one.nothing_left()
        assert await one.traces(credential) == []


async def reasons(agent: Agent, job: Json) -> set[str]:
    """What Kubernetes has said of a Job."""
    _, events = await agent.api.get(f"/apis/events.k8s.io/v1/namespaces/{GRANTS}/events")
    return {event["reason"] for event in events["items"] if event["regarding"]["uid"] == job["metadata"]["uid"]}


async def test_a_grant_that_ends_before_its_time_takes_its_timer_along(timed: Agent) -> None:
    name = await timed.granted()
    credential = await timed.credential()
    assert (await timed.api.get(timer_path(credential)))[0] == 200
    await timed.report(name)
    assert (await timed.finished(name))["reason"] == "TaskReleased"
    await timed.dead(credential)
    assert await timed.traces(credential) == []


async def test_a_timer_that_an_admin_deletes_ends_the_token_and_both_are_made_again_at_the_renewal(
    timed: Agent,
) -> None:
    await timed.granted(spec={"ttl": "15m"})
    credential = await timed.credential()
    path = timer_path(credential)
    _, first = await timed.api.get(path)
    status, body = await timed.api.delete(f"{path}?propagationPolicy=Background")
    assert status == 200, body
    await timed.dead(credential, seconds=15)

    async def again() -> bool:
        status, job = await timed.api.get(path)
        if status != 200 or job["metadata"]["uid"] == first["metadata"]["uid"]:
            return False
        renewed = await timed.credential()
        return claims(renewed)["jti"] != claims(credential)["jti"] and await timed.may(renewed)

    await until(again, "the access to be made again", seconds=30)
    _, second = await timed.api.get(path)
    assert second["spec"]["activeDeadlineSeconds"] < first["spec"]["activeDeadlineSeconds"]
