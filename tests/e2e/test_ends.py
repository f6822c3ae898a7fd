"""What ends a grant, each for its own reason, and what is left of it: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.cluster.api import Json, until
from tests.e2e.agent import OURS, Agent

PODS = "/api/v1/namespaces/agents/pods"


async def finished_pod(agent: Agent, name: str) -> None:
    """The pod's containers have ended; on a paper node the test is the kubelet."""
    await agent.api.patch(f"{PODS}/{agent.name}/status", {"status": {"phase": "Succeeded"}})


async def deleted_request(agent: Agent, name: str) -> None:
    await agent.api.delete(f"{OURS}/namespaces/agents/accessrequests/{name}")


async def deleted_grant(agent: Agent, name: str) -> None:
    await agent.api.delete(f"{OURS}/namespaces/agents/taskgrants/{name}")


async def deleted_pod(agent: Agent, name: str) -> None:
    await agent.api.delete(f"{PODS}/{agent.name}", {"gracePeriodSeconds": 0})


async def narrowed_policy(agent: Agent, name: str) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"ttl": {"default": "1s", "max": "1s"}}})


async def deleted_policy(agent: Agent, name: str) -> None:
    await agent.api.delete(f"{OURS}/agentpolicies/{agent.policy}")


async def reported(agent: Agent, name: str) -> None:
    await agent.report(name, "Failed")


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (reported, "TaskReleased"),
        (finished_pod, "PodFinished"),
        (deleted_pod, "PodDeleted"),
        (deleted_request, "RequestDeleted"),
        (deleted_grant, "GrantDeleted"),
        (narrowed_policy, "PolicyChanged"),
        (deleted_policy, "PolicyChanged"),
    ],
)
async def test_every_end_revokes_and_says_why(
    agent: Agent, end: Callable[[Agent, str], Awaitable[None]], reason: str
) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    assert await agent.may(credential)
    await end(agent, name)
    await agent.dead(credential)
    await agent.nothing_left()
    assert await agent.traces(credential) == []
    await told(agent, name, reason)
    status, body = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests/{name}")
    if status == 200:
        assert (await agent.finished(name))["reason"] == reason, body


async def test_time_ends_a_grant(agent: Agent) -> None:
    name = await agent.granted(spec={"ttl": "2s"})
    credential = await agent.credential()
    assert (await agent.finished(name))["reason"] == "TTLReached"
    assert await agent.dead(credential) < 1
    await agent.nothing_left()
    assert await agent.traces(credential) == []
    await told(agent, name, "TTLReached")


async def test_a_deny_ends_what_an_allow_began(agent: Agent) -> None:
    name = await agent.granted()
    deny: Json = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AgentPolicy",
        "metadata": {"name": f"deny-{agent.name}"},
        "spec": {
            "effect": "Deny",
            "subjects": [{"name": "one", "namespace": "agents", "serviceAccount": "fixer"}],
            "validations": [
                {"name": "this", "expression": f'identity.podName == "{agent.name}"', "message": "not this one"}
            ],
        },
    }
    await agent.api.made(f"{OURS}/agentpolicies", deny)
    try:
        assert (await agent.finished(name))["reason"] == "PolicyChanged"
        refused = await agent.ask()
        assert (await agent.finished(refused))["reason"] == "RequestDenied"
    finally:
        await agent.api.delete(f"{OURS}/agentpolicies/deny-{agent.name}")


async def test_a_pod_replaced_by_one_of_the_same_name_inherits_nothing(agent: Agent) -> None:
    await agent.granted()
    credential = await agent.credential()
    old = agent.pod
    await agent.start()
    assert agent.pod["metadata"]["uid"] != old["metadata"]["uid"]
    await agent.dead(credential)

    async def empty() -> bool:
        return (await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}"))[0] == 404

    await until(empty, "the old pod's Secret to go")


async def test_a_second_pod_that_mounts_the_secret_later_ends_the_grant(agent: Agent) -> None:
    name = await agent.granted()
    credential = await agent.credential()
    volumes = [{"name": "valetkey", "secret": {"secretName": agent.secret, "optional": True}}]
    await agent.world.pod("agents", f"{agent.name}-twin", volumes=volumes)
    try:
        over = await agent.finished(name)
        assert over["reason"] == "DeliveryFailed"
        assert f"{agent.name}-twin" in over["message"]
        await agent.dead(credential)
    finally:
        await agent.api.gone(f"{PODS}/{agent.name}-twin")


async def test_a_finalizer_that_others_put_on_the_rights_does_not_keep_them(agent: Agent) -> None:
    name = await agent.granted()
    credential = await agent.credential()
    (binding,) = [left for left in await agent.traces(credential) if left.endswith("-0")][:1]
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/{binding}"
    status, body = await agent.api.patch(path, {"metadata": {"finalizers": ["example.com/keep"]}})
    assert status == 200, body
    await agent.report(name)
    await agent.finished(name)
    assert await agent.traces(credential) == []


async def test_a_token_that_was_taken_from_the_pod_dies_with_the_grant(agent: Agent) -> None:
    name = await agent.granted()
    credential = await agent.credential()
    account_ends = (await agent.traces(credential))[0]
    await agent.report(name)
    await agent.finished(name)
    status = 200
    for _ in range(120):  # authentication is cached for ten seconds
        status, _ = await agent.api.get("/api/v1/namespaces/agents/pods", by=credential)
        if status == 401:
            break
        await asyncio.sleep(0.1)
    assert status == 401, account_ends


async def told(agent: Agent, name: str, reason: str) -> None:
    """An Event about the request has the reason."""

    async def there() -> bool:
        _, events = await agent.api.get("/apis/events.k8s.io/v1/namespaces/agents/events")
        return any(e["reason"] == reason and e["regarding"].get("name") == name for e in events["items"])

    await until(there, f"an Event {reason}")


async def test_an_object_too_deep_for_most_readers_hides_nobody(agent: Agent) -> None:
    """Whoever may write an object of an agent may nest its managedFields thousands of levels deep."""
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    fields = '{"f:zzz":' + '{"f:a":' * 3000 + "{}" + "}" * 3001
    entry = (
        '{"manager":"x","operation":"Update","apiVersion":"valetkey.dev/v1alpha1","fieldsType":"FieldsV1","fieldsV1":'
    )
    raw = f'{{"metadata":{{"managedFields":[{entry}{fields}}}]}}}}'
    path = f"{OURS}/namespaces/agents/accessrequests/{name}"
    assert await agent.api.raw("PATCH", path, raw, by=agent.token) == 200
    assert await agent.api.raw("PATCH", path, '{"spec":{"outcome":"Succeeded"}}', by=agent.token) == 200
    await agent.dead(credential)
    await agent.nothing_left()
    assert await agent.api.raw("DELETE", path) == 200
    assert await agent.granted(spec={"ttl": "5m"})
