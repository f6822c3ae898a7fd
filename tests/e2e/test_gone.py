"""With the operator gone: what dies by itself, what waits, and that nothing of it is forgotten when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.cluster.api import Json, claims, until
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED, Stop


async def secret_goes(agent: Agent) -> None:
    path = f"/api/v1/namespaces/agents/secrets/{agent.secret}"

    async def gone() -> bool:
        return (await agent.api.get(path))[0] == 404

    await until(gone, f"{agent.secret} to be collected", seconds=60)


async def test_with_the_operator_gone_the_secret_goes_with_its_pod_or_request_and_the_token_with_its_time(
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
    await secret_goes(by_pod)
    await secret_goes(by_request)
    await asyncio.sleep(20)
    for one, credential in zip((agent, *others), credentials, strict=True):
        assert claims(credential)["exp"] - claims(credential)["iat"] <= 600, "the API server lets it expire by then"
        assert await one.may(credential), "without the operator only its expiry ends a token"
    await asyncio.to_thread(install, OPERATED)
    for one, credential in zip((agent, *others), credentials, strict=True):
        await one.dead(credential, seconds=30)
        assert await one.traces(credential) == []
    assert (await by_time.finished(names[2]))["reason"] == "TTLReached"
    for other in others:
        await other.leave()
