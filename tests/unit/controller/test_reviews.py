"""What was granted in an emergency: on the ledger before it is opened, told loudly, and off it when it was reviewed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.properties.life import Process, Untaken, a_world, approval, pod, request
from tests.properties.world import Crash
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.taskgrant import PolicyReference, TaskGrant
from valetkey.kube.api import Json
from valetkey.policy.outcomes import Approved

HOUR = timedelta(hours=1)
REFERENCE = PolicyReference(name="fix", uid="uid", generation=2)
BOT = "system:serviceaccount:shop:bot"


class Case:
    """A policy for emergencies, and a pod that asks; ann may approve for it, and so may a ServiceAccount."""

    def __init__(self) -> None:
        self.world = world = a_world()
        world.change(
            "AgentPolicy", "", "fix", {"spec": {"breakGlass": {"reviewWithin": "2h"}}, "metadata": {"generation": 2}}
        )
        world.approvers = {"fix": {"ann", BOT}}
        self.pod = world.add("Pod", pod("one"))
        self.told: list[tuple[AccessRequest, TaskGrant]] = []
        self.process = self.begun()

    def begun(self) -> Process:
        process = Process(self.world, queue=Untaken(clock=lambda: self.world.now))
        object.__setattr__(process.backends, "tell_reviewers", lambda *told: self.told.append(told))
        return process

    async def ask(self, name: str) -> Json:
        body = self.world.add("AccessRequest", request(name, self.pod, "1m", "valetkey-one-a", self.world.now))
        await self.turn()
        return body

    async def turn(self) -> None:
        await self.process.watch()
        await self.process.work()
        await self.process.reviews.look()

    async def used(self, name: str = "r") -> Json:
        """A use that is over, whose request has gone."""
        body = await self.ask(name)
        assert self.world.live_tokens()
        self.world.remove("AccessRequest", "shop", name)
        await self.turn()
        assert not self.world.live_tokens()
        return body

    def review(self, of: Json, by: str = "ann", **change: Any) -> None:
        body = approval(f"review-{of['metadata']['name']}-{len(self.world.of('AccessApproval'))}", of, by, "Reviewed")
        del body["metadata"]["ownerReferences"]
        body["spec"] |= change
        self.world.add("AccessApproval", body)

    def ledger(self) -> list[str]:
        """The requests that are to be reviewed."""
        (body,) = self.world.of("Ledger") or [{"spec": {}}]
        return [one["name"] for one in body["spec"].get("emergencies", ())]

    def reasons(self, name: str) -> list[str]:
        return [record["reason"] for record in self.world.records if record["request"] == f"shop/{name}"]

    def denial(self, name: str) -> str:
        status = self.world.objects["AccessRequest", "shop", name]["status"]
        reason: str = status["decision"].get("denial", {}).get("reason", "")
        return reason


async def test_a_use_is_on_the_ledger_before_it_is_opened_and_told_with_the_command_that_reviews_it() -> None:
    case = Case()
    body = await case.ask("r")
    assert case.ledger() == ["r"]
    assert "BreakGlassUsed" in case.reasons("r")
    assert [(reason, severity) for _, reason, severity in case.world.events if reason == "BreakGlassUsed"] == [
        ("BreakGlassUsed", "Warning")
    ]
    ((asked, grant),) = case.told
    assert (asked.metadata.name, grant.spec.order.review_by) == ("r", grant.spec.order.opened_at + 2 * HOUR)
    conditions = case.world.objects["AccessRequest", "shop", "r"]["status"]["conditions"]
    (said,) = (c for c in conditions if c["type"] == "Approved")
    assert said["reason"] == "BreakGlassUsed"
    assert f"kubectl valetkey review shop/r --uid {body['metadata']['uid']} --policy fix" in said["message"]


@pytest.mark.parametrize("fuse", range(1, 25))
async def test_nothing_is_opened_that_is_not_on_the_ledger_whenever_it_crashes(fuse: int) -> None:
    case = Case()
    case.world.add("AccessRequest", request("r", case.pod, "1m", "valetkey-one-a", case.world.now))
    await case.process.watch()
    case.world.fuse = fuse
    try:
        await case.process.work()
    except Crash:
        case.world.fuse, case.world.dead = None, False
        case.process = case.begun()
        assert not case.world.of("TaskGrant") or case.ledger() == ["r"]
        await case.process.relist.read_all()
    case.world.fuse = None
    await case.turn()
    assert case.ledger() == ["r"]
    assert case.world.live_tokens()


async def test_what_nobody_reviews_in_time_keeps_the_account_from_using_it_again_though_everything_is_forgotten() -> (
    None
):
    case = Case()
    await case.used()
    case.world.now += 2 * HOUR
    case.process = case.begun()
    await case.process.relist.read_all()
    await case.ask("s")
    assert case.denial("s") == "ReviewOverdue"
    assert case.reasons("r").count("ReviewOverdue") == 1
    await case.turn()
    assert case.reasons("r").count("ReviewOverdue") == 1
    assert not case.world.live_tokens()


async def test_a_use_that_was_put_on_the_ledger_before_a_crash_does_not_stand_in_its_own_way() -> None:
    case = Case()
    for name in ("a", "b", "c"):
        await case.used(name)
    case.world.add("AccessRequest", request("d", case.pod, "1m", "valetkey-one-a", case.world.now))
    await case.process.watch()
    asked = AccessRequest.model_validate(case.world.objects["AccessRequest", "shop", "d"])
    approved = Approved(REFERENCE, "read", HOUR, None, pod_templates=False, backstop=False, review_within=2 * HOUR)
    await case.process.ledgers.read()
    await case.process.ledgers.enter(asked, approved, case.world.now)
    case.process = case.begun()
    await case.process.relist.read_all()
    await case.turn()
    assert case.world.live_tokens()
    assert case.ledger() == ["a", "b", "c", "d"]
    case.world.remove("AccessRequest", "shop", "d")
    await case.turn()
    await case.ask("e")
    assert case.denial("e") == "ReviewOverdue"


async def test_a_review_takes_it_off_the_ledger_with_a_record_though_the_request_is_gone() -> None:
    case = Case()
    used = await case.used()
    case.world.now += 3 * HOUR
    case.review(used)
    await case.turn()
    assert case.ledger() == []
    (record,) = (one for one in case.world.records if one["reason"] == "BreakGlassReviewed")
    assert (record["request"], record["message"]) == ("shop/r", "by ann (review-r-0): not now")
    await case.ask("s")
    assert case.world.live_tokens()
    case.process = case.begun()
    await case.process.relist.read_all()
    await case.turn()
    assert case.ledger() == ["s"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "bob"},
        {"by": BOT},
        {"request": {"name": "another", "uid": "its"}},
        {"policy": "another"},
        {"verdict": "Approve"},
    ],
    ids=str,
)
async def test_what_is_no_review_of_it_by_a_person_who_may_leaves_it_there(wrong: dict[str, Any]) -> None:
    case = Case()
    used = await case.used()
    if "request" in wrong:
        wrong = {"request": {"name": "another", "uid": used["metadata"]["uid"]}}
    case.review(used, **wrong)
    await case.turn()
    assert case.ledger() == ["r"]


async def test_a_review_is_no_approval_and_denies_nothing() -> None:
    case = Case()
    asks = {"breakGlass": None, "approval": {"timeout": "30m"}}
    case.world.change("AgentPolicy", "", "fix", {"spec": asks, "metadata": {"generation": 3}})
    body = await case.ask("r")
    case.review(body)
    await case.turn()
    assert not case.world.of("TaskGrant")
    case.world.add("AccessApproval", approval("yes", body, "ann"))
    await case.turn()
    assert case.world.live_tokens()


async def test_a_ledger_whose_write_is_refused_is_tried_again_and_forgets_no_use() -> None:
    case = Case()
    used = await case.used()
    case.review(used)
    await case.process.watch()
    case.world.faults = [500, 0, 0]
    with pytest.raises(Exception, match="fault"):
        await case.process.reviews.look()
    assert case.ledger() == ["r"]
    await case.turn()
    assert case.ledger() == []
