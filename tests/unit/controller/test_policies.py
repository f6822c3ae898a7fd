"""What a policy's condition Ready says, and when it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.properties.life import policy
from tests.properties.world import World
from valetkey.controller.policies import PolicyStatuses
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kube.api import Json
from valetkey.policy.compile import compile_policy

SELECTS_NOTHING = "it selects no agent namespace that this operator serves: look at spec.subjects"
BY_LABELS = [{"name": "s", "namespaceSelector": {"matchLabels": {"team": "shop"}}}]


class Counting(World):
    """A world that counts how often a status is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    async def patch(self, path: str, body: Json) -> Json:
        self.writes += 1
        return await super().patch(path, body)


class Shown:
    """One policy in a world, and the one who writes its status."""

    def __init__(self, world: Counting, statuses: PolicyStatuses) -> None:
        self.world, self.statuses = world, statuses

    def put(self, **spec: object) -> None:
        body = policy(15)
        body["spec"] |= spec
        self.world.add("AgentPolicy", body)

    def change(self, generation: int, **spec: object) -> None:
        self.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": generation}, "spec": spec})

    async def ready(self, **namespaces: dict[str, str]) -> Json:
        """The condition after the policy was shown as it is now, beside these namespaces."""
        (body,) = self.world.of("AgentPolicy")
        self.statuses.show([compile_policy(AgentPolicy.model_validate(body))], namespaces)
        for _ in range(10):
            await asyncio.sleep(0)
        ((ready,),) = (body["status"]["conditions"] for body in self.world.of("AgentPolicy"))
        return dict(ready)


@pytest.fixture
async def shown() -> AsyncIterator[Shown]:
    world = Counting()
    statuses = PolicyStatuses(world, served=("shop",), clock=lambda: world.now)
    running = asyncio.create_task(statuses.run())
    yield Shown(world, statuses)
    running.cancel()


async def test_what_is_said_already_is_not_written_again(shown: Shown) -> None:
    shown.put()
    ready = await shown.ready(shop={})
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", "PolicyCompiled", "it is in use")
    assert await shown.ready(shop={"team": "other"}) == ready
    assert shown.world.writes == 1
    shown.change(2, contact="#other")
    assert await shown.ready(shop={}) == ready | {"observedGeneration": 2}


async def test_a_policy_that_does_not_compile_says_where(shown: Shown) -> None:
    rule = {"name": "rule", "expression": "access.kubernets.scopes.size() == 1", "message": "m"}
    shown.put(validations=[rule])
    ready = await shown.ready(shop={})
    assert (ready["status"], ready["reason"]) == ("False", "ExpressionInvalid")
    assert ready["message"] == (
        "spec.validations[0].expression (rule): line 1, column 7: access has no field kubernets; it has kubernetes"
    )


async def test_selectors_that_match_nothing_are_a_warning_that_comes_and_goes_with_the_labels(shown: Shown) -> None:
    shown.put(subjects=BY_LABELS)
    before = await shown.ready(shop={}, other={"team": "shop"})
    assert (before["status"], before["message"]) == ("True", f"it is in use; {SELECTS_NOTHING}")
    shown.world.now += timedelta(minutes=1)
    assert await shown.ready(shop={"team": "shop"}) == before | {"message": "it is in use"}
    assert await shown.ready(shop={}) == before


async def test_the_mode_and_the_end_of_a_policy_are_told(shown: Shown) -> None:
    shown.put(mode="Audit", until="2026-12-31T19:00:00+01:00")
    message = "it is in Audit mode and takes part in no decision, until 2026-12-31T18:00:00Z"
    assert (await shown.ready(shop={}))["message"] == message


async def test_another_policy_of_the_same_name_is_told_anew(shown: Shown) -> None:
    shown.put()
    before = await shown.ready(shop={})
    shown.world.remove("AgentPolicy", "", "fix")
    shown.world.now += timedelta(minutes=1)
    shown.put()
    after = await shown.ready(shop={})
    assert after["lastTransitionTime"] != before["lastTransitionTime"]
