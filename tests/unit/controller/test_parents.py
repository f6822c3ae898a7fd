"""Work that is handed on: it begins while its parent is live, and ends with it, at whatever moment that ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.cluster.api import merged
from tests.properties.life import Process, Untaken, a_world, pod, policy, request
from tests.properties.world import Crash, World
from valetkey.controller.queue import Key
from valetkey.controller.takeover import look_at_all
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import ApiError, Json

FIXER = {"namespace": "shop", "serviceAccount": "fixer"}
HANDS_ON: Json = {"delegation": {"to": [FIXER], "maxDepth": 2}}


class Case:
    """The pod `one` plans and hands on; the pod `two` works for it."""

    def __init__(self) -> None:
        self.world = a_world()
        self.world.change("AgentPolicy", "", "fix", {"spec": HANDS_ON, "metadata": {"generation": 2}})
        self.pods = {name: self.world.add("Pod", pod(name)) for name in ("one", "two", "three")}
        self.process = self.begun()

    def begun(self) -> Process:
        """A life of the operator, whose timers go by the world's time."""
        return Process(self.world, queue=Untaken(clock=lambda: self.world.now))

    def ask(self, name: str, by: str, parent: Json | None = None, **spec: Any) -> Json:
        body = request(name, self.pods[by], "15m", f"valetkey-{by}-a", self.world.now)
        of = {} if parent is None else {"parent": parent}
        return self.world.add("AccessRequest", merged(body, {"spec": {**of, **spec}}))

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await self.process.watch()
            await self.process.work()

    async def plan(self, **spec: Any) -> Json:
        """A live plan that hands on what it may itself; how others name it."""
        body = self.ask("plan", "one", **(spec or HANDS_ON))
        await self.turn()
        assert self.live("plan")
        return reference(body)

    async def working(self) -> None:
        """And one who works for it."""
        self.ask("work", "two", await self.plan())
        await self.turn()
        assert self.live("work"), self.finished("work")

    def live(self, name: str) -> bool:
        """Whether a token of it works."""
        body = self.world.objects.get(("TaskGrant", "shop", name))
        accounts = {account for account, _ in (self.world.tokens[token] for token in self.world.live_tokens())}
        return body is not None and body["spec"]["plan"]["kubernetes"]["account"]["name"] in accounts

    def finished(self, name: str) -> tuple[str, str]:
        """Reason and message of the end of a request."""
        conditions = self.world.objects["AccessRequest", "shop", name].get("status", {}).get("conditions", ())
        return next(((c["reason"], c["message"]) for c in conditions if c["type"] == "Finished"), ("", ""))

    def report(self, name: str) -> None:
        self.world.change("AccessRequest", "shop", name, {"spec": {"outcome": "Succeeded"}})


def reference(body: Json) -> Json:
    return {"namespace": "shop", "name": body["metadata"]["name"], "uid": body["metadata"]["uid"]}


# -- beginnings ------------------------------------------------------------------------------------------------------


async def test_what_works_for_a_live_request_is_granted_and_its_grant_says_whose_work_it_is() -> None:
    case = Case()
    await case.working()
    order = case.world.objects["TaskGrant", "shop", "work"]["spec"]["order"]
    assert order["parent"]["name"] == "plan"
    assert (order["act"], order["among"]) == ([FIXER], [FIXER])
    plan = case.world.objects["TaskGrant", "shop", "plan"]["spec"]["order"]
    assert plan.keys().isdisjoint({"act", "among", "delegatesPodTemplates", "parent"})
    conditions = case.world.objects["AccessRequest", "shop", "work"]["status"]["conditions"]
    (approved,) = (c["message"] for c in conditions if c["type"] == "Approved")
    assert approved == "policy fix, in the work of shop/plan"
    issued = next(r for r in case.world.records if r["reason"] == "CredentialIssued" and r["request"] == "shop/work")
    assert (issued["parent"], issued["act"]) == ("shop/plan", ["shop/fixer"])
    decided = next(r for r in case.world.records if r["reason"] == "PolicyMatched" and r["request"] == "shop/work")
    assert decided["facts"].parent.name == "plan"


async def test_it_ends_when_its_parents_time_is_up_though_it_asked_for_more() -> None:
    case = Case()
    plan = await case.plan()
    case.world.pass_time(timedelta(minutes=10))
    case.ask("work", "two", plan)
    await case.turn()
    grants = case.world.objects
    ends = {grants["TaskGrant", "shop", name]["spec"]["order"]["notAfter"] for name in ("plan", "work")}
    assert len(ends) == 1


Change = Callable[[Json], Json]
WRONG: dict[str, Change] = {
    "another uid": lambda body: {**body, "uid": "another"},
    "another name": lambda body: {**body, "name": "another"},
    "another namespace": lambda body: {**body, "namespace": "elsewhere"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
async def test_a_parent_is_known_by_namespace_name_and_uid(change: Change) -> None:
    case = Case()
    plan = await case.plan()
    case.ask("work", "two", change(plan))
    await case.turn()
    assert case.finished("work")[0] == "RequestDenied"
    assert not case.live("work")
    denial = case.world.objects["AccessRequest", "shop", "work"]["status"]["decision"]["denial"]
    assert (denial["reason"], denial["field"]) == ("ParentNotLive", "spec.parent")


async def test_a_request_does_not_work_for_itself_nor_for_one_that_hands_nothing_on() -> None:
    case = Case()
    own = {"namespace": "shop", "name": "work", "uid": "00000000"}
    case.ask("work", "two", own)
    await case.turn()
    assert case.finished("work")[0] == "RequestDenied"
    plan = await case.plan(ttl="15m")
    case.ask("more", "three", plan)
    await case.turn()
    denial = case.world.objects["AccessRequest", "shop", "more"]["status"]["decision"]["denial"]
    assert denial["reason"] == "BeyondParent"


async def test_what_waits_for_people_is_decided_again_when_its_parent_ends() -> None:
    case = Case()
    plan = await case.plan()
    asks = policy(15, approval={"timeout": "30m"}, **HANDS_ON)["spec"]
    case.world.change("AgentPolicy", "", "fix", {"spec": asks, "metadata": {"generation": 3}})
    case.ask("work", "two", plan)
    await case.turn()
    assert case.finished("work")[0] == "TaskInProgress"
    assert case.live("plan")
    case.report("plan")
    await case.turn(2)
    denial = case.world.objects["AccessRequest", "shop", "work"]["status"]["decision"]["denial"]
    assert denial["reason"] == "ParentNotLive"


# -- ends ------------------------------------------------------------------------------------------------------------

ENDS: dict[str, Callable[[Case], None]] = {
    "its agent reports": lambda case: case.report("plan"),
    "its request is deleted": lambda case: void(case.world.remove("AccessRequest", "shop", "plan")),
    "its grant is deleted": lambda case: void(case.world.remove("TaskGrant", "shop", "plan")),
    "its pod goes": lambda case: void(case.world.remove("Pod", "shop", "one")),
    "its policy lets nothing be handed on any more": lambda case: case.world.change(
        "AgentPolicy", "", "fix", {"spec": {"delegation": None}, "metadata": {"generation": 3}}
    ),
}


def void(_: object) -> None:
    """Nothing."""


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_whatever_ends_a_parent_ends_who_works_for_it_and_for_those(
    end: Callable[[Case], None],
) -> None:
    case = Case()
    work = case.ask("work", "two", await case.plan(), delegation={"to": [FIXER]})
    await case.turn()
    case.ask("more", "three", reference(work))
    await case.turn()
    assert case.live("more")
    assert case.world.objects["TaskGrant", "shop", "more"]["spec"]["order"]["act"] == [FIXER, FIXER]
    end(case)
    await case.turn(3)
    assert not case.world.live_tokens()
    assert case.world.of("TaskGrant") == []
    assert case.finished("work") == ("ParentEnded", "what was granted to its parent shop/plan has ended")
    assert case.finished("more") == ("ParentEnded", "what was granted to its parent shop/work has ended")


async def test_what_is_handed_on_ends_by_itself_and_its_parent_goes_on() -> None:
    case = Case()
    await case.working()
    case.report("work")
    await case.turn()
    assert not case.live("work")
    assert case.live("plan")


async def followed(case: Case) -> None:
    """Runs the keys that are woken from here on, and no others."""
    while case.process.woken:
        await case.process.worker.run(case.process.woken.pop(0))


async def test_the_end_of_a_parent_has_those_looked_at_who_work_for_it_and_for_those() -> None:
    case = Case()
    work = case.ask("work", "two", await case.plan(), delegation={"to": [FIXER]})
    await case.turn()
    case.ask("more", "three", reference(work))
    await case.turn()
    case.process.woken.clear()
    case.report("plan")
    case.process.intake.request(case.world.objects["AccessRequest", "shop", "plan"])
    await followed(case)
    assert not case.world.live_tokens()


async def test_an_end_that_another_replica_wrote_wakes_who_works_for_it_when_it_comes_in() -> None:
    """The one that led before wrote and deleted, and went; here it is heard of by a watch alone."""
    case = Case()
    await case.working()
    case.world.change("TaskGrant", "shop", "plan", {"status": ENDED})
    case.world.remove("TaskGrant", "shop", "plan")
    case.process.woken.clear()
    case.process.intake.grant(case.world.objects["TaskGrant", "shop", "plan"])
    await followed(case)
    assert not case.world.live_tokens()


async def test_an_end_whose_deletion_is_refused_ends_who_works_for_it_all_the_same() -> None:
    class Undeletable(World):
        async def delete(self, path: str, *, uid: str) -> Json:
            if path.endswith("/taskgrants/plan"):
                raise ApiError(503, "ServiceUnavailable", "not now")
            return await super().delete(path, uid=uid)

    case = Case()
    await case.working()
    case.world.__class__ = Undeletable
    case.process.woken.clear()
    case.report("plan")
    case.process.intake.request(case.world.objects["AccessRequest", "shop", "plan"])
    await followed(case)
    assert case.live("plan")
    assert not case.live("work")


async def test_what_has_finished_is_not_looked_at_again_when_its_parent_ends() -> None:
    case = Case()
    await case.working()
    case.report("work")
    await case.turn(2)
    case.process.woken.clear()
    case.report("plan")
    await case.process.worker.run(Key("shop", "plan"))
    await case.turn()
    assert Key("shop", "work") not in case.process.woken


async def test_a_grant_that_goes_by_force_takes_along_who_works_for_it() -> None:
    case = Case()
    await case.working()
    case.world.change("TaskGrant", "shop", "plan", {"metadata": {"finalizers": []}})
    case.world.remove("TaskGrant", "shop", "plan")
    await case.turn(2)
    assert not case.world.live_tokens()


@pytest.mark.parametrize("fuse", range(1, 40))
async def test_a_crash_at_any_moment_while_a_parent_ends_leaves_nobody_who_works_for_it(fuse: int) -> None:
    case = Case()
    await case.working()
    case.report("plan")
    await case.process.watch()
    case.world.fuse = fuse
    try:
        await case.process.work()
    except Crash:
        case.world.fuse, case.world.dead = None, False
        case.process = case.begun()
        await case.process.relist.read_all()
    case.world.fuse = None
    await case.turn(2)
    assert not case.world.live_tokens()
    assert case.finished("work")[0] == "ParentEnded"


async def test_a_parent_that_ends_while_the_grant_is_opened_is_found_before_anything_is_made() -> None:
    class Ending(World):
        async def create(self, path: str, body: Json) -> Json:
            made = await super().create(path, body)
            if path.endswith("/taskgrants") and body["metadata"]["name"] == "work":
                end = {"reason": "TaskReleased", "message": "m", "at": body["spec"]["order"]["openedAt"]}
                self.change("TaskGrant", "shop", "plan", {"status": {"end": end}})  # by another leader, unseen here
            return made

    case = Case()
    plan = await case.plan()
    case.world.__class__ = Ending
    case.ask("work", "two", plan)
    await case.process.watch()
    await case.process.worker.run(Key("shop", "work"))
    assert "shop/work" not in [record["request"] for record in case.world.records if record["reason"] == "IssuePending"]
    assert case.finished("work")[0] == "ParentEnded"


# -- what is not known -----------------------------------------------------------------------------------------------


async def unread(case: Case, *kinds: str) -> None:
    """A new life of the operator, which has read nothing of the plan of these kinds."""
    case.process = case.begun()
    await case.process.relist.read_all()
    key = Key("shop", "plan")
    for kind in kinds:
        known: Any = {"TaskGrant": case.process.cache.grants, "AccessRequest": case.process.cache.requests}[kind]
        for there in (*known._notes,):
            if there == key:
                known._leave(key, known._notes.pop(key))
                known._bodies.remove(key)


@pytest.mark.parametrize("kinds", [("TaskGrant",), ("AccessRequest",), ("TaskGrant", "AccessRequest")])
async def test_while_a_parent_was_not_read_yet_nothing_ends_and_nothing_begins(kinds: tuple[str, ...]) -> None:
    case = Case()
    await case.working()
    case.ask("more", "three", reference(case.world.objects["AccessRequest", "shop", "plan"]))
    await unread(case, *kinds)
    for name in ("work", "more"):
        await case.process.worker.run(Key("shop", name))
    assert case.live("work")
    assert case.finished("more")[0] in ("", "TaskInProgress")
    # What it works for is left to a watch, which has it looked at itself.
    for kind in kinds:
        take = case.process.intake.grant if kind == "TaskGrant" else case.process.intake.request
        case.process.woken.clear()
        take(case.world.objects[kind, "shop", "plan"])
        assert Key("shop", "plan") in case.process.woken
    await case.process.worker.run(Key("shop", "more"))
    assert case.live("more")


async def test_a_parent_that_is_not_there_when_it_is_read_is_over() -> None:
    case = Case()
    await case.working()
    case.world.objects.pop(("TaskGrant", "shop", "plan"))
    case.process = case.begun()
    await case.process.relist.read_all()
    await case.process.worker.run(Key("shop", "work"))
    assert not case.live("work")
    assert case.finished("work")[0] == "ParentEnded"


async def test_an_end_that_is_written_is_enough_though_nothing_was_taken_away_yet() -> None:
    case = Case()
    await case.working()
    case.process.cache.grants.put(grant_of(case, "plan", status=ENDED))
    await case.process.worker.run(Key("shop", "work"))
    assert case.finished("work")[0] == "ParentEnded"


async def test_a_new_leader_looks_first_at_what_works_for_something_that_is_over() -> None:
    case = Case()
    await case.working()
    case.ask("beside", "three")
    await case.turn()
    process = case.begun()
    await process.relist.read_all()
    process.cache.grants.put(grant_of(case, "plan", status=ENDED))
    ready: list[Key] = []
    process.queue.add = lambda key, *, ending: ready.append(key)  # type: ignore[method-assign]
    waiting: list[Key] = []
    process.queue.add_at = lambda key, at, *, ending: waiting.append(key)  # type: ignore[method-assign]
    await look_at_all(process.cache, process.queue, case.world.now)
    assert (set(ready[:2]), waiting) == ({Key("shop", "plan"), Key("shop", "work")}, [Key("shop", "beside")])


ENDED: Json = {"end": {"reason": "TaskReleased", "message": "m", "at": "2026-01-01T00:02:00Z"}}


def grant_of(case: Case, name: str, **change: Any) -> TaskGrant:
    """A grant as it is there, or as it will be."""
    newer = {"metadata": {"resourceVersion": "999999"}} if change else {}
    return TaskGrant.model_validate(merged(case.world.objects["TaskGrant", "shop", name], newer | change))


async def test_a_rule_about_namespaces_sees_those_of_what_is_handed_on() -> None:
    case = Case()
    case.world.add("Namespace", {"metadata": {"name": "web", "namespace": "", "labels": {"env": "production"}}})
    rule = 'namespaces.all(n, !has(namespaces[n].labels) || !("env" in namespaces[n].labels))'
    scopes = [
        {"namespaces": ["shop", "web"], "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}
    ]
    spec = {
        "access": [{"name": "read", "kubernetes": {"scopes": scopes}}],
        "validations": [{"name": "env", "expression": rule, "message": "Not in production."}],
    }
    case.world.change("AgentPolicy", "", "fix", {"spec": spec, "metadata": {"generation": 3}})
    handed_on = {"kubernetes": {"scopes": [{"namespace": "web", "rules": scopes[0]["rules"]}]}}
    case.ask("plan", "one", delegation={"to": [FIXER], "access": [handed_on]})
    await case.turn()
    denial = case.world.objects["AccessRequest", "shop", "plan"]["status"]["decision"]["denial"]
    assert denial["reason"] == "ValidationFailed"


# -- what nobody may say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["parent", "delegation"])
async def test_a_grant_that_says_something_else_than_its_request_is_no_grant(field: str) -> None:
    case = Case()
    await case.working()
    forged = {"parent": None} if field == "parent" else {"delegation": {"to": [FIXER]}}
    case.world.change("TaskGrant", "shop", "work", {"spec": {"order": forged}})
    await case.turn()
    assert not case.live("work")
    assert case.finished("work")[0] == "IssueFailed"
