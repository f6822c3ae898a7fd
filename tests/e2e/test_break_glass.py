"""An emergency: let in at once, told, and reviewed, or the last one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.cluster.api import Json, until
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import OURS, Agent
from tests.e2e.people import command
from tests.e2e.test_approvals import People, people

__all__ = ["people"]

LEDGERS = f"{OURS}/namespaces/valetkey-system/ledgers"


async def to_review(agent: Agent) -> list[Json]:
    """What is to be reviewed of an agent's policy."""
    _, listed = await agent.api.get(LEDGERS)
    uses = (use for body in listed["items"] for use in body["spec"].get("emergencies", ()))
    return [use for use in uses if use["policy"] == agent.policy]


async def test_an_emergency_is_let_in_told_and_reviewed_or_is_the_last(
    agent: Agent, people: People, cluster: Cluster, tmp_path: Path
) -> None:
    path = f"{OURS}/agentpolicies/{agent.policy}"
    assert (await agent.api.patch(path, {"spec": {"breakGlass": {"reviewWithin": "4s"}}}))[0] == 200
    await agent.policy_ready()
    name = await agent.granted()
    approved = await agent.condition(name, "Approved", "True")
    assert approved["reason"] == "BreakGlassUsed"
    (use,) = await to_review(agent)
    assert f"kubectl valetkey review agents/{name} --uid {use['request']}" in approved["message"]
    _, events = await agent.api.get("/api/v1/namespaces/agents/events")
    assert any(
        (event["reason"], event["type"], event["involvedObject"]["name"]) == ("BreakGlassUsed", "Warning", name)
        for event in events["items"]
    )
    # The request goes, and it is to be reviewed all the same.
    await agent.api.delete(f"{OURS}/namespaces/agents/accessrequests/{name}")
    await agent.nothing_left()

    await asyncio.sleep(5)  # nobody has, in time
    again = await agent.ask()
    assert (await agent.finished(again))["reason"] == "RequestDenied"
    assert (await agent.status(again))["decision"]["denial"]["reason"] == "ReviewOverdue"

    ann = command(cluster, tmp_path, str(people.ann.user))
    done: Any = await asyncio.to_thread(
        ann,
        "review",
        f"agents/{name}",
        "--uid",
        use["request"],
        "--policy",
        agent.policy,
        "--reason",
        "all in order",
        "--yes",
    )
    assert done.returncode == 0, done.stderr

    async def reviewed() -> bool:
        return await to_review(agent) == []

    await until(reviewed, "the review to be taken off the ledger")

    name = await agent.granted()
    done = await asyncio.to_thread(ann, "review", f"agents/{name}", "--yes", "--reason", "all in order")
    assert done.returncode == 0, done.stderr
    assert "for an emergency" in done.stdout
    await until(reviewed, "the review of what is still there")
    done = await asyncio.to_thread(ann, "review", f"agents/{name}-gone", "--yes", "--reason", "x")
    assert done.returncode != 0
    assert "is gone: name its --uid and --policy" in done.stderr
