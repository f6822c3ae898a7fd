"""The door on the real thing: a pod that never talks to the API server asks, receives, and says how it ended."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import valetkey
from tests.cluster.api import SYSTEM, Api, Caller, Json, merged, unique, until
from tests.cluster.local import pki
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED, fresh
from tests.e2e.inside import mounted
from tests.e2e.test_approvals import People
from tests.e2e.test_sealed import Holder
from tests.unit.controller.test_listener import free
from valetkey.agent import connections

ALL = "/v1/accessrequests"
PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"


@dataclass(frozen=True)
class Door:
    """Where it is, and what it is met with."""

    api: Api
    port: int
    folder: Path
    secret: str

    @property
    def trusted(self) -> ssl.SSLContext:
        """Who trusts the CA of its certificates."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.crt"))

    async def call(self, method: str, path: str, body: Json | None = None, *, by: Caller) -> tuple[int, Json]:
        """One call with a token."""
        headers = {"Authorization": f"Bearer {by.token}"}
        connector = aiohttp.TCPConnector(ssl=self.trusted)
        async with (
            aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=connector) as session,
            session.request(method, path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    async def certificate(self) -> str:
        """The common name that a connection is met with."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trusted)
        met = writer.get_extra_info("peercert")
        writer.close()
        return str(dict(entry[0] for entry in met["subject"])["commonName"])

    def data(self, name: str) -> Json:
        """A certificate of the CA, made now, as a Secret has it."""
        pki.certificate(self.folder, name, f"/CN={name}")
        files = (("tls.crt", f"{name}.crt"), ("tls.key", f"{name}.key"))
        return {key: base64.b64encode((self.folder / file).read_bytes()).decode() for key, file in files}


@pytest.fixture(scope="module")
async def door(
    operated: World, install: Callable[[Json], None], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Door]:
    """The chart with its door; afterwards it is as before."""
    api, door = operated.api, Door(operated.api, free(), tmp_path_factory.mktemp("tls"), unique("door-tls"))
    pki.authority(door.folder)
    body = {"metadata": {"name": door.secret}, "type": "kubernetes.io/tls", "data": door.data("first")}
    await api.made(SECRETS, body)
    _, old = await api.get(f"{PODS}/valetkey-0")
    values = {"door": {"enabled": True, "tlsSecret": door.secret, "port": door.port}}
    await asyncio.to_thread(install, merged(OPERATED, values))
    await fresh(api, old, 1)  # the guards have changed, and it compares them with the chart's
    await asyncio.sleep(4)  # a request is granted only if the guards stood three seconds before it
    yield door
    _, old = await api.get(f"{PODS}/valetkey-0")
    await asyncio.to_thread(install, OPERATED)
    await fresh(api, old, 1)
    await asyncio.sleep(4)
    await api.gone(f"{SECRETS}/{door.secret}")


@pytest.fixture
async def pass_(agent: Agent) -> Caller:
    """What the agent's pod shows at the door, and is worth nothing at the API server."""
    return await shown(agent)


async def shown(agent: Agent, audience: str = "valetkey") -> Caller:
    """The holder of a token of its pod for an audience."""
    return await agent.api.token(agent.namespace, "fixer", agent.pod, audience=audience)


def asks(agent: Agent, holder: Holder, **change: Any) -> Json:
    """What an agent sends to the door: no word of who it is."""
    spec = merged(merged(agent.request()["spec"], holder.asks()["spec"]), {"requester": None, "subject": None})
    return merged({"name": unique("fix"), "spec": spec}, change)


def opened(holder: Holder, told: Json) -> Caller:
    """What the answer has sealed, opened with nothing but the answer."""
    request = {"metadata": {"uid": told["uid"]}, "spec": {"subject": told["subject"]}, "status": told["status"]}
    return Caller(token=holder.opened(request)["token"])


async def test_a_pod_asks_opens_what_comes_and_says_how_it_ended(door: Door, agent: Agent, pass_: Caller) -> None:
    assert (await agent.api.get(f"{OURS}/namespaces/agents/accessrequests", by=pass_))[0] == 401
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"heartbeat": {"within": "60s"}}})
    await agent.policy_ready()
    holder = Holder()
    ask = asks(agent, holder)
    status, told = await door.call("POST", f"{ALL}?wait=30", ask, by=pass_)
    assert status == 200, told
    credential = opened(holder, told)
    assert await agent.may(credential)
    _, made = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests/{ask['name']}")
    assert made["spec"]["requester"]["via"] == "Door"
    assert made["spec"]["requester"]["podUID"] == made["spec"]["subject"]["podUID"] == agent.pod["metadata"]["uid"]
    one = f"{ALL}/{ask['name']}"
    assert (await door.call("POST", f"{ALL}?wait=0", ask, by=pass_))[1]["uid"] == told["uid"], "asked again, made once"
    assert (await door.call("PATCH", one, {"heartbeat": "1"}, by=pass_))[0] == 200
    status, told = await door.call("PATCH", one, {"outcome": "Succeeded"}, by=pass_)
    assert status == 200, told
    while status == 200:
        status, told = await door.call("GET", f"{one}?wait=30&after={told['version']}", by=pass_)
    assert (status, told["error"]["reason"]) == (403, "TaskReleased")
    assert not await agent.may(credential)
    assert await agent.traces(credential) == []


async def test_a_long_grant_gets_its_next_credential_there(door: Door, agent: Agent, pass_: Caller) -> None:
    holder = Holder()
    ask = asks(agent, holder, spec={"ttl": "15m"})
    status, told = await door.call("POST", f"{ALL}?wait=30", ask, by=pass_)
    assert status == 200, told
    first = opened(holder, told)
    sequence = told["status"]["delivery"]["sealed"]["sequence"]
    while told["status"]["delivery"]["sealed"]["sequence"] == sequence:
        status, told = await door.call("GET", f"{ALL}/{ask['name']}?wait=30&after={told['version']}", by=pass_)
        assert status == 200, told
    assert opened(holder, told).token != first.token
    assert await agent.may(opened(holder, told))


async def test_a_policy_that_has_the_api_server_alone_says_so(door: Door, agent: Agent, pass_: Caller) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"via": ["API"]}})
    await agent.policy_ready()
    status, told = await door.call("POST", f"{ALL}?wait=30", asks(agent, Holder()), by=pass_)
    assert status == 403, told
    assert (told["error"]["reason"], told["error"]["field"]) == ("ViaNotAllowed", "spec.requester.via")
    await agent.granted()


async def test_a_live_grant_ends_when_its_policy_has_its_way_in_no_more(
    door: Door, agent: Agent, pass_: Caller
) -> None:
    holder = Holder()
    ask = asks(agent, holder)
    status, told = await door.call("POST", f"{ALL}?wait=30", ask, by=pass_)
    assert status == 200, told
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"via": ["API"]}})
    while status == 200:
        status, told = await door.call("GET", f"{ALL}/{ask['name']}?wait=30&after={told['version']}", by=pass_)
    assert (status, told["error"]["reason"]) == (403, "PolicyChanged")


async def test_a_person_is_asked_and_their_word_is_waited_for(door: Door, agent: Agent, pass_: Caller) -> None:
    people, holder = People(agent), Holder()
    await people.begin()
    try:
        await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"approval": {}}})
        await agent.policy_ready()
        ask = asks(agent, holder)
        status, told = await door.call("POST", f"{ALL}?wait=2", ask, by=pass_)
        assert (status, told["status"]["decision"]["outcome"]) == (202, "Pending")
        looking = asyncio.create_task(door.call("GET", f"{ALL}/{ask['name']}?wait=30", by=pass_))
        await people.say(people.ann, ask["name"])
        status, told = await looking
        assert status == 200, told
        assert await agent.may(opened(holder, told))
    finally:
        await people.leave()


async def test_only_a_pods_token_for_the_door_opens_it_and_only_its_own_requests_are_there(
    door: Door, agent: Agent, pass_: Caller
) -> None:
    unbound = await agent.api.token("agents", "fixer", audience="valetkey")
    other = await shown(agent, "valetkey-log")
    for caller in (agent.token, unbound, other, Caller(token="none")):
        status, told = await door.call("POST", f"{ALL}?wait=0", asks(agent, Holder()), by=caller)
        assert (status, told["error"]["reason"]) == (401, "Unauthorized")
    ask = asks(agent, Holder())
    assert (await door.call("POST", f"{ALL}?wait=30", ask, by=pass_))[0] == 200
    twin = await agent.api.token("agents", "fixer", agent.world.pods["twin"], audience="valetkey")
    for method, body in (("GET", None), ("PATCH", {"outcome": "Failed"})):
        assert (await door.call(method, f"{ALL}/{ask['name']}", body, by=twin))[0] == 404
    assert (await door.call("POST", f"{ALL}?wait=0", ask, by=twin))[0] == 409
    own = await agent.ask()
    assert (await door.call("GET", f"{ALL}/{own}", by=pass_))[0] == 404, "what it asked itself is not the door's"


async def test_its_certificate_is_renewed_while_it_runs(door: Door, agent: Agent, pass_: Caller) -> None:
    assert await door.certificate() == "first"
    _, pods = await agent.api.get(f"{PODS}?labelSelector=app.kubernetes.io/name=valetkey-door")
    (before,) = pods["items"]
    _, answer = await agent.api.patch(f"{SECRETS}/{door.secret}", {"data": door.data("second")})
    assert answer["metadata"]["name"] == door.secret
    # A touch of the pod makes the kubelet look.
    touch = {"metadata": {"annotations": {"touched": unique("at")}}}
    await agent.api.patch(f"{PODS}/{before['metadata']['name']}", touch)

    async def renewed() -> bool:
        return await door.certificate() == "second"

    await until(renewed, "the new certificate to be met with", seconds=150, pause=1)
    assert (await door.call("POST", f"{ALL}?wait=30", asks(agent, Holder()), by=pass_))[0] == 200
    _, after = await agent.api.get(f"{PODS}/{before['metadata']['name']}")
    assert [one["restartCount"] for one in after["status"]["containerStatuses"]] == [0]


async def test_the_sdk_asks_by_the_door_where_the_environment_says_so(
    door: Door, agent: Agent, pass_: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = await mounted(agent, tmp_path)
    assert pass_.token is not None
    (mount.account / "token").write_text(pass_.token)  # the only one that this pod has
    for name, value in mount.environment.items():
        if name.startswith(("KUBERNETES", "VALETKEY")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("VALETKEY_DOOR", f"https://127.0.0.1:{door.port}")
    monkeypatch.setenv("VALETKEY_DOOR_CA", str(door.folder / "ca.crt"))
    line = "shop: get,patch deployments.apps"
    monkeypatch.setenv("VALETKEY_ACCOUNT_DIRECTORY", str(mount.account))
    async with valetkey.access("remediation", "Restart checkout", line) as grant:
        credential = Caller(token=grant.token())
        assert await agent.may(credential)
        _, made = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests/{grant.name}")
        assert made["spec"]["requester"]["via"] == "Door"
    await agent.dead(credential)
    assert (await agent.finished(grant.name))["message"].endswith("Succeeded")
    with pytest.raises(valetkey.Denied) as denied:
        async with valetkey.access("remediation", "Delete checkout", "shop: delete deployments.apps"):
            pass
    assert denied.value.reason == "AccessBeyondPolicy"
    await connections.close()
