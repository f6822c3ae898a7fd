"""A person's word on a request: what it opens, what it ends, and what comes of it at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tests.properties.life import GUARD, Process, Untaken, approval, pod, policy, request
from tests.properties.world import World
from valetkey.controller.queue import Key
from valetkey.kube.api import ApiError, Json

ASKS: Json = {"approval": {"timeout": "30m"}}
FIXER = "system:serviceaccount:shop:fixer"
UNSPOKEN = {"name": "person", "expression": '!approvals.exists(a, a.verdict == "Approve")', "message": "m"}
MINUTE = timedelta(minutes=1)


class Case:
    """One request of the pod `one`, whose policy asks for people; ann, bob and kim may approve."""

    def __init__(self, **spec: Any) -> None:
        self.world = world = World()
        world.add("ValidatingAdmissionPolicy", {**GUARD})
        world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
        world.add("AgentPolicy", policy(15, **(spec or ASKS)))
        world.approvers = {"fix": {"ann", "bob", "kim", FIXER}}
        world.now += MINUTE
        self.pod = world.add("Pod", pod("one"))
        self.asked = self.ask()
        self.process = Process(world)

    def ask(self, name: str = "r") -> Json:
        return self.world.add("AccessRequest", request(name, self.pod, "15m", "valetkey-one-a", self.world.now))

    def say(self, username: str, name: str = "yes", **said: Any) -> Json:
        return self.world.add("AccessApproval", approval(name, said.pop("asked", self.asked), username, **said))

    def take_back(self, name: str = "yes") -> None:
        self.world.remove("AccessApproval", "shop", name)

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await self.process.watch()
            await self.process.work()

    async def granted(self) -> Case:
        """With ann's word, and her access delivered."""
        await self.turn()
        self.say("ann")
        await self.turn()
        assert self.access
        return self

    @property
    def access(self) -> bool:
        """Whether a token works."""
        return bool(self.world.live_tokens())

    @property
    def status(self) -> Json:
        body: Json = self.world.objects["AccessRequest", "shop", "r"].get("status", {})
        return body

    @property
    def version(self) -> str:
        """Of the request: another one wherever it was written again."""
        version: str = self.world.objects["AccessRequest", "shop", "r"]["metadata"]["resourceVersion"]
        return version

    def shown(self, kind: str) -> tuple[str, str]:
        """Reason and message of a condition of the request."""
        return next((c["reason"], c["message"]) for c in self.status["conditions"] if c["type"] == kind)

    def records(self, reason: str) -> list[Json]:
        return [record for record in self.world.records if record["reason"] == reason]


# -- before ----------------------------------------------------------------------------------------------------------


async def test_a_request_that_people_are_asked_about_says_whom_until_when_and_what_they_do() -> None:
    case = Case()
    await case.turn()
    assert case.world.of("TaskGrant") == []
    reason, message = case.shown("Approved")
    assert reason == "AwaitingApproval"
    assert message == case.shown("Ready")[1]
    assert message == (
        "policy fix waits for people until 2026-01-01T00:31:00Z: who may approve for it runs `kubectl valetkey "
        "approve shop/r`, or deny, or creates an AccessApproval as the README shows; 0 of 1 have approved"
    )
    assert case.shown("Finished")[0] == "TaskInProgress"
    decision = case.status["decision"]
    assert (decision["outcome"], decision["policy"]) == ("Pending", "fix")
    (record,) = case.records("AwaitingApproval")
    assert (record["decision"], record["policy"], record["message"]) == (decision["id"], "fix", message)
    assert orjson.loads(orjson.dumps(record["facts"]))["approvals"] == []
    assert [(reason, severity) for _, reason, severity in case.world.events] == [("AwaitingApproval", "Normal")]


async def test_it_says_so_once_and_again_only_when_there_is_something_else_to_say() -> None:
    case = Case(approval={"approvals": 2})
    await case.turn()
    version = case.version
    await case.turn(3)
    case.process = Process(case.world)
    await case.process.relist.read_all()
    await case.turn(2)
    assert case.version == version
    assert len(case.records("AwaitingApproval")) == len(case.world.events) == 1
    case.say("ann")
    await case.turn(3)
    assert len(case.records("AwaitingApproval")) == len(case.world.events) == 2
    assert case.shown("Approved")[1].endswith("; 1 of 2 have approved (ann)")
    (fact,) = orjson.loads(orjson.dumps(case.records("AwaitingApproval")[-1]["facts"]))["approvals"]
    assert (fact["name"], fact["username"], fact["groups"], fact["allowed"]) == ("yes", "ann", ["people"], True)


async def test_one_word_opens_what_one_is_asked_for_and_is_named_by_grant_record_and_request() -> None:
    case = await Case().granted()
    said = case.world.objects["AccessApproval", "shop", "yes"]["metadata"]["uid"]
    (grant,) = case.world.of("TaskGrant")
    assert grant["spec"]["order"]["approvals"] == [{"name": "yes", "uid": said, "username": "ann"}]
    assert case.shown("Approved") == ("PersonApproved", "ann (yes) for policy fix")
    assert (case.status["decision"]["outcome"], case.status["decision"]["policy"]) == ("Approved", "fix")
    assert len(case.records("PersonApproved")) == 1


async def test_what_people_say_wakes_the_request_that_they_speak_of() -> None:
    case = Case()
    woken: list[Key] = []
    await case.turn()
    case.process.intake._wake = woken.append
    body = case.say("ann")
    case.process.intake.approval(body)
    case.process.intake.approval(body)
    assert woken == [Key("shop", "r")]
    case.process.intake.approval_gone(Key("shop", "yes"), body["metadata"]["uid"])
    assert woken == [Key("shop", "r")] * 2


async def test_a_waiting_request_is_looked_at_again_when_its_time_is_over() -> None:
    case = Case()
    case.process = Process(case.world, queue=Untaken(clock=lambda: case.world.now))
    await case.turn()
    due, ending = case.process.queue._due[Key("shop", "r")]
    assert due - asyncio.get_running_loop().time() == pytest.approx(30 * 60, abs=5)
    assert not ending


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("eve", "eve may no longer approve for policy fix"),
        (FIXER, f"{FIXER} asks itself"),
    ],
)
async def test_whose_word_does_not_count_opens_nothing_and_is_told_why(who: str, why: str) -> None:
    case = Case()
    case.say(who)
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.shown("Approved")[1].endswith(f"; 0 of 1 have approved; not counted: {why}")


async def test_an_approver_who_loses_the_right_before_the_decision_has_approved_nothing() -> None:
    case = Case(approval={"approvals": 2})
    case.say("ann")
    await case.turn()
    case.world.approvers["fix"].discard("ann")
    case.say("bob", "bobs")
    await case.turn()
    assert case.world.of("TaskGrant") == []
    assert "1 of 2 have approved (bob); not counted: ann may no longer" in case.shown("Approved")[1]
    case.world.approvers["fix"].add("ann")
    case.say("kim", "kims")
    await case.turn()
    assert case.access


async def test_two_people_are_two_and_one_who_says_it_twice_is_one() -> None:
    case = Case(approval={"approvals": 2})
    case.say("ann")
    case.say("ann", "again")
    await case.turn()
    assert not case.access
    case.say("bob", "bobs")
    await case.turn()
    assert case.access
    assert len(case.world.of("TaskGrant")[0]["spec"]["order"]["approvals"]) == 2


async def test_who_says_it_a_hundred_times_is_asked_about_once_and_whom_nobody_speaks_of_never() -> None:
    case, asked = Case(approval={"approvals": 2}), []

    async def create(path: str, body: Json, create: Callable[..., Awaitable[Json]] = case.world.create) -> Json:
        asked.append(path.rpartition("/")[2])
        return await create(path, body)

    case.world.create = create  # type: ignore[method-assign]
    case.say(FIXER, "own")
    await case.turn()
    assert asked == []
    for number in range(100):
        case.say("ann", f"yes-{number}")
    await case.turn()
    assert asked == ["subjectaccessreviews"]


async def test_a_request_that_is_made_again_under_the_approved_name_waits_for_people_of_its_own() -> None:
    case = Case()
    await case.turn()
    first = case.asked
    case.world.remove("AccessRequest", "shop", "r")
    case.asked = case.ask()
    case.say("ann", asked=first)
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.shown("Approved")[1].endswith("0 of 1 have approved")


async def test_an_approval_that_names_another_request_with_this_ones_uid_opens_nothing() -> None:
    case = Case()
    forged = case.asked | {"metadata": case.asked["metadata"] | {"name": "other"}}
    case.say("ann", asked=forged)
    await case.turn(2)
    assert case.world.of("TaskGrant") == []


async def test_an_approval_for_another_policy_opens_nothing() -> None:
    case = Case()
    case.world.approvers["other"] = {"ann"}
    case.say("ann", policy="other")
    await case.turn()
    assert case.world.of("TaskGrant") == []
    assert case.shown("Approved")[1].endswith("not counted: ann approved for policy other")


async def test_an_approval_that_is_taken_back_before_enough_have_spoken_has_approved_nothing() -> None:
    case = Case(approval={"approvals": 2})
    case.say("ann")
    await case.turn()
    case.take_back()
    case.say("bob", "bobs")
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.shown("Approved")[1].endswith("1 of 2 have approved (bob)")


async def test_one_deny_ends_the_request_and_its_agent_reads_who_and_why() -> None:
    case = Case()
    await case.turn()
    case.say("bob", "no", verdict="Deny")
    case.say("ann")
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.shown("Approved") == ("PersonDenied", "bob denied it for policy fix: not now")
    assert case.shown("Finished")[0] == "RequestDenied"
    denial = case.status["decision"]["denial"]
    assert (case.status["decision"]["outcome"], denial["reason"]) == ("Denied", "PersonDenied")


async def test_a_deny_of_somebody_who_may_not_changes_nothing() -> None:
    case = Case()
    case.say("eve", "no", verdict="Deny")
    case.say("ann")
    await case.turn()
    assert case.access


async def test_a_guardrail_that_wants_a_person_waits_for_one_and_is_content() -> None:
    case = Case()
    rule = {"metadata": {"name": "guard", "namespace": ""}, "spec": {"effect": "Deny", "validations": [UNSPOKEN]}}
    case.world.add("AgentPolicy", rule)
    await case.turn()
    assert case.shown("Approved")[0] == "AwaitingApproval"
    case.say("ann")
    await case.turn()
    assert case.access


async def test_what_cannot_be_asked_is_asked_again_and_grants_nothing_meanwhile() -> None:
    case = Case()
    await case.turn()
    case.say("ann")
    await case.process.watch()
    case.world.faults = [500]
    await case.process.work()
    assert case.world.of("TaskGrant") == []
    assert case.shown("Finished")[0] == "TaskInProgress"
    assert "it is tried again" in case.shown("Ready")[1]
    case.take_back()
    await case.turn()
    # It says again what it waits for, and that is no news.
    assert case.shown("Ready")[1] == case.shown("Approved")[1]
    assert len(case.records("AwaitingApproval")) == len(case.world.events) == 1
    case.say("ann")
    await case.turn()
    assert case.access


async def test_a_waiting_request_takes_no_secret_and_is_not_ended_for_one_that_has_it() -> None:
    case = Case(approval={"when": "claims.task.id == 'r'"})
    await case.turn()
    case.ask("s")
    await case.turn(3)
    assert case.access
    assert case.shown("Approved")[0] == "AwaitingApproval"
    assert case.shown("Finished")[0] == "TaskInProgress"


async def test_a_policy_that_no_longer_allows_what_waits_ends_the_wait_and_says_nothing_of_the_old_one() -> None:
    case = Case()
    await case.turn()
    case.world.remove("AgentPolicy", "", "fix")
    await case.turn()
    assert case.shown("Finished")[0] == "RequestDenied"
    assert case.status["decision"]["outcome"] == "Denied"
    assert case.status["decision"].get("policy") is None


# -- time ------------------------------------------------------------------------------------------------------------


async def test_what_waits_for_people_has_their_policys_time_and_then_expires() -> None:
    case = Case()
    await case.turn()
    case.world.now += timedelta(minutes=30, microseconds=-1)
    await case.turn()
    assert case.shown("Finished")[0] == "TaskInProgress"
    case.world.now += timedelta(microseconds=1)
    await case.turn()
    assert case.shown("Finished") == (
        "RequestExpired",
        "nobody approved it in time; create it again when somebody can",
    )
    case.say("ann")
    await case.turn(2)
    assert not case.access


async def test_a_shorter_time_than_other_requests_have_ends_it_sooner_though_another_policy_lets_wait_longer() -> None:
    case = Case(approval={"timeout": "1m"})
    slow = policy(15, approval={"timeout": "24h"}, subjects=[{"name": "x", "namespace": "elsewhere"}])
    case.world.add("AgentPolicy", slow | {"metadata": {"name": "slow", "namespace": ""}})
    await case.turn()
    case.world.now += MINUTE
    await case.turn()
    assert case.shown("Finished") == (
        "RequestExpired",
        "nobody approved it in time; create it again when somebody can",
    )


async def test_a_word_that_comes_in_the_last_moment_counts_and_one_that_comes_too_late_does_not() -> None:
    for late, opened in ((timedelta(microseconds=-1), True), (timedelta(), False)):
        case = Case()
        slow = policy(15, approval={"timeout": "24h"}, subjects=[{"name": "x", "namespace": "elsewhere"}])
        case.world.add("AgentPolicy", slow | {"metadata": {"name": "slow", "namespace": ""}})
        await case.turn()
        case.world.now += timedelta(minutes=30) + late
        case.say("ann")
        await case.turn()
        assert case.access is opened
        assert (case.shown("Finished")[0] == "RequestExpired") is not opened


async def test_what_waits_for_nobody_expires_as_soon_as_ever() -> None:
    case = Case()
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"approval": None}})
    case.world.now += timedelta(minutes=5)
    await case.turn()
    assert not case.access
    assert case.shown("Finished") == ("RequestExpired", "it was not granted in time; create it again")


async def test_an_operator_that_comes_back_after_the_pending_time_goes_on_waiting() -> None:
    """Takeover while it waits: nothing of it was known only in memory."""
    case = Case()
    await case.turn()
    case.world.now += timedelta(minutes=20)
    case.process = Process(case.world)
    await case.process.relist.read_all()
    await case.process.work()
    assert case.shown("Finished")[0] == "TaskInProgress"
    case.say("ann")
    await case.turn()
    assert case.access


# -- after -----------------------------------------------------------------------------------------------------------


async def test_a_word_that_is_taken_back_ends_what_it_opened() -> None:
    case = await Case().granted()
    case.take_back()
    await case.turn(3)
    assert not case.access
    assert case.world.of("TaskGrant") == []
    assert case.shown("Finished") == ("PolicyChanged", "the approval yes of ann was taken back")


async def test_a_word_that_is_being_taken_back_is_gone_whatever_holds_it_up() -> None:
    case = await Case().granted()
    case.world.change("AccessApproval", "shop", "yes", {"metadata": {"finalizers": ["foregroundDeletion"]}})
    case.take_back()
    await case.turn(3)
    assert not case.access


async def test_a_word_more_than_is_asked_for_ends_nothing_when_it_is_taken_back() -> None:
    case = Case()
    case.say("ann")
    case.world.now += timedelta(seconds=1)
    case.say("bob", "bobs")
    await case.turn()
    case.take_back("bobs")
    await case.turn(3)
    assert case.access


async def test_a_grant_lives_on_though_its_approver_loses_the_right_and_its_policy_asks_more() -> None:
    case = await Case().granted()
    case.world.approvers["fix"].clear()
    more = {"metadata": {"generation": 2}, "spec": {"approval": {"approvals": 5, "when": "true"}}}
    case.world.change("AgentPolicy", "", "fix", more)
    await case.turn(3)
    assert case.access


async def test_a_no_that_comes_later_ends_the_grant() -> None:
    case = await Case().granted()
    case.say("bob", "no", verdict="Deny")
    await case.turn(3)
    assert not case.access
    reason, message = case.shown("Finished")
    assert (reason, message) == ("PolicyChanged", "policy no longer allows it: bob denied it for policy fix: not now")


async def test_a_no_of_somebody_who_may_not_say_it_any_more_ends_no_grant_until_they_may() -> None:
    case = await Case().granted()
    case.world.approvers["fix"].discard("bob")
    case.say("bob", "no", verdict="Deny")
    await case.turn(3)
    assert case.access
    case.world.approvers["fix"].add("bob")
    await case.turn(3)
    assert not case.access


async def test_whether_a_no_counts_cannot_be_asked_and_the_grant_is_left_alone_until_it_can() -> None:
    case = await Case().granted()
    case.say("bob", "no", verdict="Deny")
    await case.process.watch()
    case.world.faults = [500]
    await case.process.work()
    assert case.access
    await case.turn(3)
    assert not case.access


async def test_a_no_that_came_while_the_grant_was_opened_is_found() -> None:
    case = Case()
    await case.turn()
    case.say("ann")
    await case.process.watch()

    async def create(path: str, body: Json, create: Callable[..., Awaitable[Json]] = case.world.create) -> Json:
        if path.endswith("/taskgrants"):
            case.process.intake.approval(case.say("bob", "no", verdict="Deny"))
        return await create(path, body)

    case.world.create = create  # type: ignore[method-assign]
    await case.process.work()
    assert case.world.tokens == {}
    await case.turn(2)
    assert case.shown("Finished")[0] == "PolicyChanged"


async def test_a_word_that_is_taken_back_while_the_grant_is_opened_is_found_before_anything_is_made() -> None:
    case = Case()
    await case.turn()
    case.say("ann")
    await case.process.watch()

    async def create(path: str, body: Json, create: Callable[..., Awaitable[Json]] = case.world.create) -> Json:
        if path.endswith("/taskgrants"):
            case.take_back()
        return await create(path, body)

    case.world.create = create  # type: ignore[method-assign]
    await case.process.work()
    assert case.world.tokens == {}
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.shown("Finished")[0] == "PolicyChanged"


async def test_a_replica_that_has_not_heard_of_a_word_reads_it_live_before_it_ends_anything() -> None:
    case = await Case().granted()
    case.process = Process(case.world)
    await case.process.relist.read_all()
    metadata = case.world.objects["AccessApproval", "shop", "yes"]["metadata"]
    case.process.cache.approvals = type(case.process.cache.approvals)()
    await case.process.work()
    assert case.access
    note = case.process.cache.approvals.note(Key("shop", "yes"))
    assert note is not None
    assert note.uid == metadata["uid"]


@pytest.mark.parametrize("again", [False, True])
async def test_a_word_that_was_taken_back_unseen_ends_the_grant_though_one_of_its_name_is_there(again: bool) -> None:
    case = await Case().granted()
    case.take_back()
    case.world.now += timedelta(seconds=1)
    if again:
        case.say("ann")
    case.process = Process(case.world)
    await case.process.relist.read_all()
    for _ in range(3):
        await case.process.work()
    assert not case.access
    assert case.shown("Finished")[0] == "PolicyChanged"


async def test_whether_a_word_is_there_cannot_be_read_and_the_grant_is_left_alone() -> None:
    case = await Case().granted()
    case.process = Process(case.world)
    await case.process.relist.read_all()
    case.process.cache.approvals = type(case.process.cache.approvals)()
    case.world.faults = [500]
    await case.process.work()
    assert case.access
    (grant,) = case.world.of("TaskGrant")
    assert "end" not in grant["status"]


async def test_a_request_that_is_deleted_says_so_though_what_was_said_on_it_goes_too() -> None:
    case = await Case().granted()
    case.world.remove("AccessRequest", "shop", "r")
    assert case.world.of("AccessApproval") == []
    await case.turn(3)
    assert not case.access
    assert [record["end"] for record in case.records("CredentialRevoked")] == ["RequestDeleted"]


async def test_a_missed_deletion_of_a_word_is_found_when_what_is_there_is_counted() -> None:
    case = await Case().granted()
    case.take_back()
    await case.process.work()
    assert case.access
    await case.process.relist.look("shop")
    for _ in range(3):
        await case.process.work()
    assert not case.access


async def test_an_approval_that_cannot_be_read_approves_nothing_and_stops_nobody() -> None:
    case = Case()
    case.world.add("AccessApproval", {"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"covers": "Task"}})
    await case.turn()
    assert case.world.of("TaskGrant") == []
    case.say("ann")
    await case.turn()
    assert case.access
    with pytest.raises(ApiError):
        await case.world.get("/apis/valetkey.dev/v1alpha1/namespaces/shop/accessapprovals/none")


# -- what is nobody's word on this request ---------------------------------------------------------------------------


def elsewhere(case: Case, username: str, verdict: str) -> None:
    """Says the same of the same uid in another namespace, where the garbage collector has not come by yet."""
    body = approval("foreign", case.asked, username, verdict=verdict)
    body["metadata"]["namespace"] = "other"
    case.process.intake.approval(case.world.add("AccessApproval", body))


async def test_a_word_of_another_namespace_ends_nothing() -> None:
    case = await Case().granted()
    elsewhere(case, "bob", "Deny")
    await case.turn(3)
    assert case.access


async def test_a_word_on_another_request_that_names_this_ones_uid_ends_nothing() -> None:
    case = await Case().granted()
    forged = case.asked | {"metadata": case.asked["metadata"] | {"name": "other"}}
    case.say("bob", "no", asked=forged, verdict="Deny")
    await case.turn(3)
    assert case.access


async def test_a_word_of_another_namespace_keeps_nothing_alive() -> None:
    case = Case(ttl={"default": "1m", "max": "15m"})
    guard = {"effect": "Deny", "validations": [UNSPOKEN]}
    case.world.add("AgentPolicy", {"metadata": {"name": "guard", "namespace": ""}, "spec": guard})
    case.say("ann")
    await case.turn(2)
    assert case.access
    elsewhere(case, "eve", "Approve")
    case.take_back()
    await case.turn(3)
    assert not case.access


# -- what changes between the decision and the credential ------------------------------------------------------------


async def test_a_policy_that_has_come_to_ask_for_people_is_found_before_the_credential_is_made() -> None:
    case = Case(ttl={"default": "1m", "max": "15m"})
    await case.process.watch()
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"approval": {"approvals": 2}}})
    await case.process.work()
    assert not case.access
    await case.turn(3)
    assert not case.access
    assert case.shown("Finished")[0] == "PolicyChanged"


async def test_what_could_not_be_read_again_is_read_again_before_the_credential_is_made() -> None:
    case = Case()
    await case.turn()
    case.say("ann")
    await case.process.watch()
    case.take_back()
    read, failed = case.world.get, list[str]()

    async def get(path: str) -> Json:
        if "accessapprovals" in path and not failed:
            failed.append(path)
            raise ApiError(500, "InternalError", "down")
        return await read(path)

    case.world.get = get  # type: ignore[method-assign]
    for _ in range(3):
        await case.process.work()
    assert failed
    assert not case.access


async def test_of_what_one_person_says_a_thousand_times_the_first_is_read() -> None:
    case = Case(approval={"approvals": 2})
    for number in range(300):
        case.say("ann", f"yes-{number:03}")
    await case.turn()
    (record,) = case.records("AwaitingApproval")
    assert [word.name for word in record["facts"].approvals] == ["yes-000"]
    assert not case.access
    case.say("bob", "bobs")
    await case.turn()
    assert case.access
