"""With the operator gone: what dies by itself, what waits, and that nothing of it is forgotten when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.cluster.api import Api, Json, claims, until
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED, Abandoned, Stop

DEAD_AFTER = 670.0
"""Seconds from a token's making: its 600, the API server's leeway of 60, and its cache of 10."""


async def collected(agent: Agent, request: str) -> None:
    """Waits until an agent's request and its Secret are gone."""
    paths = (
        f"{OURS}/namespaces/agents/accessrequests/{request}",
        f"/api/v1/namespaces/agents/secrets/{agent.secret}",
    )

    async def gone() -> bool:
        return [(await agent.api.get(path))[0] for path in paths] == [404, 404]

    await until(gone, f"{request} and {agent.secret} to be collected", seconds=60)


async def test_with_the_operator_gone_request_and_secret_go_with_their_pod_and_a_copied_token_lives_on(
    operated: World, agent: Agent, stop: Stop, install: Callable[[Json], None]
) -> None:
    others = [Agent(operated, f"{agent.name}-{what}") for what in ("request", "time")]
    for other in others:
        await other.begin()
    by_pod, by_request, by_time = agent, *others
    names = [await one.granted(spec={"ttl": "20s" if one is by_time else "5m"}) for one in (agent, *others)]
    credentials = [await one.credential() for one in (agent, *others)]
    await stop()
    await agent.api.delete(f"/api/v1/namespaces/agents/pods/{by_pod.name}", {"gracePeriodSeconds": 0})
    await agent.api.delete(f"{OURS}/namespaces/agents/accessrequests/{names[1]}")
    await collected(by_pod, names[0])
    await collected(by_request, names[1])
    await asyncio.sleep(20)
    for one, credential in zip((agent, *others), credentials, strict=True):
        assert claims(credential)["exp"] - claims(credential)["iat"] <= 600
        assert await one.may(credential), "without the operator only its expiry ends a token"
    await asyncio.to_thread(install, OPERATED)
    for one, credential in zip((agent, *others), credentials, strict=True):
        await one.dead(credential, seconds=30)
        assert await one.traces(credential) == []
    assert (await by_time.finished(names[2]))["reason"] == "TTLReached"
    for other in others:
        await other.leave()


@pytest.mark.timeout(DEAD_AFTER + 60)
async def test_a_token_that_nobody_revokes_or_renews_is_refused_when_its_time_is_over(
    api: Api, abandoned: Abandoned
) -> None:
    """By then the other tests have taken longer; by itself it waits for eleven minutes."""
    await asyncio.sleep(max(0.0, abandoned.made + DEAD_AFTER - time.monotonic()))
    assert (await api.get(abandoned.reads, by=abandoned.credential))[0] == 401
    assert (await api.get(abandoned.account))[0] == 200, "its time has ended it, and nothing else"
