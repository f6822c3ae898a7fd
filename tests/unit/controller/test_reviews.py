"""What was granted in an emergency: on the ledger before it is opened, told loudly, and off it when it was reviewed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.properties.life import Process, Untaken, a_world, approval, pod, policy, request
from tests.properties.world import Crash, World
from tests.unit.controller.test_metrics import watched
from valetkey.audit.record import Log
from valetkey.errors import UnavailableError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.ledger import MOST_OPENED
from valetkey.kinds.taskgrant import PolicyReference, TaskGrant
from valetkey.kube.api import ApiError, Json
from valetkey.kube.clock import Clock
from valetkey.policy.outcomes import Approved
from valetkey.reasons import Reason

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
    await case.turn()
    assert case.reasons("r").count("BreakGlassUnreviewed") == 1
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
    await case.process.ledgers.enter(asked, "fixer", approved, case.world.now)
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


class Fails:
    """A ledger's write, refused in one namespace for as long as it is told."""

    def __init__(self, case: Case) -> None:
        self.on, self.ledgers = True, case.process.ledgers
        self.send = self.ledgers._send
        self.ledgers._send = self  # type: ignore[method-assign,assignment]

    async def __call__(self, namespace: str, *more: Any) -> Json:
        if self.on and namespace == "shop":
            raise ApiError(413, "TooLarge", "no")
        return await self.send(namespace, *more)


async def test_a_ledger_that_cannot_be_written_is_tried_again_and_holds_up_no_other_and_fills_no_log() -> None:
    case = Case()
    used = await case.used()
    case.world.add("Namespace", {"metadata": {"name": "zz", "namespace": ""}})
    elsewhere = {"metadata": {"name": "z", "uid": "z-uid"}}
    use = {"request": "z-uid", "name": "z", "policy": "fix", "serviceAccount": "fixer"}
    times = {"at": "2026-01-01T00:01:00Z", "reviewBy": "2026-01-01T02:01:00Z"}
    body = {"spec": {"namespace": "zz", "opened": [], "emergencies": [use | times]}}
    case.world.add("Ledger", {"metadata": {"name": "zz", "namespace": "valetkey-system"}, **body})
    case.world.now += HOUR
    case.process = case.begun()
    await case.process.relist.read_all()
    case.review(used)
    said = approval("zz-review", elsewhere, "ann", "Reviewed")
    said["metadata"] = {"name": "zz-review", "namespace": "zz"}
    case.process.intake.approval(case.world.add("AccessApproval", said))
    fails = Fails(case)
    await case.process.watch()
    for _ in range(3):
        await case.process.reviews.look()
    assert [one.name for _, one in case.process.ledgers.emergencies()] == ["r"]
    assert case.reasons("r").count("BreakGlassReviewed") == 1
    fails.on = False
    await case.process.reviews.look()
    assert case.process.ledgers.emergencies() == []
    assert case.reasons("r").count("BreakGlassReviewed") == 1


async def test_how_many_uses_are_to_be_reviewed_and_should_have_been_is_a_figure(tmp_path: Path) -> None:
    case = Case()
    log = Log(tmp_path, writer="w", cluster="", clock=Clock())
    registry = watched(case.process, log).registry

    def shown() -> tuple[float | None, float | None]:
        name = "valetkey_break_glass_unreviewed"
        return registry.get_sample_value(name, {"state": "Due"}), registry.get_sample_value(name, {"state": "Overdue"})

    assert shown() == (0, 0)
    await case.used()
    assert shown() == (1, 0)
    case.world.now += 3 * HOUR
    assert shown() == (0, 1)


async def test_a_review_that_is_older_than_the_use_is_none() -> None:
    case = Case()
    body = case.world.add("AccessRequest", request("r", case.pod, "1m", "valetkey-one-a", case.world.now))
    case.review(body)
    case.world.now += timedelta(seconds=5)
    await case.turn()
    assert case.world.live_tokens()
    assert case.ledger() == ["r"]
    case.world.now += timedelta(seconds=5)
    case.review(body)
    await case.turn()
    assert case.ledger() == []


async def test_many_words_of_others_hide_no_review() -> None:
    case = Case()
    used = await case.used()
    case.world.now += HOUR
    case.world.approvers["other"] = {"mallory"}
    for number in range(70):
        case.review(used, by="mallory" if number % 2 else f"former-{number}", policy="other" if number % 2 else "fix")
    case.review(used)
    case.review(used, by="mallory", policy="other")
    await case.turn()
    assert case.ledger() == []


async def test_of_a_namespace_that_is_gone_nothing_is_to_be_reviewed() -> None:
    case = Case()
    await case.used()
    case.world.objects.pop(("Namespace", "", "shop"))
    await case.process.watch()
    await case.process.reviews.look()
    assert case.process.ledgers.emergencies() == []
    assert case.reasons("r").count("BreakGlassForgotten") == 1


async def test_an_emergency_is_told_though_the_answer_to_its_grant_was_lost() -> None:
    class Lossy(World):
        async def create(self, path: str, body: Json) -> Json:
            made = await super().create(path, body)
            if path.endswith("/taskgrants"):
                raise ApiError(504, "Timeout", "lost")
            return made

    case = Case()
    case.world.__class__ = Lossy
    case.world.add("AccessRequest", request("r", case.pod, "1m", "valetkey-one-a", case.world.now))
    await case.turn()
    await case.turn()
    assert case.world.live_tokens()
    assert len(case.told) == 1
    assert "BreakGlassUsed" in [reason for _, reason, _ in case.world.events]


async def test_what_another_policy_grants_after_all_is_on_the_ledger_as_that_ones() -> None:
    class Full(World):
        fails = 1

        async def write(self, reason: str, **fields: Any) -> None:
            if reason == "BreakGlassUsed" and self.fails:
                self.fails -= 1
                raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "not on disk")
            await super().write(reason, **fields)

    case = Case()
    case.world.__class__ = Full
    case.world.add("AccessRequest", request("r", case.pod, "1m", "valetkey-one-a", case.world.now))
    await case.process.watch()
    await case.process.work()
    assert case.ledger() == ["r"]
    another = policy(15, breakGlass={"reviewWithin": "1h"}) | {"metadata": {"name": "glass2", "namespace": ""}}
    case.world.add("AgentPolicy", another)
    case.world.remove("AgentPolicy", "", "fix")
    await case.turn()
    assert case.world.live_tokens()
    (ledger,) = case.world.of("Ledger")
    (use,) = ledger["spec"]["emergencies"]
    (grant,) = case.world.of("TaskGrant")
    assert (use["policy"], use["reviewBy"]) == ("glass2", grant["spec"]["order"]["reviewBy"])


async def test_a_slow_ledger_keeps_nobody_out_in_an_emergency_and_is_written_once() -> None:
    class Slow(World):
        writes = 0

        async def create(self, path: str, body: Json) -> Json:
            if "/ledgers" in path:
                self.writes += 1
                self.now += timedelta(seconds=2)
            return await super().create(path, body)

        async def replace(self, path: str, body: Json) -> Json:
            if "/ledgers" in path:
                self.writes += 1
                self.now += timedelta(seconds=2)
            return await super().replace(path, body)

    case = Case()
    case.world.__class__ = Slow
    await case.ask("r")
    assert case.world.live_tokens()
    assert case.world.writes == 1  # type: ignore[attr-defined]


async def test_a_full_ledger_of_limits_keeps_nobody_out_in_an_emergency() -> None:
    case = Case()
    opened = [
        {"request": f"uid-{number}", "policy": "busy", "serviceAccount": "s", "at": "2026-01-01T00:01:00Z"}
        for number in range(MOST_OPENED)
    ]
    spec = {"namespace": "shop", "opened": opened}
    case.world.add("Ledger", {"metadata": {"name": "l", "namespace": "valetkey-system"}, "spec": spec})
    await case.ask("r")
    assert case.world.live_tokens()
    assert case.ledger() == ["r"]
