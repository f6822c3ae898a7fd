"""Guards that go missing: noticed within ten seconds, and nothing that was asked for meanwhile is ever granted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from tests.cluster.api import SYSTEM, Json, merged, unique, until
from tests.cluster.conftest import Helm
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED
from tests.e2e.gap import without

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


async def test_a_missing_guard_is_noticed_and_requests_of_the_gap_are_never_granted(agent: Agent) -> None:
    live = await agent.granted()
    credential = await agent.credential()
    async with without(agent.api, "request-attest"):
        began = time.monotonic()
        honest = await agent.ask(spec={"delivery": {"secret": {"name": agent.secret}}})
        waiting = await agent.condition(honest, "Identified", "Unknown")
        assert waiting["reason"] == "GuardsMissing"
        assert "request-attest" in waiting["message"]
        assert time.monotonic() - began < 10
        forged = await forge(agent)
    for name in (honest, forged):
        over = await agent.finished(name)
        assert over["reason"] == "RequestInvalid"
        assert "RequestUnattested" in over["message"]
        assert "again" in over["message"]
    assert await agent.may(credential), "a live grant does not end with a guard"
    await agent.report(live)
    await agent.finished(live)
    await agent.granted()


async def test_a_changed_guard_is_a_missing_guard(agent: Agent) -> None:
    path = f"{POLICIES}/operator-writes.valetkey.dev"
    _, policy = await agent.api.get(path)
    status, body = await agent.api.patch(path, {"spec": {"failurePolicy": "Ignore"}})
    assert status == 200, body
    try:
        name = await agent.ask()
        assert (await agent.condition(name, "Identified", "Unknown"))["reason"] == "GuardsMissing"
    finally:
        await agent.api.patch(path, {"spec": {"failurePolicy": policy["spec"]["failurePolicy"]}})
        await asyncio.sleep(4.5)
    assert (await agent.finished(name))["reason"] == "RequestInvalid"


async def test_a_crd_older_than_the_operator_stops_granting_and_never_revoking(agent: Agent) -> None:
    live = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/taskgrants.valetkey.dev"
    _, crd = await agent.api.get(path)
    older = json.loads(json.dumps(crd["spec"]))
    spec = older["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["order"]["properties"]["podTemplates"]
    status, body = await agent.api.patch(path, {"spec": older})
    assert status == 200, body
    try:
        await asyncio.sleep(6)  # they are read every five seconds
        waiting = await agent.ask()
        approved = await agent.condition(waiting, "Approved", "Unknown")
        assert approved["reason"] == "CRDsOutdated"
        assert "taskgrants.valetkey.dev lacks .spec.order.podTemplates" in approved["message"]
        await agent.report(live)
        await agent.dead(credential)
        assert (await agent.finished(live))["reason"] == "TaskReleased"
    finally:
        await agent.api.patch(path, {"spec": crd["spec"]})
        # It is helm's again: a chart whose CRD says something else would be refused.
        await agent.api.patch(path, {"metadata": {"managedFields": crd["metadata"]["managedFields"]}})
    await agent.condition(waiting, "Ready", "True")


async def test_a_grant_whose_finalizer_was_removed_by_force_is_revoked_all_the_same(agent: Agent) -> None:
    name = await agent.granted()
    credential = await agent.credential()
    path = f"{OURS}/namespaces/agents/taskgrants/{name}"
    async with without(agent.api, "operator-writes"):
        status, body = await agent.api.patch(path, {"metadata": {"finalizers": []}})
        assert status == 200, body
        await agent.api.delete(path)
        await agent.dead(credential)
        assert (await agent.finished(name))["reason"] == "GrantDeleted"
    assert await agent.traces(credential) == []


async def test_a_hand_made_grant_makes_nothing_and_goes(agent: Agent) -> None:
    real = await agent.granted()
    credential = await agent.credential()
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{real}")
    await agent.report(real)
    await agent.finished(real)
    name = await agent.ask()  # waits for the Secret at most; what it asks for is less than what is forged
    await agent.condition(name, "Ready", "True")
    await agent.report(name)
    await agent.finished(name)
    async with without(agent.api, "operator-writes"):
        waiting = await agent.ask()
        _, request = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests/{waiting}")
        uid = request["metadata"]["uid"]
        spec = json.loads(
            json.dumps(grant["spec"]).replace(grant["spec"]["request"]["uid"], uid).replace(real, waiting)
        )
        spec["order"]["access"]["kubernetes"]["scopes"][0]["rules"][0]["verbs"] = ["get", "list", "patch"]
        body = {key: grant[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": waiting}, "spec": spec}
        await agent.api.made(f"{OURS}/namespaces/agents/taskgrants", body)

        async def gone() -> bool:
            return (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{waiting}"))[0] == 404

        await until(gone, "the forged grant to go")
        assert (await agent.finished(waiting))["reason"] == "IssueFailed"
        assert (await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}"))[0] == 404
    assert await agent.traces(credential) == []


async def test_a_chart_upgrade_ends_no_live_grant(agent: Agent, install: Callable[[Json], None]) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    try:
        await asyncio.to_thread(install, {**OPERATED, "cluster": "upgraded"})
        for _ in range(50):
            assert await agent.may(credential)
            await asyncio.sleep(0.1)
        await agent.report(name)
        assert (await agent.finished(name))["reason"] == "TaskReleased"
        await agent.dead(credential)
    finally:
        await asyncio.to_thread(install, OPERATED)
        await asyncio.sleep(4)


async def forge(agent: Agent) -> str:
    """A request that names a pod which did not make it."""
    body = agent.request(metadata={"name": unique("forged")})
    answer = await agent.api.made(f"{OURS}/namespaces/agents/accessrequests", body)
    name: str = answer["metadata"]["name"]
    return name


async def test_an_upgrade_that_would_leave_a_live_grant_to_nobody_is_refused(agent: Agent, helm: Helm) -> None:
    chart = ("upgrade", "valetkey", "charts/valetkey", "--namespace", SYSTEM, "--dry-run=server")
    changes: list[tuple[Json, str]] = [
        ({"agentNamespaces": ["agents-b"]}, "agentNamespaces does not name agents any more"),
        ({"grantable": {"namespaces": []}}, "grantable.namespaces does not name shop any more"),
        ({"grantsNamespace": "elsewhere"}, "its account is in valetkey-grants, which is not grantsNamespace any more"),
    ]
    name = await agent.granted(spec={"ttl": "5m"})
    for change, why in changes:
        done = await asyncio.to_thread(helm, *chart, values=merged(OPERATED, change))
        assert done.returncode != 0
        assert why in done.stderr
        assert "Set a Deny there first" in done.stderr
        assert f"kubectl delete taskgrant -n agents {name}" in done.stderr
    await agent.report(name)
    await agent.nothing_left()
    for change, why in changes:
        done = await asyncio.to_thread(helm, *chart, values=merged(OPERATED, change))
        assert why not in done.stderr


async def test_an_upgrade_that_would_leave_a_live_cluster_wide_grant_to_nobody_is_refused(
    agent: Agent, helm: Helm
) -> None:
    chart = ("upgrade", "valetkey", "charts/valetkey", "--namespace", SYSTEM, "--dry-run=server")
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    ceiling = {"name": "nodes", "kubernetes": {"scopes": [{"cluster": True, "rules": rules}]}}
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"access": [ceiling]}})
    await agent.policy_ready()
    name = await agent.granted(spec={"access": {"kubernetes": {"scopes": [{"rules": rules}]}}})
    empties: tuple[Json, ...] = ({"rules": []}, {"rules": [], "clusterRoles": []})
    for empty in empties:
        values = merged(OPERATED, {"grantable": {"cluster": empty}})
        done = await asyncio.to_thread(helm, *chart, values=values)
        assert done.returncode != 0
        assert "grantable.cluster.rules is empty now, and the ClusterRole could not be deleted" in done.stderr
        assert f"kubectl delete taskgrant -n agents {name}" in done.stderr
