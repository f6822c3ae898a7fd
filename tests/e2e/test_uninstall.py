"""The ways out: the chart revokes before it goes, or says what is left; and a grant is let go by force, on record."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cluster.api import GRANTS, SYSTEM, Api, Json, merged, unique, until
from tests.cluster.conftest import Helm
from tests.cluster.local.cluster import Cluster
from tests.cluster.replicas import leader
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED
from tests.e2e.people import command

UNINSTALL = ("uninstall", "valetkey", "--namespace", SYSTEM, "--wait", "--timeout", "60s")
KINDS = ("accessrequests", "agentpolicies", "leaders", "taskgrants")
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
async def installed_again(
    operated: World, install: Callable[[Json], None]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Puts the operator back as the other tests know it, when asked and at the end."""

    async def again() -> None:
        await asyncio.to_thread(install, OPERATED)
        await until(lambda: leads(operated.api), "the operator to lead")
        await asyncio.sleep(4)  # a request is granted only if the guards stood three seconds before it

    yield again
    await again()


async def leads(api: Api) -> bool:
    _, uid = await leader(api)
    _, pod = await api.get(f"/api/v1/namespaces/{SYSTEM}/pods/valetkey-0")
    return bool(uid) and pod.get("metadata", {}).get("uid") == uid


Again = Callable[[], Awaitable[None]]


async def test_what_is_granted_is_revoked_before_the_chart_goes_and_nothing_hangs(
    agent: Agent, helm: Helm, installed_again: Again
) -> None:
    await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    done = await asyncio.to_thread(helm, *UNINSTALL)
    assert done.returncode == 0, done.stderr
    assert not await agent.may(credential)
    assert await agent.traces(credential) == []
    _, left = await agent.api.get(f"{OURS}/taskgrants")
    assert left["items"] == []
    assert (await agent.api.get(f"/apis/batch/v1/namespaces/{SYSTEM}/jobs/valetkey-uninstall"))[0] == 404
    assert (await agent.api.get(f"{RBAC}/clusterroles/valetkey-uninstall"))[0] == 404
    await agent.api.gone(f"/api/v1/namespaces/{GRANTS}")
    for kind in KINDS:
        await agent.api.gone(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind}.valetkey.dev")
    await installed_again()


async def test_an_uninstall_that_cannot_revoke_says_what_is_left_and_grants_nothing_more(
    agent: Agent, helm: Helm, install: Callable[[Json], None], installed_again: Again
) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    await asyncio.to_thread(install, merged(OPERATED, {"replicas": 0, "uninstall": {"within": 4}}))
    done = await asyncio.to_thread(helm, *UNINSTALL)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"agents/{name}: nobody revokes it; is the operator running?; its token expires by itself at 20" in said
    guard = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/request-attest.valetkey.dev"
    assert (await agent.api.get(guard))[0] == 404
    assert await agent.may(credential)
    back = await asyncio.to_thread(helm, "rollback", "valetkey", "--namespace", SYSTEM)
    assert back.returncode == 0, back.stderr
    await installed_again()
    await agent.dead(credential)


async def test_an_agents_namespace_that_is_deleted_goes_with_what_was_granted_there(
    operated: World, installed_again: Again
) -> None:
    agent, api = Agent(operated, unique("leaver"), namespace="agents-b"), operated.api
    await agent.begin()
    try:
        await agent.granted(spec={"ttl": "5m"})
        credential = await agent.credential()
        await api.delete("/api/v1/namespaces/agents-b")
        await agent.dead(credential, seconds=20)
        await api.gone("/api/v1/namespaces/agents-b")
        assert await agent.traces(credential) == []
    finally:
        await api.delete(f"{OURS}/agentpolicies/{agent.policy}")
        await api.ensured("/api/v1/namespaces", {"metadata": {"name": "agents-b"}})
        await installed_again()
        await operated.build()


async def test_a_grant_that_cannot_be_revoked_is_let_go_by_force_with_a_record_of_who_and_why(
    agent: Agent, person: Callable[..., subprocess.CompletedProcess[str]], log_directory: Path
) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    async with without_rights_over_accounts(agent.api):
        waited = await asyncio.to_thread(person, "revoke", f"agents/{name}", "--within", "3")
        assert waited.returncode == 1
        assert f"RevocationPending: ServiceAccount {GRANTS}/valetkey-" in waited.stderr
        assert "the API server answered 403 Forbidden" in waited.stderr
        unsaid = await asyncio.to_thread(person, "revoke", f"agents/{name}", "--force")
        assert unsaid.returncode == 2
        forced = await asyncio.to_thread(person, "revoke", f"agents/{name}", "--force", "--because", "no way back")
        assert forced.returncode == 0, forced.stderr
        assert f"agents/{name} was let go by force, by on-call: no way back" in forced.stdout
        account = (await agent.api.get(f"/api/v1/namespaces/{GRANTS}/serviceaccounts"))[1]["items"]
        names = [body["metadata"]["name"] for body in account if body["metadata"]["name"] in forced.stdout]
        assert len(names) == 1, forced.stdout
        assert (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[0] == 404

    async def nothing_left() -> bool:
        return await agent.traces(credential) == []

    await until(nothing_left, "what the grant had made to go when it can", seconds=60)
    said = [
        (record["by"], record["message"]) for record in forcings(log_directory) if record["request"] == f"agents/{name}"
    ]
    assert said == [("on-call", "no way back")]


@pytest.fixture
async def person(operated: World, cluster: Cluster, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `valetkey` as somebody on call who may force revocations where agents run."""
    binding = {
        "metadata": {"name": "on-call-forces"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valetkey-force"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "on-call"}],
    }
    await operated.api.ensured(f"{RBAC}/namespaces/agents/rolebindings", binding)
    return command(cluster, tmp_path, "on-call")


@asynccontextmanager
async def without_rights_over_accounts(api: Api) -> AsyncIterator[None]:
    """The operator may not touch the accounts of grants, as after an upgrade that went wrong."""
    path = f"{RBAC}/namespaces/{GRANTS}/rolebindings/valetkey-operator"
    _, binding = await api.get(path)
    await api.gone(path)
    try:
        yield
    finally:
        metadata = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
        body = {"metadata": metadata, "roleRef": binding["roleRef"], "subjects": binding["subjects"]}
        await api.made(f"{RBAC}/namespaces/{GRANTS}/rolebindings", body)


def forcings(directory: Path) -> list[Json]:
    lines = [line for path in directory.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if '"RevocationForced"' in line]
