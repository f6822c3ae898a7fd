"""Bad input, and what it gets: a word for why, a sentence that says what to change, and nothing half-made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster.api import Json, unique
from tests.cluster.world import pod
from tests.e2e.agent import OURS, Agent
from tests.e2e.gap import without

GET = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}


def scope(**rule: Any) -> Json:
    """A request's spec for one rule in shop."""
    return {"access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}}}


REFUSED: list[tuple[str, Json, str]] = [
    ("an unknown purpose", {"task": {"purpose": "holiday"}}, "PurposeUnknown"),
    ("a parameter that nobody knows", {"task": {"parameters": {"colour": "red"}}}, "ParametersInvalid"),
    ("a wildcard verb", scope(apiGroups=["apps"], resources=["deployments"], verbs=["*"]), "AccessBeyondPolicy"),
    ("a wildcard resource", scope(apiGroups=["apps"], resources=["*"], verbs=["get"]), "AccessBeyondPolicy"),
    ("a wildcard group", scope(apiGroups=["*"], resources=["deployments"], verbs=["get"]), "AccessBeyondPolicy"),
    ("a subresource", scope(apiGroups=["apps"], resources=["deployments/scale"], verbs=["get"]), "AccessBeyondPolicy"),
    (
        "another namespace",
        {"access": {"kubernetes": {"scopes": [{"namespace": "elsewhere", "rules": [GET]}]}}},
        "AccessBeyondPolicy",
    ),
    ("cluster scope", {"access": {"kubernetes": {"scopes": [{"rules": [GET]}]}}}, "AccessBeyondPolicy"),
    (
        "a path",
        {"access": {"kubernetes": {"scopes": [{"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}]}}},
        "AccessBeyondPolicy",
    ),
    (
        "a cluster role",
        {"access": {"kubernetes": {"scopes": [{"namespace": "shop", "clusterRole": "admin"}]}}},
        "AccessBeyondPolicy",
    ),
    ("more time than there is", {"ttl": "16m"}, "TTLTooLong"),
]


@pytest.mark.parametrize(("what", "spec", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_policy_refuses(agent: Agent, what: str, spec: Json, reason: str) -> None:
    name = await agent.ask(spec=spec)
    over = await agent.finished(name)
    assert over["reason"] == "RequestDenied", what
    denial = (await agent.status(name))["decision"]["denial"]
    assert denial["reason"] == reason
    assert len(denial["message"]) > 20
    assert (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[0] == 404


MALFORMED: list[tuple[str, Json]] = [
    ("no time at all", {"ttl": "0s"}),
    ("less than no time", {"ttl": "-5m"}),
    ("time in words", {"ttl": "5 minutes"}),
    ("no member of the union", {"access": {"kubernetes": None}}),
    ("an empty list of verbs", scope(apiGroups=["apps"], resources=["deployments"], verbs=[])),
    ("an empty list of names", scope(apiGroups=["apps"], resources=["deployments"], resourceNames=[], verbs=["get"])),
    ("control characters in the objective", {"task": {"objective": "mend\x1b[2Jit"}}),
    ("a Secret without our prefix", {"delivery": {"secret": {"name": "database-password"}}}),
    ("17 KiB of parameters", {"task": {"parameters": {"a": "x" * 17_000}}}),
    ("17 KiB of parameters in a list", {"task": {"parameters": {"a": ["x" * 100] * 170}}}),
    ("1 MiB of parameters", {"task": {"parameters": {"a": "x" * 1_048_576}}}),
    ("3 MiB of parameters", {"task": {"parameters": {"a": "x" * 3_200_000}}}),
    ("an object as parameter", {"task": {"parameters": {"a": {"b": "c"}}}}),
    ("lists of lists as parameter", {"task": {"parameters": {"a": [["b"]]}}}),
    ("nothing as parameter", {"task": {"parameters": {"a": [None]}}}),
    ("an objective that is too long", {"task": {"objective": "x" * 1025}}),
]


@pytest.mark.parametrize(("what", "spec"), MALFORMED, ids=[row[0] for row in MALFORMED])
async def test_admission_refuses(agent: Agent, what: str, spec: Json) -> None:
    status, body = await agent.api.post(
        f"{OURS}/namespaces/agents/accessrequests", agent.request(spec=spec), by=agent.token
    )
    assert status in (400, 403, 413, 422), (what, body)
    assert body["message"]


async def test_a_namespace_that_does_not_exist_fails_the_issue_and_leaves_nothing(agent: Agent) -> None:
    await agent.allow_namespace("nowhere")
    name = await agent.ask(spec={"access": {"kubernetes": {"scopes": [{"namespace": "nowhere", "rules": [GET]}]}}})
    over = await agent.finished(name)
    assert over["reason"] == "IssueFailed"
    assert "nowhere" in over["message"]
    await agent.nothing_left()
    assert (await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}"))[0] == 404


async def test_a_namespace_that_is_being_deleted_fails_the_issue_and_leaves_nothing(agent: Agent) -> None:
    going = "/api/v1/namespaces/going"
    await agent.api.ensured("/api/v1/namespaces", {"metadata": {"name": "going"}})
    held = {"metadata": {"name": "held", "finalizers": ["tests.valetkey.dev/held"]}}
    await agent.api.ensured(f"{going}/configmaps", held)
    await agent.api.delete(going)
    try:
        await agent.allow_namespace("going")
        name = await agent.ask(spec={"access": {"kubernetes": {"scopes": [{"namespace": "going", "rules": [GET]}]}}})
        over = await agent.finished(name)
        assert over["reason"] == "IssueFailed"
        assert "going" in over["message"]
        await agent.nothing_left()
        assert (await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}"))[0] == 404
    finally:
        await agent.api.patch(f"{going}/configmaps/held", {"metadata": {"finalizers": None}})
        await agent.api.gone(going)


async def test_a_secret_name_that_is_taken_is_left_as_it_is(agent: Agent) -> None:
    theirs = {"metadata": {"name": agent.secret}, "data": {"theirs": "eA=="}}
    async with without(agent.api, "operator-writes"):  # it was there before the chart
        await agent.api.made("/api/v1/namespaces/agents/secrets", theirs)
    name = await agent.ask()
    over = await agent.finished(name)
    assert over["reason"] == "DeliveryFailed"
    assert agent.secret in over["message"]
    await agent.nothing_left()
    _, left = await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}")
    assert left["data"] == {"theirs": "eA=="}
    await agent.api.gone(f"/api/v1/namespaces/agents/secrets/{agent.secret}")


async def test_a_secret_that_the_pod_does_not_mount_is_refused(agent: Agent) -> None:
    name = await agent.ask(spec={"delivery": {"secret": {"name": "valetkey-of-somebody-else"}}})
    over = await agent.finished(name)
    assert over["reason"] == "DeliveryFailed"
    assert "VolumeMissing" in over["message"]


async def test_a_secret_that_two_pods_mount_at_once_is_refused(agent: Agent) -> None:
    volumes = [{"name": "valetkey", "secret": {"secretName": agent.secret, "optional": True}}]
    await agent.world.pod("agents", f"{agent.name}-twin", volumes=volumes)
    try:
        name = await agent.ask()
        over = await agent.finished(name)
        assert over["reason"] == "DeliveryFailed"
        assert "DeliveryShared" in over["message"]
    finally:
        await agent.api.gone(f"/api/v1/namespaces/agents/pods/{agent.name}-twin")


async def test_a_pod_without_the_label_is_told_to_carry_it(agent: Agent) -> None:
    await agent.start(labels={}, volumes=[])
    name = await agent.ask()
    over = await agent.finished(name)
    assert over["reason"] == "RequestInvalid"
    assert 'valetkey.dev/agent: "true"' in over["message"]


async def test_a_pod_that_has_finished_is_given_nothing(agent: Agent) -> None:
    path = f"/api/v1/namespaces/agents/pods/{agent.name}"
    await agent.api.patch(f"{path}/status", {"status": {"phase": "Failed"}})
    name = await agent.ask()
    over = await agent.finished(name)
    assert over["reason"] == "RequestInvalid"
    assert "finished" in over["message"]


async def test_a_pod_that_is_going_is_given_nothing(agent: Agent) -> None:
    path = f"/api/v1/namespaces/agents/pods/{agent.name}"
    await agent.api.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    await agent.api.delete(path, {"gracePeriodSeconds": 30})
    try:
        name = await agent.ask()
        assert (await agent.finished(name))["reason"] == "RequestInvalid"
    finally:
        await agent.api.patch(path, {"metadata": {"finalizers": None}})


EXPRESSIONS = [
    ("does not compile", "identity.namespac ==", False),
    ("returns a string", "identity.podName", False),
    ("throws", 'claims.task.parameters["nothing"] == 1', True),
    ("loops", "[" + ",".join(["1"] * 300) + "].all(a, [" + ",".join(["1"] * 300) + "].all(b, a == b))", False),
]


@pytest.mark.parametrize(("what", "expression", "compiles"), EXPRESSIONS, ids=[row[0] for row in EXPRESSIONS])
async def test_an_expression_that_fails_grants_nothing(
    agent: Agent, what: str, expression: str, compiles: bool
) -> None:
    change = {"spec": {"validations": [{"name": "rule", "expression": expression, "message": "no"}]}}
    status, body = await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", change)
    assert status == 200, body
    await agent.policy_ready()
    _, policy = await agent.api.get(f"{OURS}/agentpolicies/{agent.policy}")
    (ready,) = policy["status"]["conditions"]
    assert ready["status"] == ("True" if compiles else "False"), (what, ready)
    name = await agent.ask()
    await asyncio.sleep(1)
    conditions = {c["type"]: c for c in (await agent.status(name))["conditions"]}
    assert conditions["Approved"]["status"] in ("False", "Unknown"), conditions
    assert expression not in str(await agent.status(name)), "a denial never shows the text of an expression"
    assert (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[0] == 404


async def test_what_waits_too_long_expires(agent: Agent) -> None:
    change = {
        "spec": {"validations": [{"name": "r", "expression": 'claims.task.parameters["no"] == 1', "message": "no"}]}
    }
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", change)
    await agent.policy_ready()
    name = await agent.ask()
    assert (await agent.finished(name, seconds=60))["reason"] == "RequestExpired"


async def test_a_watch_is_refused_by_a_policy_that_does_not_accept_its_risk(agent: Agent) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "watch"]}]
    scopes = [{"namespaces": ["shop"], "rules": rules}]
    await agent.api.patch(
        f"{OURS}/agentpolicies/{agent.policy}",
        {"spec": {"access": [{"name": "watch", "kubernetes": {"scopes": scopes}}]}},
    )
    await agent.policy_ready()
    asked = {"access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": rules}]}}}
    name = await agent.ask(spec=asked)
    await agent.finished(name)
    assert (await agent.status(name))["decision"]["denial"]["reason"] == "RiskNotAllowed"


async def test_a_request_for_another_pod_that_is_owned_by_the_one_that_asks_is_refused_at_admission(
    agent: Agent,
) -> None:
    other = await agent.api.made("/api/v1/namespaces/agents/pods", pod(unique("other")))
    meta = other["metadata"]
    body = agent.request(spec={"subject": {"podName": meta["name"], "podUID": meta["uid"]}})
    status, answer = await agent.api.post(f"{OURS}/namespaces/agents/accessrequests", body, by=agent.token)
    assert status == 403, answer
    await agent.api.gone(f"/api/v1/namespaces/agents/pods/{meta['name']}")
