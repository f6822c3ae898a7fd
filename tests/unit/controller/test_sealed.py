"""Sealed delivery, step by step: no Secret, each credential under the next sequence, nothing left at the end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.properties.life import Process, a_world, pod, request
from tests.properties.world import World, opened
from tests.unit.controller.test_trust import finished, reasons, turn
from valetkey.kube.api import ApiError, Json
from valetkey.reasons import Reason


def begun(*requests: str, world: World | None = None) -> tuple[World, Process]:
    """A pod that has asked for sealed delivery."""
    world = a_world(world)
    owner = world.add("Pod", pod("one"))
    for name in requests:
        world.add("AccessRequest", request(name, owner, "15m", "", world.now))
    return world, Process(world)


def asked(world: World, name: str = "r") -> Json:
    body: Json = next(body for body in world.of("AccessRequest") if body["metadata"]["name"] == name)
    return body


async def test_it_is_opened_by_its_key_and_no_secret_is_made_nor_a_pod_touched() -> None:
    world, process = begun("r")
    before = world.objects["Pod", "shop", "one"]["metadata"]["resourceVersion"]
    await turn(process)
    files = opened(asked(world))
    assert files["token"] in world.live_tokens()
    assert not world.of("Secret")
    assert world.objects["Pod", "shop", "one"]["metadata"]["resourceVersion"] == before
    (grant,) = world.of("TaskGrant")
    assert grant["spec"]["delivery"] == asked(world)["spec"]["delivery"]
    assert {made["kind"] for made in grant["status"]["made"]} == {"ServiceAccount", "Role", "RoleBinding"}


async def test_a_pod_holds_several_at_once_and_needs_no_volume() -> None:
    world, process = begun("r", "s")
    world.change("Pod", "shop", "one", {"spec": {"volumes": []}})
    await turn(process)
    assert len({opened(asked(world, name))["token"] for name in ("r", "s")}) == 2


async def test_a_renewal_is_sealed_again_under_the_next_sequence() -> None:
    world, process = begun("r")
    await turn(process)
    first = opened(asked(world))
    world.now += timedelta(minutes=7)
    await turn(process)
    assert asked(world)["status"]["delivery"]["sealed"]["sequence"] == 2
    assert opened(asked(world))["token"] != first["token"]


async def test_at_its_end_nothing_is_left_to_open() -> None:
    world, process = begun("r")
    await turn(process)
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await turn(process)
    assert finished(world, "r")["reason"] == "TaskReleased"
    assert "delivery" not in asked(world)["status"]
    assert not world.live_tokens()


class Lost(World):
    """A world in which the answer to a sealed status is lost, though it was written."""

    loses = 1
    """Which of them."""

    async def patch(self, path: str, body: Json) -> Json:
        answer = await super().patch(path, body)
        if "sealed" not in (body.get("status", {}).get("delivery") or {}):
            return answer
        self.loses -= 1
        if self.loses == 0:
            raise ApiError(500, "InternalError", "the answer is lost")
        return answer


async def test_where_the_answer_was_lost_the_next_credential_comes_under_a_higher_sequence() -> None:
    world, process = begun("r", world=Lost())
    await turn(process, 2)
    assert asked(world)["status"]["delivery"]["sealed"]["sequence"] == 2
    assert opened(asked(world))["token"] in world.live_tokens()
    assert [token for _, token in world.placed][-1] == opened(asked(world))["token"]


async def test_a_renewal_whose_answer_was_lost_is_not_written_under_the_same_sequence_again() -> None:
    world, process = begun("r", world=Lost())
    assert isinstance(world, Lost)
    world.loses = 2
    await turn(process)
    world.now += timedelta(minutes=7)
    await process.surroundings.refresh()
    await process.work()
    await process.work()  # and no watch has told of what was written
    assert asked(world)["status"]["delivery"]["sealed"]["sequence"] == 3
    assert [token for _, token in world.placed][-1] == opened(asked(world))["token"]


class Busy(World):
    """A world in which the agent changes its request just before its credential is written, each time."""

    changes = 0

    async def patch(self, path: str, body: Json) -> Json:
        if "sealed" in (body.get("status", {}).get("delivery") or {}):
            self.changes += 1
            self.change("AccessRequest", "shop", "r", {"metadata": {"annotations": {"a": str(self.changes)}}})
        return await super().patch(path, body)


async def test_a_request_that_changes_all_the_while_is_answered_once_and_no_credential_is_wasted() -> None:
    world, process = begun("r", world=Busy())
    await turn(process, 3)
    assert opened(asked(world))["token"] in world.live_tokens()
    assert len(world.tokens) == 1
    assert reasons(world, "r") == ["PolicyMatched", "IssuePending", "CredentialIssued", "CredentialDelivered"]


async def test_it_is_said_to_be_delivered_when_it_is() -> None:
    world, process = begun("r", world=Lost())
    await turn(process)
    assert "CredentialDelivered" not in reasons(world, "r")
    await turn(process)
    assert reasons(world, "r").count("CredentialDelivered") == 1


async def test_a_grant_that_goes_to_another_key_than_its_request_names_ends() -> None:
    world, process = begun("r")
    await turn(process)
    other = {"sealed": {"publicKey": "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw="}}
    world.change("TaskGrant", "shop", "r", {"spec": {"delivery": other}})
    await turn(process)
    assert finished(world, "r")["reason"] == "IssueFailed"
    assert not world.live_tokens()


async def test_a_key_that_seals_for_everybody_is_refused_before_anything_is_made() -> None:
    world, process = begun("r")
    world.change("AccessRequest", "shop", "r", {"spec": {"delivery": {"sealed": {"publicKey": "A" * 43 + "="}}}})
    await turn(process)
    assert Reason.PUBLIC_KEY_INVALID in finished(world, "r")["message"]
    assert not world.of("TaskGrant")


@pytest.mark.parametrize("ways", [["Secret"], ["Sealed"], None], ids=str)
async def test_a_policy_says_which_ways_there_are(ways: list[str] | None) -> None:
    world, process = begun("r")
    world.change("AgentPolicy", "", "fix", {"spec": {"delivery": ways}, "metadata": {"generation": 2}})
    await turn(process)
    if ways == ["Secret"]:
        assert finished(world, "r")["reason"] == "RequestDenied"
        assert asked(world)["status"]["decision"]["denial"]["allowed"] == "delivery: {secret: {}}"
    else:
        assert opened(asked(world))["token"] in world.live_tokens()
