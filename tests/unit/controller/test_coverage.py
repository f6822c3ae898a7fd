"""A word for a whole task on its way through the operator: what it opens, whom it wakes, and what it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.cluster.api import merged
from tests.properties.life import GUARD, TIMES, Process, pod, request
from tests.unit.controller.test_approvals import FIXER, MINUTE, Case
from valetkey.controller.approvals import MOST_NAMED, MOST_READ
from valetkey.controller.queue import Key
from valetkey.kinds.base import format_seconds
from valetkey.kube.api import Json

TASK: Json = {"approval": {"covers": "Task"}}
HOUR = timedelta(hours=1)
R, S = Key("shop", "r"), Key("shop", "s")
UNSPOKEN = {"name": "person", "expression": '!approvals.exists(a, a.verdict == "Approve")', "message": "m"}


class Tasks(Case):
    """The request r of the pod `one`, for which people may approve the whole task; and s, asked after it."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**(spec or TASK))
        # No policy is as old as what people say on it.
        self.world.now += MINUTE

    def say_task(self, username: str = "ann", name: str = "task", *, until: timedelta = HOUR, **said: Any) -> Json:
        generation = self.world.objects["AgentPolicy", "", "fix"]["metadata"]["generation"]
        whole = {"covers": "Task", "until": format_seconds(self.world.now + until), "policyGeneration": generation}
        return self.say(username, name, **(whole | said))

    def ask_more(self, name: str = "s", owner: Json | None = None, **spec: Any) -> Json:
        body = request(name, owner or self.pod, "15m", "valetkey-one-b", self.world.now)
        return self.world.add("AccessRequest", body | {"spec": body["spec"] | spec})

    def message(self, kind: str = "Approved", name: str = "s") -> tuple[str, str]:
        """Reason and message of a condition of a request."""
        conditions = self.world.objects["AccessRequest", "shop", name]["status"]["conditions"]
        return next((c["reason"], c["message"]) for c in conditions if c["type"] == kind)

    def order(self, name: str = "s") -> Json:
        found: Json = self.world.objects["TaskGrant", "shop", name]["spec"]["order"]
        return found

    def has(self, name: str = "s") -> bool:
        """Whether a request's grant is there and has not begun to end."""
        grant = self.world.objects.get(("TaskGrant", "shop", name))
        return grant is not None and "end" not in grant.get("status", {})

    async def woken(self, times: int = 3) -> None:
        """What news wakes, and nothing else."""
        for _ in range(times):
            await self.process.watch()
            await self.process.work_woken()

    async def covered(self) -> Tasks:
        """With ann's word on the task of r, and the access of both delivered."""
        await self.turn()
        self.say_task()
        await self.turn()
        self.ask_more()
        await self.turn()
        assert self.has("r")
        assert self.has("s")
        await self.process.watch()  # of what was done itself, which is no news to anybody any more
        self.process.woken.clear()
        return self


# -- what it opens ---------------------------------------------------------------------------------------------------


async def test_what_the_agent_asks_next_is_granted_by_the_same_word_which_all_that_tells_of_it_names() -> None:
    case = await Tasks().covered()
    word = case.world.objects["AccessApproval", "shop", "task"]["metadata"]["uid"]
    assert case.order("s")["approvals"] == [{"name": "task", "uid": word, "username": "ann", "request": "r"}]
    assert case.order("r")["approvals"] == [{"name": "task", "uid": word, "username": "ann"}]
    assert case.message() == ("PersonApproved", "ann (task, on r) for policy fix")
    record = case.records("PersonApproved")[-1]
    assert (record["request"], record["message"]) == ("shop/s", "entry read, by the word of ann on r")
    facts = orjson.loads(orjson.dumps(record["facts"]))
    (covering,) = facts["covering"]
    assert (covering["said"]["uid"], covering["said"]["request"]) == (word, "r")
    assert covering["asked"] == case.asked["spec"]
    assert facts["approvals"] == []
    assert case.world.events[-1][1] == "AccessDelivered"


async def test_a_request_that_waits_says_what_a_word_may_cover_and_says_it_anew_when_the_policy_changes() -> None:
    case = Tasks()
    await case.turn()
    assert (case.status["decision"]["policyGeneration"], case.status["decision"]["covers"]) == (1, "Task")
    message = case.shown("Approved")
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"contact": "#x"}})
    await case.turn()
    assert case.status["decision"]["policyGeneration"] == 2
    assert case.shown("Approved") == message
    assert len(case.world.events) == len(case.records("AwaitingApproval")) == 1
    version = case.version
    await case.turn(2)
    assert case.version == version
    case.say("ann")
    await case.turn()
    assert case.status["decision"]["outcome"] == "Approved"
    assert not {"policyGeneration", "covers"} & case.status["decision"].keys()


async def test_a_word_for_the_task_counts_for_its_own_request_though_the_policy_lets_it_cover_no_other() -> None:
    case = Tasks(approval={})
    case.say_task()
    await case.turn()
    case.ask_more()
    await case.turn()
    assert (case.has("r"), case.has("s")) == (True, False)
    assert "covers" not in case.world.objects["AccessRequest", "shop", "s"]["status"]["decision"]
    assert case.message()[1].endswith(
        "not counted: ann approved the task of r until 2026-01-01T01:02:00Z, and policy fix lets a word cover its own "
        "request alone (approval.covers)"
    )


async def test_it_goes_on_covering_when_the_request_that_it_was_said_on_has_finished() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    case.world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await case.turn()
    assert case.shown("Finished")[0] == "TaskReleased"
    case.ask_more()
    await case.turn()
    assert case.has("s")


@pytest.mark.parametrize(("until", "ends"), [(5 * MINUTE, 5 * MINUTE), (48 * HOUR, 15 * MINUTE)])
async def test_what_it_opens_ends_with_it_and_not_a_moment_before_though_it_is_looked_at(
    until: timedelta, ends: timedelta
) -> None:
    case = Tasks()
    case.say_task(until=until)
    began = case.world.now
    case.ask_more()
    await case.turn()
    assert datetime.fromisoformat(case.order()["notAfter"]) == began + ends
    case.world.now = began + ends - timedelta(milliseconds=1)
    await case.turn(3)
    assert case.has("s")
    case.world.now = began + ends
    await case.turn(3)
    assert not case.has("s")
    assert case.message("Finished")[0] == "TTLReached"


async def test_a_day_after_it_was_said_it_covers_nothing_more_whatever_it_says() -> None:
    case = Tasks()
    case.say_task(until=48 * HOUR)
    await case.turn()
    case.world.now += 24 * HOUR - 2 * timedelta(seconds=1)
    case.ask_more()
    await case.turn()
    assert datetime.fromisoformat(case.order()["notAfter"]) - case.world.now == 2 * timedelta(seconds=1)
    case.world.now += 2 * timedelta(seconds=1)
    case.ask_more("t")
    await case.turn(3)
    assert not case.has("t")
    assert case.message(name="t")[1].endswith("0 of 1 have approved")


# -- what it does not open -------------------------------------------------------------------------------------------


async def test_until_in_the_past_covers_nothing() -> None:
    case = Tasks()
    case.say_task(until=-MINUTE)
    case.ask_more()
    await case.turn(2)
    assert (case.has("r"), case.has("s")) == (True, False)
    assert case.message()[1].endswith("0 of 1 have approved")


async def test_a_policy_that_has_changed_is_asked_with_people_again() -> None:
    case = await Tasks().covered()
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"contact": "#x"}})
    case.ask_more("t", delivery={"secret": {"name": "valetkey-one-b"}})
    await case.turn(2)
    assert case.message(name="t")[1].endswith("before policy fix was changed")
    # What is granted already goes on, by the policy as it is now.
    assert case.has("r")
    assert case.has("s")


async def test_a_policy_that_is_made_again_under_its_name_is_another_though_its_generation_is_the_same() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    policy = case.world.objects["AgentPolicy", "", "fix"]
    case.world.remove("AgentPolicy", "", "fix")
    case.world.now += MINUTE
    made = case.world.add("AgentPolicy", {"metadata": {"name": "fix", "namespace": ""}, "spec": policy["spec"]})
    assert made["metadata"]["generation"] == policy["metadata"]["generation"]
    case.ask_more()
    await case.turn(2)
    assert not case.has("s")
    assert case.message()[1].endswith("before policy fix was changed")


async def test_a_request_that_is_made_again_under_the_approved_name_covers_nothing() -> None:
    case = Tasks()
    await case.turn()
    first = case.asked
    case.world.remove("AccessRequest", "shop", "r")
    case.asked = case.ask()
    case.say_task(asked=first)
    case.ask_more()
    await case.turn(3)
    assert case.world.of("TaskGrant") == []
    assert case.message()[1].endswith("0 of 1 have approved")


async def test_another_pod_of_the_same_account_is_not_covered() -> None:
    case = Tasks()
    case.say_task()
    other = case.world.add("Pod", pod("two"))
    case.ask_more(owner=other, delivery={"secret": {"name": "valetkey-two-a"}})
    await case.turn(3)
    assert (case.has("r"), case.has("s")) == (True, False)
    assert case.message()[1].endswith("0 of 1 have approved")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda spec: spec["task"].update(parameters={"n": 1}), None),
        (lambda spec: spec["task"].update(purpose="other"), None),
        (lambda spec: rule_of(spec)["verbs"].append("list"), "for less than spec.access.kubernetes.scopes[0].rules[0]"),
    ],
    ids=["parameters", "purpose", "access"],
)
async def test_another_task_and_more_access_are_not_covered_and_the_message_says_so(
    change: Callable[[Json], object], why: str | None
) -> None:
    rights = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
    entry = {"name": "read", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [rights]}]}}
    purposes = [{"name": "fix", "parameters": {"n": {"type": "integer"}}}, {"name": "other"}]
    case = Tasks(approval={"covers": "Task"}, access=[entry], purposes=purposes)
    case.say_task()
    await case.turn()
    body = request("s", case.pod, "15m", "valetkey-one-b", case.world.now)
    change(body["spec"])
    case.world.add("AccessRequest", body)
    await case.turn(2)
    assert not case.has("s")
    # Of words of other tasks nothing is told: they are many, and say nothing of this one.
    said = "0 of 1 have approved" if why is None else f"until 2026-01-01T01:02:00Z, {why}"
    assert case.message()[1].endswith(said)


def rule_of(spec: Json) -> Json:
    rule: Json = spec["access"]["kubernetes"]["scopes"][0]["rules"][0]
    return rule


async def test_an_approver_who_has_lost_the_right_covers_nothing_more_and_is_named() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    case.world.approvers["fix"].discard("ann")
    case.ask_more()
    await case.turn(2)
    assert (case.has("r"), case.has("s")) == (True, False)
    assert case.message()[1].endswith("and may no longer approve for policy fix")


async def test_a_word_on_the_request_itself_is_told_of_once() -> None:
    case = Tasks()
    case.say_task()
    case.world.approvers["fix"].discard("ann")
    await case.turn(2)
    assert case.shown("Approved")[1].endswith("; not counted: ann may no longer approve for policy fix")


async def test_a_request_that_is_too_large_to_read_is_compared_with_nothing() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    body = request("s", case.pod, "15m", "valetkey-one-b", case.world.now)
    rule_of(body["spec"])["resourceNames"] = [f"n{at}" for at in range(32)]
    body["spec"]["access"]["kubernetes"]["scopes"][0]["rules"] *= 16
    body["spec"]["access"]["kubernetes"]["scopes"] *= 2
    case.world.add("AccessRequest", body)
    await case.turn(2)
    (record,) = case.records("AccessBeyondPolicy")
    assert record["facts"].covering == ()


async def test_an_agent_that_may_approve_covers_nothing_of_its_own() -> None:
    case, asked = Tasks(), list[str]()

    async def create(path: str, body: Json, create: Callable[..., Awaitable[Json]] = case.world.create) -> Json:
        asked.append(path.rpartition("/")[2])
        return await create(path, body)

    case.world.create = create  # type: ignore[method-assign]
    case.say_task(FIXER)
    case.ask_more()
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.message()[1].endswith(f"not counted: {FIXER} asks itself")
    assert "subjectaccessreviews" not in asked


async def test_an_account_that_the_work_is_handed_on_to_neither_covers_it_nor_ends_what_is_covered() -> None:
    worker, to = "system:serviceaccount:shop:worker", [{"namespace": "shop", "serviceAccount": "worker"}]
    case = Tasks(approval={"covers": "Task"}, delegation={"to": to, "maxDepth": 1})
    case.world.approvers["fix"].add(worker)
    case.world.remove("AccessRequest", "shop", "r")
    handing: Json = {"delegation": {"to": to, "maxDepth": 1}}
    body = request("r", case.pod, "15m", "valetkey-one-a", case.world.now)
    case.asked = case.world.add("AccessRequest", body | {"spec": body["spec"] | handing})
    case.say_task(worker, "workers")
    case.ask_more(**handing)
    await case.turn(2)
    assert case.world.of("TaskGrant") == []
    assert case.message()[1].endswith(f"not counted: {worker} has a part in that work")
    case.say_task()
    await case.turn(2)
    assert case.has("s")
    case.say(worker, "no", verdict="Deny")
    await case.turn(3)
    assert case.has("s")


async def test_sixty_four_words_that_are_over_or_void_hide_none_that_counts() -> None:
    case = Tasks()
    for at in range(64):
        case.say_task(f"p{at}", f"over-{at}", until=-MINUTE - at * timedelta(seconds=1))
        case.world.approvers["fix"].add(f"p{at}")
    for at in range(MOST_READ + 10):
        asked = case.ask_more(f"x{at:03}", delivery={"secret": {"name": f"valetkey-one-{at}"}})
        case.say_task("ann", f"stale-{at}", asked=asked, until=2 * HOUR, policyGeneration=2)
    case.say_task("kim", until=MINUTE)
    case.ask_more()
    await case.turn(2)
    assert [word["username"] for word in case.order()["approvals"]] == ["kim"]
    (record,) = (one for one in case.records("PersonApproved") if one["request"] == "shop/s")
    assert len(record["facts"].covering) == 1 + MOST_NAMED


async def test_of_what_one_person_says_on_a_hundred_requests_the_word_that_covers_longest_counts() -> None:
    case = Tasks()
    for at in range(20):
        asked = case.ask_more(f"x{at:02}", delivery={"secret": {"name": f"valetkey-one-{at}"}})
        case.say_task("ann", f"task-{at:02}", asked=asked, until=HOUR + ((at * 7) % 20) * MINUTE)
    case.say_task("bob", "bobs", until=MINUTE)
    case.world.change("AgentPolicy", "", "fix", {"spec": {"approval": {"covers": "Task", "approvals": 2}}})
    case.ask_more()
    await case.turn(2)
    names = {word["name"] for word in case.order()["approvals"]}
    assert names == {"bobs", "task-17"}


@pytest.mark.parametrize("groups", [["people"], ["others"]], ids=["the same right", "another right"])
async def test_a_word_on_a_request_that_was_denied_hides_no_other_of_the_same_person(groups: list[str]) -> None:
    case = Tasks()
    for name, until in (("x1", 3 * HOUR), ("x2", HOUR), ("x3", 2 * HOUR)):
        asked = case.ask_more(name, delivery={"secret": {"name": f"valetkey-one-{name}"}})
        approver = {"username": "ann", "groups": groups if name == "x2" else ["people"]}
        case.say_task("ann", f"task-{name}", asked=asked, until=until, approver=approver)
        if name != "x2":
            case.say("bob", f"no-{name}", asked=asked, verdict="Deny")
    case.ask_more()
    await case.turn(2)
    assert [word["name"] for word in case.order()["approvals"]] == ["task-x2"]


async def test_a_word_that_covers_counts_for_no_more_people_than_a_grant_can_name() -> None:
    case = Tasks()
    for at in range(40):
        case.world.approvers["fix"].add(f"p{at:02}")
        case.say_task(f"p{at:02}", f"task-{at:02}", until=HOUR + at * MINUTE)
    case.ask_more()
    await case.turn(2)
    assert [word["username"] for word in case.order()["approvals"]] == ["p39"]
    (record,) = (one for one in case.records("PersonApproved") if one["request"] == "shop/s")
    assert len(record["facts"].covering) <= MOST_READ + MOST_NAMED


async def test_a_word_from_before_the_store_was_restored_covers_nothing_for_it_may_have_been_taken_back() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    case.world.now += MINUTE
    case.process.cache.restored = case.world.now
    case.ask_more()
    await case.turn(2)
    assert not case.has("s")


async def test_what_cannot_be_asked_grants_nothing_until_it_can() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    case.ask_more()
    await case.process.watch()
    case.world.faults = [500, 0, 0]
    await case.process.worker.run(S)
    assert not case.has("s")
    await case.turn(2)
    assert case.has("s")


# -- whom it wakes, and what it ends ---------------------------------------------------------------------------------


async def test_a_word_for_the_task_wakes_what_waits_of_the_same_pod_and_nobody_else() -> None:
    case = Tasks()
    case.ask_more()
    other = case.world.add("Pod", pod("two"))
    case.ask_more("t", owner=other, delivery={"secret": {"name": "valetkey-two-a"}})
    await case.turn()
    case.process.woken.clear()
    case.say_task()
    await case.process.watch()
    assert set(case.process.woken) == {R, S}
    await case.woken()
    assert case.has("r")
    assert case.has("s")


async def test_what_waits_is_woken_too_where_the_word_is_known_before_the_request_that_it_was_said_on() -> None:
    case = Tasks()
    case.ask_more()
    word = case.say_task()
    process = case.process = Process(case.world)
    await process.surroundings.refresh()
    for kind, take in (("Pod", process.intake.pod), ("AccessApproval", process.intake.approval)):
        for body in case.world.of(kind):
            take(body)
    process.intake.request(case.world.objects["AccessRequest", "shop", "s"])
    await process.work_woken()
    assert not case.has("s")
    assert word["spec"]["request"]["name"] == "r"
    process.intake.request(case.world.objects["AccessRequest", "shop", "r"])
    assert S in process.woken
    await process.work_woken()
    assert case.has("s")


async def test_a_word_that_is_taken_back_wakes_and_ends_all_that_rests_on_it() -> None:
    case = await Tasks().covered()
    case.take_back("task")
    await case.process.watch()
    assert set(case.process.woken) == {R, S}
    await case.woken()
    assert not case.access
    assert case.world.of("TaskGrant") == []
    gone = "the approval task of ann was taken back"
    assert case.message("Finished", "r") == ("PolicyChanged", gone)
    assert case.message("Finished") == ("PolicyChanged", f"{gone}, or went with r, on which it was said")


async def test_a_word_that_was_found_gone_when_it_was_read_live_ends_what_else_rests_on_it() -> None:
    case = await Tasks().covered()
    uid = case.world.objects["AccessApproval", "shop", "task"]["metadata"]["uid"]
    case.take_back("task")
    case.process.cache.approvals.remove(Key("shop", "task"), uid)  # as `read_again` for one of the two does
    case.process.intake.approval_gone(Key("shop", "task"), uid)
    assert set(case.process.woken) == {R, S}
    await case.process.work_woken()
    assert case.world.of("TaskGrant") == []


async def test_an_agent_that_deletes_the_request_that_was_approved_ends_all_that_rests_on_it() -> None:
    case = await Tasks().covered()
    case.world.remove("AccessRequest", "shop", "r")
    await case.woken()
    assert not case.access
    assert case.message("Finished")[0] == "PolicyChanged"


async def test_it_ends_at_once_though_the_garbage_collector_has_not_come_by_yet() -> None:
    case = await Tasks().covered()
    del case.world.objects["AccessRequest", "shop", "r"]
    await case.process.watch()
    assert set(case.process.woken) == {R, S}
    await case.woken()
    assert ("AccessApproval", "shop", "task") in case.world.objects
    assert not case.access
    assert case.message("Finished")[0] == "PolicyChanged"


async def test_a_request_that_is_being_deleted_covers_nothing_whatever_holds_it_up() -> None:
    case = await Tasks().covered()
    case.world.change("AccessRequest", "shop", "r", {"metadata": {"finalizers": ["foregroundDeletion"]}})
    await case.woken(1)
    case.world.remove("AccessRequest", "shop", "r")
    await case.process.watch()
    assert set(case.process.woken) == {R, S}
    await case.woken()
    assert not case.access
    case.ask_more("t")
    await case.turn(2)
    assert case.message(name="t")[1].endswith("0 of 1 have approved")


async def test_a_no_to_the_request_that_was_approved_wakes_and_ends_all_that_rests_on_it() -> None:
    case = await Tasks().covered()
    case.say("bob", "no", verdict="Deny")
    await case.process.watch()
    assert set(case.process.woken) == {R, S}
    await case.woken()
    assert not case.access
    assert case.message("Finished") == ("PolicyChanged", "bob denied r, on whose approval it rests: not now")
    case.ask_more("t")
    await case.turn(2)
    assert case.message(name="t")[1].endswith("which bob has denied")


async def test_a_request_that_was_denied_first_covers_nothing_though_the_no_is_taken_back() -> None:
    case = Tasks()
    case.say("bob", "no", verdict="Deny")
    await case.turn()
    assert case.shown("Approved")[0] == "PersonDenied"
    case.say_task()
    case.take_back("no")
    case.ask_more()
    await case.turn(3)
    assert not case.has("s")
    assert case.message()[1].endswith("which a person has denied")


@pytest.mark.parametrize("who", ["eve", FIXER])
async def test_a_no_of_somebody_who_has_no_say_ends_nothing_and_hinders_nothing(who: str) -> None:
    case = await Tasks().covered()
    case.say(who, "no", verdict="Deny")
    await case.turn(3)
    assert case.has("r")
    assert case.has("s")
    case.world.change("AccessRequest", "shop", "s", {"spec": {"outcome": "Succeeded"}})
    case.ask_more("t")
    await case.turn(3)
    assert case.has("t")


async def test_a_no_for_another_policy_is_none_to_what_rests_on_this_one() -> None:
    case = await Tasks().covered()
    case.world.approvers["other"] = {"bob"}
    case.say("bob", "no", verdict="Deny", policy="other")
    await case.turn(3)
    assert case.has("s")


async def test_a_no_that_is_taken_back_lets_what_waits_be_covered_again() -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    case.say("bob", "no", verdict="Deny", policy="fix")
    case.ask_more()
    await case.process.watch()
    await case.process.worker.run(S)
    assert case.message()[1].endswith("which bob has denied")
    case.process.woken.clear()
    case.take_back("no")
    await case.process.watch()
    assert S in case.process.woken


@pytest.mark.parametrize("what", ["taken back", "denied", "deleted"])
async def test_what_comes_while_the_grant_is_opened_is_found_before_anything_is_made(what: str) -> None:
    case = Tasks()
    case.say_task()
    await case.turn()
    tokens = dict(case.world.tokens)
    case.ask_more()
    await case.process.watch()

    async def create(path: str, body: Json, create: Callable[..., Awaitable[Json]] = case.world.create) -> Json:
        if path.endswith("/taskgrants"):
            if what == "taken back":
                case.take_back("task")
            elif what == "denied":
                case.process.intake.approval(case.say("bob", "no", verdict="Deny"))
            else:
                case.process.intake.request_gone(R, case.asked["metadata"]["uid"])
                del case.world.objects["AccessRequest", "shop", "r"]
        return await create(path, body)

    case.world.create = create  # type: ignore[method-assign]
    await case.process.worker.run(S)
    assert case.world.tokens == tokens
    await case.turn(2)
    assert case.message("Finished")[0] == "PolicyChanged"


async def test_a_replica_that_begins_to_lead_finds_what_was_denied_or_deleted_unseen() -> None:
    for unseen in ("denied", "deleted", "made again"):
        case = await Tasks().covered()
        if unseen == "denied":
            case.say("bob", "no", verdict="Deny")
        elif unseen == "deleted":
            case.world.remove("AccessRequest", "shop", "r")
        else:  # and the garbage collector has not come by yet
            del case.world.objects["AccessRequest", "shop", "r"]
            case.world.now += timedelta(seconds=1)
            case.ask()
        case.process = Process(case.world)
        await case.process.relist.read_all()
        for _ in range(3):
            await case.process.work()
        assert not case.has("s")


async def test_a_guardrail_that_reads_words_keeps_what_rests_on_one_and_ends_it_when_that_goes() -> None:
    case = Tasks()
    guard = {"effect": "Deny", "validations": [UNSPOKEN]}
    case.world.add("AgentPolicy", {"metadata": {"name": "guard", "namespace": ""}, "spec": guard})
    await case.covered()
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"contact": "#x"}})
    await case.turn(3)
    assert case.has("s")
    case.take_back("task")
    await case.turn(3)
    assert not case.has("s")


# -- how long the request is kept ------------------------------------------------------------------------------------


async def released(case: Tasks) -> None:
    case.world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await case.turn(2)
    assert case.shown("Finished")[0] == "TaskReleased"


async def at(case: Tasks, now: datetime) -> bool:
    """Whether r is there then."""
    case.world.now = now
    await case.turn(2)
    return ("AccessRequest", "shop", "r") in case.world.objects


async def test_a_request_is_kept_while_a_word_on_it_may_cover_others_and_no_longer() -> None:
    case = Tasks()
    case.say_task(until=3 * HOUR)
    until = case.world.now + 3 * HOUR
    await case.turn()
    await released(case)
    assert await at(case, until - timedelta(seconds=1))
    assert not await at(case, until)


async def test_a_word_keeps_it_for_a_day_at_most() -> None:
    case = Tasks()
    case.say_task(until=72 * HOUR)
    until = case.world.now + 24 * HOUR
    await case.turn()
    await released(case)
    assert await at(case, until - timedelta(seconds=1))
    assert not await at(case, until)


@pytest.mark.parametrize("what", ["a plain word", "its own word", "a policy that lets none", "taken back", "a change"])
async def test_nothing_else_keeps_it_longer_than_others(what: str) -> None:
    case = Tasks(**({"approval": {}} if what == "a policy that lets none" else TASK))
    case.say("ann")
    await case.turn()
    if what != "a plain word":
        case.say_task(FIXER if what == "its own word" else "ann", until=3 * HOUR)
    await released(case)
    ended = case.world.now
    if what == "taken back":
        case.take_back("task")
    if what == "a change":
        case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"contact": "#x"}})
    assert await at(case, ended + TIMES.history_ttl - timedelta(seconds=1))
    assert not await at(case, ended + TIMES.history_ttl)


async def test_a_request_that_a_person_denied_is_kept_no_longer_for_a_word_on_it() -> None:
    case = Tasks()
    case.say_task(until=3 * HOUR)
    case.say("bob", "no", verdict="Deny")
    await case.turn()
    ended = case.world.now
    assert await at(case, ended + TIMES.history_ttl - timedelta(seconds=1))
    assert not await at(case, ended + TIMES.history_ttl)


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_works_for_another_is_kept_for_a_word_on_it_while_that_one_goes_on(goes_on: bool) -> None:
    to = {"to": [{"namespace": "shop", "serviceAccount": "fixer"}], "maxDepth": 1}
    case = Tasks(approval={"covers": "Task"}, delegation=to, ttl={"max": "3h"})
    case.world.remove("AccessRequest", "shop", "r")
    plan = case.ask_more("plan", delegation=to, ttl="3h")
    case.say("ann", "yes", asked=plan)
    await case.turn()
    parent = {"namespace": "shop", "name": "plan", "uid": plan["metadata"]["uid"]}
    case.asked = case.ask_more("r", parent=parent, delivery={"secret": {"name": "valetkey-one-a"}})
    case.say_task(until=2 * HOUR)
    await case.turn()
    assert case.has("r")
    await released(case)
    ended = case.world.now
    if not goes_on:
        case.world.change("AccessRequest", "shop", "plan", {"spec": {"outcome": "Succeeded"}})
    assert await at(case, ended + TIMES.history_ttl) is goes_on


async def test_what_rests_on_a_word_keeps_the_request_though_the_policy_has_changed_meanwhile() -> None:
    case = Tasks()
    case.say_task(until=3 * HOUR)
    await case.turn()
    await released(case)
    ended = case.world.now
    case.world.now += TIMES.history_ttl - 10 * MINUTE
    case.ask_more()
    await case.turn()
    over = datetime.fromisoformat(case.order()["notAfter"])
    case.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": 2}, "spec": {"contact": "#x"}})
    assert await at(case, ended + TIMES.history_ttl)
    assert case.has("s")
    assert await at(case, over - timedelta(seconds=1))
    assert case.has("s")
    await at(case, over)
    assert case.message("Finished")[0] == "TTLReached"
    assert not await at(case, over + timedelta(seconds=1))


# -- what an attacker's review found ---------------------------------------------------------------------------------


async def test_a_word_that_was_said_while_guards_did_not_stand_covers_nothing() -> None:
    case = Tasks()
    case.world.objects.pop(("ValidatingAdmissionPolicy", "", "guard"))
    case.say_task()
    await case.turn()
    case.world.now += MINUTE
    case.world.add("ValidatingAdmissionPolicy", {**GUARD})
    case.world.now += MINUTE
    case.ask_more()
    await case.turn(2)
    assert not case.has("s")


async def test_a_no_to_the_request_that_was_approved_ends_what_rests_on_it_though_it_was_taken_back() -> None:
    case = await Tasks().covered()
    condition = {
        "type": "Approved",
        "status": "False",
        "reason": "PersonDenied",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:02:00Z",
    }
    case.world.change("AccessRequest", "shop", "r", {"status": {"conditions": [condition]}})
    await case.process.watch()
    assert S in case.process.woken
    await case.process.work_woken()
    assert not case.has("s")


async def test_many_words_of_one_person_hide_no_other_persons() -> None:
    case = Tasks()
    for at in range(MOST_READ + 10):
        asked = case.ask_more(f"x{at:03}", delivery={"secret": {"name": f"valetkey-one-{at}"}})
        case.say_task("ann", f"much-{at}", asked=asked, until=3 * HOUR)
    case.say_task("kim", "kims", until=HOUR)
    case.world.change("AgentPolicy", "", "fix", {"spec": {"approval": {"covers": "Task", "approvals": 2}}})
    case.ask_more()
    await case.turn(2)
    assert {word["username"] for word in case.order()["approvals"]} == {"ann", "kim"}


async def test_many_denials_of_nothing_hide_no_denial_of_the_request_that_was_approved() -> None:
    case = Tasks()
    for at in range(70):
        case.say(f"p{at}", f"no-{at}", verdict="Deny", policy="of-nobody")
    case.world.approvers["of-nobody"] = {f"p{at}" for at in range(70)}
    case.say("kim", "kims-no", verdict="Deny")
    case.say_task()
    case.ask_more()
    await case.turn(2)
    assert not case.has("s")


async def test_a_request_that_was_never_read_and_is_gone_covers_nothing() -> None:
    case = await Tasks().covered()
    case.world.objects.pop(("AccessRequest", "shop", "r"))
    case.process = Process(case.world)
    await case.process.relist.read_all()
    await case.process.worker.run(S)
    assert not case.has("s")


async def test_a_request_that_is_made_again_in_one_event_wakes_what_rests_on_the_one_before() -> None:
    case = await Tasks().covered()
    old = case.world.objects["AccessRequest", "shop", "r"]
    case.process.woken.clear()
    again = merged(old, {"metadata": {"uid": "another", "resourceVersion": "999999"}, "status": {}})
    case.process.intake.request(again)
    assert S in case.process.woken


async def test_a_word_of_the_same_person_on_the_request_itself_adds_nobody() -> None:
    case = Tasks()
    guard = {"name": "one", "expression": "size(approvals) >= 2", "message": "m"}
    case.world.add(
        "AgentPolicy", {"metadata": {"name": "no", "namespace": ""}, "spec": {"effect": "Deny", "validations": [guard]}}
    )
    case.say_task()
    case.ask_more()
    await case.turn(2)
    assert case.has("s")
    case.say("ann", "again", asked=case.world.objects["AccessRequest", "shop", "s"])
    await case.turn()
    assert case.has("s")
