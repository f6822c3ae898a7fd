"""One task, one credential: the path from a request to its end, on the real thing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.cluster.api import ADMIN, Json, until
from tests.e2e.agent import OURS, SHOP, Agent


async def test_an_agent_gets_exactly_what_it_asked_for_and_loses_it_with_its_outcome(agent: Agent) -> None:
    name = await agent.granted()
    credential = await agent.credential()
    assert await agent.may(credential)
    assert not await agent.may(credential, "/apis/apps/v1/namespaces/elsewhere/deployments/checkout")
    assert not await agent.may(credential, "/api/v1/namespaces/shop/secrets/any")
    assert (await agent.api.delete(f"{SHOP}/checkout", by=credential))[0] == 403

    await agent.report(name)
    assert (await agent.finished(name))["reason"] == "TaskReleased"
    assert not await agent.may(credential)
    assert await agent.traces(credential) == []
    status, _ = await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}")
    assert status == 404


async def test_the_next_request_of_the_same_pod_uses_the_same_secret(agent: Agent) -> None:
    first = await agent.granted()
    one = await agent.credential()
    second = await agent.ask()
    conflict = await agent.finished(second)
    assert conflict["reason"] == "DeliveryFailed", conflict
    assert first in conflict["message"]
    await agent.report(first)
    await agent.finished(first)
    await agent.granted()
    other = await agent.credential()
    assert other.token != one.token
    assert await agent.may(other)
    assert not await agent.may(one)


async def test_a_request_made_while_the_last_grant_leaves_is_granted_when_it_has_left(agent: Agent) -> None:
    first = await agent.granted()
    await agent.report(first)
    await agent.granted()


async def test_a_denial_says_what_the_policy_allows_and_nothing_is_made(agent: Agent) -> None:
    name = await agent.ask(
        spec={
            "access": {
                "kubernetes": {
                    "scopes": [
                        {
                            "namespace": "shop",
                            "rules": [
                                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "delete"]}
                            ],
                        }
                    ]
                }
            }
        }
    )
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    status = await agent.status(name)
    denial = status["decision"]["denial"]
    assert denial["reason"] == "AccessBeyondPolicy"
    assert denial["field"].startswith("spec.access.kubernetes.scopes[0].rules[0]")
    assert "get" in denial["allowed"]
    assert (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[0] == 404


async def test_an_approved_cluster_role_is_bound_where_it_was_asked_for(agent: Agent) -> None:
    await agent.api.patch(
        f"{OURS}/agentpolicies/{agent.policy}",
        {
            "spec": {
                "access": [
                    {
                        "name": "logs",
                        "kubernetes": {"scopes": [{"namespaces": ["shop"], "clusterRoles": ["log-reader"]}]},
                    },
                    {
                        "name": "nodes",
                        "kubernetes": {
                            "scopes": [
                                {
                                    "cluster": True,
                                    "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
                                }
                            ]
                        },
                    },
                ]
            }
        },
    )
    await agent.policy_ready()
    await asyncio.sleep(6)  # the operator reads the roles that it may hand out every five seconds
    name = await agent.granted(
        spec={"access": {"kubernetes": {"scopes": [{"namespace": "shop", "clusterRole": "log-reader"}]}}}
    )
    credential = await agent.credential()
    assert await agent.may(credential, "/api/v1/namespaces/shop/pods/any")
    assert not await agent.may(credential, "/api/v1/namespaces/elsewhere/pods/any")
    await agent.report(name)
    await agent.finished(name)

    nodes = [{"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}]
    await agent.granted(spec={"access": {"kubernetes": {"scopes": nodes}}})
    cluster_wide = await agent.credential()
    assert await agent.may(cluster_wide, "/api/v1/nodes/any")
    assert not await agent.may(cluster_wide, "/api/v1/namespaces/shop/pods/any")


async def test_a_long_grant_gets_a_new_credential_before_the_old_one_is_old(agent: Agent) -> None:
    name = await agent.granted(spec={"ttl": "15m"})  # longer than a token lives; the tests renew after four seconds
    first = await agent.credential()

    async def renewed() -> bool:
        return (await agent.credential()).token != first.token

    await until(renewed, "the credential to be renewed")
    assert await agent.may(await agent.credential())
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}")
    assert grant["metadata"]["generation"] == 1, "what was allowed does not change"


async def test_what_kubectl_shows_tells_the_story(agent: Agent) -> None:
    name = await agent.granted()
    table = "application/json;as=Table;g=meta.k8s.io;v=v1"
    _, shown = await agent.api.call("GET", f"{OURS}/namespaces/agents/accessrequests/{name}", accept=table)
    columns = [column["name"].upper() for column in shown["columnDefinitions"] if column["priority"] == 0]
    assert columns == ["NAME", "AGENT", "PURPOSE", "ACCESS", "READY", "REASON", "EXPIRES", "AGE"]
    cells = dict(zip(columns, shown["rows"][0]["cells"], strict=False))
    assert cells["ACCESS"] == "shop: get,patch deployments.apps"
    assert cells["AGENT"] == f"fixer/{agent.name}"
    await agent.report(name)
    await agent.finished(name)

    async def told() -> bool:
        _, events = await agent.api.get("/apis/events.k8s.io/v1/namespaces/agents/events")
        reasons = {event["reason"] for event in events["items"] if event["regarding"].get("name") == name}
        return reasons >= {"AccessDelivered", "TaskReleased"}

    await until(told, "the Events")


async def test_the_log_has_each_step_before_and_after_it_and_its_chain_holds(agent: Agent, log_directory: Path) -> None:
    task = f"task-{agent.name}"
    name = await agent.granted(spec={"task": {"id": task}})
    await agent.report(name)
    await agent.finished(name)
    await agent.nothing_left()
    command = [sys.executable, "-m", "valetkey", "log", "--task", task, "--dir", str(log_directory), "-o", "json"]
    shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    assert shown.returncode == 0, shown.stderr
    records: list[Json] = [orjson.loads(line) for line in shown.stdout.splitlines()]
    assert [record["reason"] for record in records] == [
        "PolicyMatched",
        "IssuePending",
        "CredentialIssued",
        "CredentialDelivered",
        "TaskReleased",
        "CredentialRevoked",
    ]
    assert records[0]["facts"]["identity"]["pod_name"] == agent.name
    assert records[-1]["credential_id"].startswith("JTI=")


async def test_every_field_of_a_grant_is_managed_by_valetkey(agent: Agent) -> None:
    name = await agent.granted()
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}", by=ADMIN)
    managers = {field["manager"] for field in grant["metadata"]["managedFields"]}
    assert managers == {"valetkey"}


@pytest.mark.parametrize("limits", [{"active": 1}, {"perHour": 1}, {"cooldown": "1h"}], ids=str)
async def test_limits_hold_for_requests_made_at_once(agent: Agent, limits: Json) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"limits": limits}})
    await agent.policy_ready()
    other = f"{agent.secret}-b"
    names = {"valetkey": agent.secret, "other": other}
    await agent.start(
        volumes=[{"name": volume, "secret": {"secretName": s, "optional": True}} for volume, s in names.items()]
    )
    elsewhere = {"delivery": {"secret": {"name": other}}}
    first, second = await asyncio.gather(agent.ask(), agent.ask(spec=elsewhere))
    ready, reasons = 0, set()
    for name in (first, second):

        async def settled(name: str = name) -> bool:
            conditions: dict[str, Json] = {c["type"]: c for c in (await agent.status(name)).get("conditions", [])}
            return (
                conditions.get("Ready", {}).get("status") == "True"
                or conditions.get("Finished", {}).get("status") == "True"
            )

        await until(settled, f"{name} to be settled")
        status = await agent.status(name)
        if any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"]):
            ready += 1
        else:
            reasons.add(status["decision"]["denial"]["reason"])
    assert (ready, reasons) == (1, {"LimitReached"})
