"""People on the way to access: what they approve is delivered, what they take back ends, what they deny is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api, Caller, Json, merged, unique, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import TEST_LABEL, World
from tests.e2e.agent import OURS, Agent
from tests.e2e.people import command

RBAC = "/apis/rbac.authorization.k8s.io/v1"
APPROVALS = f"{OURS}/namespaces/agents/accessapprovals"
USER = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io"}


class People:
    """Persons of this test who may approve for the policy of its agent."""

    def __init__(self, agent: Agent) -> None:
        self.api, self.agent = agent.api, agent
        self.role = f"test-approve-{agent.name}"
        self.ann, self.bob = (Caller(user=f"{name}-{agent.name}") for name in ("ann", "bob"))

    async def begin(self) -> None:
        """Gives them the two rights that it takes."""
        rule = {"apiGroups": ["valetkey.dev"], "resources": ["agentpolicies"], "verbs": ["approve"]}
        rules = [rule | {"resourceNames": [self.agent.policy]}]
        subjects = [USER | {"name": str(person.user)} for person in (self.ann, self.bob)]
        await self.api.made(f"{RBAC}/clusterroles", {"metadata": {"name": self.role}, "rules": rules})
        bindings = (
            ("clusterrolebindings", self.role),
            ("namespaces/agents/rolebindings", "valetkey-approver"),
        )
        for kind, role in bindings:
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
            body = {"metadata": {"name": self.role}, "roleRef": reference, "subjects": subjects}
            await self.api.made(f"{RBAC}/{kind}", body)
        for person in (self.ann, self.bob):
            await self.until_may(person)

    async def until_may(self, person: Caller, *, may: bool = True) -> None:
        """Waits until the API server has read whether a person may approve, and may speak."""
        policy = {"group": "valetkey.dev", "resource": "agentpolicies", "name": self.agent.policy, "verb": "approve"}
        speak = {"group": "valetkey.dev", "resource": "accessapprovals", "namespace": "agents", "verb": "create"}

        async def read() -> bool:
            answers = []
            for attributes in (policy, speak) if may else (policy,):
                spec = {"user": person.user, "groups": ["system:authenticated"], "resourceAttributes": attributes}
                path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
                answers.append((await self.api.made(path, {"spec": spec}))["status"]["allowed"])
            return answers == [may] * len(answers)

        await until(read, f"{person.user} to be known to the API server")

    async def leave(self) -> None:
        """Takes the rights away."""
        for kind in ("clusterrolebindings", "namespaces/agents/rolebindings", "clusterroles"):
            await self.api.delete(f"{RBAC}/{kind}/{self.role}")

    async def say(self, by: Caller, name: str, **change: Any) -> Json:
        """What a person says on a request, by plain `create` with everything filled in."""
        _, asked = await self.api.get(f"{OURS}/namespaces/agents/accessrequests/{name}")
        about = {"name": name, "uid": asked["metadata"]["uid"]}
        owner = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", **about}
        spec = {
            "request": about,
            "policy": self.agent.policy,
            "verdict": "Approve",
            "approver": {"username": by.user, "groups": ["system:authenticated"]},
        }
        metadata = {"name": unique("word"), "labels": {TEST_LABEL: "true"}, "ownerReferences": [owner]}
        kind = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessApproval"}
        return await self.api.made(APPROVALS, merged({**kind, "metadata": metadata, "spec": spec}, change), by=by)


@pytest.fixture
async def people(operated: World, agent: Agent) -> Any:
    people = People(agent)
    await people.begin()
    yield people
    await people.leave()


async def asks(agent: Agent, **approval: Any) -> None:
    """Lets the agent's policy ask people."""
    path = f"{OURS}/agentpolicies/{agent.policy}"
    status, body = await agent.api.patch(path, {"spec": {"approval": {"timeout": "5m"} | approval}})
    assert status == 200, body
    await agent.policy_ready()


async def waiting(agent: Agent) -> str:
    """A request that waits for people."""
    name = await agent.ask()
    approved = await agent.condition(name, "Approved", "Unknown")
    assert approved["reason"] == "AwaitingApproval"
    assert f"kubectl valetkey approve agents/{name}" in approved["message"]
    assert (await agent.status(name))["decision"]["outcome"] == "Pending"
    return name


async def grants(api: Api, name: str) -> bool:
    return (await api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[0] == 200


async def test_what_people_approve_is_delivered_and_what_they_take_back_ends(agent: Agent, people: People) -> None:
    await asks(agent, approvals=2)
    name = await waiting(agent)
    await people.say(people.ann, name)

    async def counted() -> bool:
        conditions = (await agent.status(name))["conditions"]
        return any("1 of 2 have approved" in condition["message"] for condition in conditions)

    await until(counted, "the first approval to be counted")
    assert not await grants(agent.api, name)
    second = await people.say(people.bob, name)
    await agent.condition(name, "Ready", "True")
    approved = await agent.condition(name, "Approved", "True")
    assert approved["reason"] == "PersonApproved"
    assert str(people.ann.user) in approved["message"]
    credential = await agent.credential()
    assert await agent.may(credential)
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}")
    words = [word["username"] for word in grant["spec"]["order"]["approvals"]]
    assert sorted(words) == sorted([str(people.ann.user), str(people.bob.user)])
    status, body = await agent.api.delete(f"{APPROVALS}/{second['metadata']['name']}", by=people.bob)
    assert status == 200, body
    await agent.dead(credential)
    over = await agent.finished(name)
    assert over["reason"] == "PolicyChanged"
    assert second["metadata"]["name"] in over["message"]
    await agent.nothing_left()
    assert await agent.traces(credential) == []


async def test_what_a_person_denies_is_refused_and_the_agent_reads_why(agent: Agent, people: People) -> None:
    await asks(agent)
    name = await waiting(agent)
    await people.say(people.ann, name, spec={"verdict": "Deny", "reason": "not during the freeze"})
    assert (await agent.finished(name))["reason"] == "RequestDenied"
    denial = (await agent.status(name))["decision"]["denial"]
    assert denial["reason"] == "PersonDenied"
    assert denial["message"].endswith("not during the freeze")
    assert str(people.ann.user) in denial["message"]
    assert not await grants(agent.api, name)


async def test_who_has_lost_the_right_has_approved_nothing(agent: Agent, people: People) -> None:
    await asks(agent, approvals=2)
    name = await waiting(agent)
    await people.say(people.ann, name)
    subjects = [USER | {"name": str(people.bob.user)}]
    status, body = await agent.api.patch(f"{RBAC}/clusterrolebindings/{people.role}", {"subjects": subjects})
    assert status == 200, body
    await people.until_may(people.ann, may=False)
    await people.say(people.bob, name)

    async def told() -> bool:
        conditions = (await agent.status(name))["conditions"]
        return any(f"{people.ann.user} may no longer approve" in condition["message"] for condition in conditions)

    await until(told, "it to be said that ann may not")
    assert not await grants(agent.api, name)


async def test_a_guardrail_that_wants_a_person_waits_for_one(agent: Agent, people: People) -> None:
    subject = {"name": "this", "namespace": "agents", "podSelector": {"matchLabels": {"agent": agent.name}}}
    rule = {"name": "person", "message": "m", "expression": '!approvals.exists(a, a.verdict == "Approve")'}
    guard = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AgentPolicy",
        "metadata": {"name": f"guard-{agent.name}", "labels": {TEST_LABEL: "true"}},
        "spec": {"effect": "Deny", "subjects": [subject], "validations": [rule]},
    }
    await agent.api.made(f"{OURS}/agentpolicies", guard)

    async def known() -> bool:
        _, body = await agent.api.get(f"{OURS}/agentpolicies/guard-{agent.name}")
        return bool(body.get("status", {}).get("conditions"))

    try:
        await until(known, "the guardrail to be known to the operator")
        refused = await agent.ask()
        assert (await agent.finished(refused))["reason"] == "RequestDenied"
        await asks(agent)
        name = await waiting(agent)
        await people.say(people.ann, name)
        await agent.condition(name, "Ready", "True")
        credential = await agent.credential()
        await agent.report(name)
        await agent.dead(credential)
    finally:
        await agent.api.delete(f"{OURS}/agentpolicies/guard-{agent.name}")


async def test_people_approve_and_deny_by_the_command(
    agent: Agent, people: People, cluster: Cluster, tmp_path: Path
) -> None:
    await asks(agent)
    ann = command(cluster, tmp_path, str(people.ann.user))
    name = await waiting(agent)
    waits = await asyncio.to_thread(ann, "get", f"agents/{name}")
    assert (waits.returncode, waits.stdout.splitlines()[0]) == (4, f"agents/{name}: AwaitingApproval")
    done = await asyncio.to_thread(ann, "approve", f"agents/{name}", "--reason", "seen it", "--yes")
    assert done.returncode == 0, done.stderr
    await agent.condition(name, "Ready", "True")
    again = await asyncio.to_thread(ann, "approve", f"agents/{name}", "--yes")
    assert (again.returncode, again.stdout) == (1, "")
    assert "waits for nobody" in again.stderr
    await agent.report(name)
    await agent.finished(name)
    second = await waiting(agent)
    done = await asyncio.to_thread(ann, "deny", f"agents/{second}", "--reason", "not tonight")
    assert done.returncode == 0, done.stderr
    assert (await agent.finished(second))["reason"] == "RequestDenied"
    nobody = await asyncio.to_thread(command(cluster, tmp_path, "nobody"), "approve", f"agents/{second}", "--yes")
    assert nobody.returncode == 1
    assert "forbidden" in nobody.stderr


async def test_a_task_that_is_approved_whole_asks_nobody_again_until_the_word_goes(
    agent: Agent, people: People, cluster: Cluster, tmp_path: Path
) -> None:
    await asks(agent, covers="Task")
    ann = command(cluster, tmp_path, str(people.ann.user))
    first = await waiting(agent)
    assert (await agent.status(first))["decision"]["policyGeneration"] >= 1
    done = await asyncio.to_thread(ann, "approve", f"agents/{first}", "--for-task", "2h", "--yes")
    assert done.returncode == 0, done.stderr
    await agent.condition(first, "Ready", "True")
    await agent.report(first)
    await agent.finished(first)

    second = await agent.granted()
    credential = await agent.credential()
    assert await agent.may(credential)
    _, grant = await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{second}")
    (word,) = grant["spec"]["order"]["approvals"]
    assert (word["username"], word["request"]) == (str(people.ann.user), first)

    status, body = await agent.api.delete(f"{APPROVALS}/{word['name']}", by=people.ann)
    assert status == 200, body
    await agent.dead(credential)
    assert (await agent.finished(second))["reason"] == "PolicyChanged"
    await waiting(agent)
