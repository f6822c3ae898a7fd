"""The step machine under Hypothesis: it crashes at any await, restarts, and every promise still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.properties.life import GUARD, LONG, PODS, SHORT, Process, approval, pod, policy, request
from tests.properties.world import Crash, World, ends_at
from valetkey.controller import objects
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import REQUEST_LABEL, SECRET_TYPE, format_seconds
from valetkey.kube.api import Json
from valetkey.reasons import Reason, place_of

BACKSTOPS = ("None", "Job")
PEOPLE = ("ann", "bob", "kim")
APPROVALS = st.none() | st.integers(1, 2)
"""How many people a policy asks; None where it asks nobody."""
HOUR = timedelta(hours=1)
HANDS_ON: Json = {"delegation": {"to": [{"namespace": "shop", "serviceAccount": "fixer"}], "maxDepth": 3}}
DISABLES = {Reason.TASK_RELEASED, Reason.TTL_REACHED, Reason.POD_FINISHED}
"""What takes away bindings while the end is being written."""


AWAKE = objects.AWAKE


class Machine(RuleBasedStateMachine):
    """Agents, people, time and faults on one side; the operator, which dies a lot, on the other."""

    @initialize(
        backstop=st.sampled_from(BACKSTOPS),
        awake=st.sampled_from((0, AWAKE)),
        asks=APPROVALS,
        covers=st.booleans(),
        per_hour=st.none() | st.integers(1, 3),
    )
    def begin(self, backstop: str, awake: int, asks: int | None, covers: bool, per_hour: int | None) -> None:
        objects.AWAKE = awake  # type: ignore[misc]
        self.world = World()
        self.causes: dict[str, set[str]] = {}
        self.crashes = 0
        self.world.add("ValidatingAdmissionPolicy", {**GUARD})
        self.world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
        self.per_hour = per_hour
        self.limits = HANDS_ON | ({} if per_hour is None else {"limits": {"perHour": per_hour}})
        self.covers = covers
        self.world.add("AgentPolicy", policy(15, backstop, **people(asks, covers), **self.limits))
        self.world.approvers = {"fix": set(PEOPLE)}
        self.wavered: set[str] = set()
        """People who may not have had the right all the time."""
        self.pods: dict[str, str] = {}
        """The uid of its pod, by that of each request."""
        self.unsettled: set[str] = set()
        """Pods where something that may have covered others was taken back, denied or deleted."""
        self.asked_for = {1: asks or 0}
        """How many people each generation of the policy asks."""
        self.seen: set[str] = set()
        """Grants that were looked at when they were new."""
        self.world.now += timedelta(minutes=1)
        self.world.now = self.world.now.replace(microsecond=0)
        for name in PODS:
            self.world.add("Pod", pod(name))
        self.process = Process(self.world)
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.operate(fuse=None, after=False, faults=[], fresh=True)

    # -- the operator ----------------------------------------------------------------------------------------------

    @rule(
        fuse=st.none() | st.integers(1, 40),
        after=st.booleans(),
        faults=st.lists(st.sampled_from([0, 0, 0, 0, 409, 429, 500]), max_size=12),
        fresh=st.booleans(),
        woken=st.booleans(),
    )
    def operate(self, fuse: int | None, after: bool, faults: list[int], fresh: bool, woken: bool = False) -> None:
        """Looks at every key, or where nothing fails at those alone that news has woken."""
        world = self.world
        if fresh:
            self.run(self.process.watch)
        if woken:
            fuse, faults = None, []
        world.fuse, world.fuse_after, world.faults = fuse, after, list(faults)  # which the world uses up
        try:
            self.run(self.process.work_woken if woken else self.process.work)
        except Crash:
            self.crashes += 1
        crashed = world.dead
        world.fuse, world.dead, world.faults = None, False, []
        if crashed:
            self.process = Process(world)
            self.run(self.process.relist.read_all)
        elif fresh and not any(faults):
            for grant in self.live_grants():
                self.check_words(grant)
            # Who works for what has just ended has been woken, and may have had its turn before.
            self.run(self.process.work_woken if woken else self.process.work)
            named = {grant["spec"]["order"]["requestUID"] for grant in self.live_grants() if "end" not in status(grant)}
            for grant in self.live_grants():
                parent = grant["spec"]["order"].get("parent")
                assert parent is None or parent["uid"] in named, "it outlives its parent"
        if crashed or any(faults):
            self.process.wake_all()  # what has failed is tried again

    def check_words(self, grant: Json) -> None:
        """Whatever a live grant rests on is there, and nobody who may has denied what it was said on."""
        said = {body["metadata"]["uid"]: body["spec"] for body in self.world.of("AccessApproval")}
        for word in grant["spec"]["order"].get("approvals", ()):
            assert word["uid"] in said, "it outlives a word"
            about = said[word["uid"]]["request"]
            assert self.world.objects["AccessRequest", "shop", about["name"]]["metadata"]["uid"] == about["uid"]
            against = {
                one["approver"]["username"]
                for one in said.values()
                if one["verdict"] == "Deny" and one["request"] == about
            }
            assert not against & (self.world.approvers["fix"] - self.wavered), "it outlives a denial"

    @rule(at=st.integers(1, 14), orphan=st.booleans(), named=st.booleans())
    def the_operator_sweeps(self, at: int, orphan: bool, named: bool) -> None:
        """Grants begin and end while it looks; a write of an earlier life comes in late."""
        world = self.world
        if orphan:
            self.count += 1
            uid = f"1a7e0000-0000-4000-8000-{self.count:012d}"
            for kind, namespace, name in [
                ("ServiceAccount", "valetkey-grants", f"valetkey-{uid}"),
                ("Job", "valetkey-grants", f"valetkey-{uid}"),
                ("Role", "shop", f"valetkey-{uid}-0"),
                ("RoleBinding", "shop", f"valetkey-{uid}-0"),
            ]:
                labels = {REQUEST_LABEL: uid if named else "another"}
                body: Json = {"metadata": {"name": name, "namespace": namespace, "labels": labels}}
                world.add(kind, body | ({"spec": {"activeDeadlineSeconds": 1}} if kind == "Job" else {}))
        world.lists, world.before_list = 0, (at, self.process.work)
        self.run(self.process.sweep.sweep)
        world.before_list = None
        late = [place for place in world.objects if "1a7e0000" in place[2]]
        assert bool(late) == (orphan and not named), late
        for place in late:  # those are not ours, and were left alone
            world.objects.pop(place)

    @rule(minutes=st.sampled_from([0.1, 1.0, 3.0, 7.0]))
    def time_passes(self, minutes: float) -> None:
        self.world.pass_time(timedelta(minutes=minutes))
        for grant in self.live_grants():
            if self.world.now >= not_after(grant):
                self.cause(grant, Reason.TTL_REACHED)

    # -- agents and people -----------------------------------------------------------------------------------------

    @rule(owner=st.sampled_from(PODS), ttl=st.sampled_from([SHORT, LONG]), secret=st.sampled_from(["a", "b", ""]))
    def an_agent_asks(self, owner: str, ttl: str, secret: str) -> None:
        found = self.world.objects.get(("Pod", "shop", owner))
        if found is not None:
            self.count += 1
            body = request(f"r{self.count}", found, ttl, secret and f"valetkey-{owner}-{secret}", self.world.now)
            body["spec"] |= HANDS_ON
            made = self.world.add("AccessRequest", body)
            self.pods[made["metadata"]["uid"]] = found["metadata"]["uid"]

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data(), owner=st.sampled_from(PODS), secret=st.sampled_from(["a", "b", ""]), depth=st.integers(1, 3))
    def an_agent_asks_for_work_that_another_hands_on(
        self, data: st.DataObject, owner: str, secret: str, depth: int
    ) -> None:
        """Mostly of one that is live, and hands it on in its turn."""
        bodies = self.world.of("AccessRequest")
        live = [body for body in bodies if "grant" in body.get("status", {})]
        parent = data.draw(st.sampled_from(live or bodies))["metadata"]
        found = self.world.objects.get(("Pod", "shop", owner))
        if found is not None:
            self.count += 1
            body = request(f"r{self.count}", found, LONG, secret and f"valetkey-{owner}-{secret}", self.world.now)
            body["spec"] |= {"parent": {field: parent[field] for field in ("namespace", "name", "uid")}}
            body["spec"] |= {"delegation": HANDS_ON["delegation"] | {"maxDepth": depth}}
            made = self.world.add("AccessRequest", body)
            self.pods[made["metadata"]["uid"]] = found["metadata"]["uid"]
            self.cause_of_request(made["metadata"]["uid"], Reason.PARENT_ENDED)

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data())
    def an_agent_reports(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.world.of("AccessRequest")))
        if "outcome" not in body["spec"]:
            self.report(body)

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data())
    def a_request_is_deleted(self, data: st.DataObject) -> None:
        self.delete(data.draw(st.sampled_from(self.world.of("AccessRequest"))))

    @precondition(lambda self: self.live_grants())
    @rule(data=st.data(), by_force=st.booleans())
    def a_grant_is_deleted(self, data: st.DataObject, by_force: bool) -> None:
        body = data.draw(st.sampled_from(self.live_grants()))
        self.cause(body, Reason.GRANT_DELETED)
        if by_force:
            # The operator has seen it: somebody who can break guards does it while it runs.
            self.run(self.process.watch)
            self.world.change("TaskGrant", "shop", body["metadata"]["name"], {"metadata": {"finalizers": []}})
        self.world.remove("TaskGrant", "shop", body["metadata"]["name"])
        if by_force:
            self.run(self.process.watch)
            self.operate(fuse=None, after=False, faults=[], fresh=True)

    @rule(name=st.sampled_from(PODS), how=st.sampled_from(["finish", "delete", "replace"]))
    def a_pod_ends(self, name: str, how: str) -> None:
        found = self.world.objects.get(("Pod", "shop", name))
        if found is None:
            self.world.add("Pod", pod(name))
            return
        for grant in self.live_grants():
            if grant["spec"]["order"]["subject"]["podUID"] == found["metadata"]["uid"]:
                self.cause(grant, Reason.POD_FINISHED if how == "finish" else Reason.POD_DELETED)
        if how == "finish":
            self.world.change("Pod", "shop", name, {"status": {"phase": "Succeeded"}})
            return
        self.world.remove("Pod", "shop", name)
        if how == "replace":
            self.world.add("Pod", pod(name))

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data(), who=st.sampled_from(PEOPLE), verdict=st.sampled_from(["Approve", "Approve", "Deny"]))
    def a_person_speaks(self, data: st.DataObject, who: str, verdict: str) -> None:
        body = data.draw(st.sampled_from(self.world.of("AccessRequest")))
        if who not in self.world.approvers["fix"]:  # the guard lets nobody else
            return
        if verdict == "Deny":
            self.deny(body, who)
        else:
            self.count += 1
            self.world.add("AccessApproval", approval(f"a{self.count}", body, who))

    @precondition(lambda self: self.covers and self.world.of("AccessRequest"))
    @rule(
        data=st.data(),
        who=st.sampled_from(PEOPLE),
        minutes=st.sampled_from([-1, 2, 20, 2000]),
        seen=st.sampled_from([0, 0, 0, -1]),
    )
    def a_person_speaks_on_a_task(self, data: st.DataObject, who: str, minutes: int, seen: int) -> None:
        body = data.draw(st.sampled_from(self.world.of("AccessRequest")))
        if who in self.world.approvers["fix"]:
            self.says_of_task(body, who, minutes, seen)

    @rule(
        who=st.sampled_from(PEOPLE),
        then=st.sampled_from(["nothing", "takes it back", "loses the right"]),
        late=st.booleans(),
    )
    def everybody_agrees(self, who: str, then: str, late: bool) -> None:
        """And the operator hears of it; then one of them changes their mind, or may not say so any more."""
        asked = [body for body in self.world.of("AccessRequest") if "grant" not in body.get("status", {})]
        for body in asked:
            for one in self.world.approvers["fix"] - ({who} if late else set()):
                self.count += 1
                self.world.add("AccessApproval", approval(f"a{self.count}", body, one))
        self.run(self.process.watch)
        if then == "takes it back":
            for body in list(self.world.of("AccessApproval")):
                if body["spec"]["approver"]["username"] == who:
                    self.take_back(body)
        elif then == "loses the right":
            self.world.approvers["fix"].discard(who)
            self.wavered.add(who)

    @precondition(lambda self: "covers" in self.world.objects["AgentPolicy", "", "fix"]["spec"].get("approval", {}))
    @rule(
        owner=st.sampled_from(PODS),
        minutes=st.sampled_from([2, 20]),
        granted=st.booleans(),
        then=st.sampled_from(["nothing", "taken back", "denied", "deleted", "finished", "lost", "changed"]),
    )
    def a_task_goes_on_over_two_requests(self, owner: str, minutes: int, granted: bool, then: str) -> None:
        """Everybody approves the first for its task; the second is granted, or about to be, when something happens."""
        if ("Pod", "shop", owner) not in self.world.objects:
            return
        self.an_agent_asks(owner, LONG, "a")
        first = self.world.objects["AccessRequest", "shop", f"r{self.count}"]
        who = sorted(self.world.approvers["fix"])
        for one in who:
            self.says_of_task(first, one, minutes)
        self.operate(fuse=None, after=False, faults=[], fresh=True)
        self.who_is_asked_had_said_yes_when_a_grant_was_opened()
        self.an_agent_asks(owner, LONG, "b")
        self.run(self.process.watch)
        if granted:
            self.run(self.process.work)
            self.who_is_asked_had_said_yes_when_a_grant_was_opened()
            self.run(self.process.watch)
            self.process.woken.clear()  # nothing is left to do: whoever is woken from here on is woken for what follows
        if ("AccessRequest", "shop", first["metadata"]["name"]) not in self.world.objects:
            return
        if then == "taken back" and who:
            mine = (one for one in self.world.of("AccessApproval") if one["spec"]["approver"]["username"] == who[0])
            (word,) = (one for one in mine if one["spec"]["request"]["uid"] == first["metadata"]["uid"])
            self.take_back(word)
        elif then == "denied" and who:
            self.deny(first, who[0])
        elif then == "deleted":
            self.delete(first)
        elif then == "finished":
            self.report(first)
        elif then == "lost" and who:
            self.a_person_loses_the_right_or_gets_it_back(who[0])
        elif then == "changed":
            self.the_policy_changes(15, "None", 1)
        if granted:
            self.operate(fuse=None, after=False, faults=[], fresh=True, woken=True)

    @precondition(lambda self: self.world.of("AccessApproval"))
    @rule(data=st.data())
    def a_person_takes_it_back(self, data: st.DataObject) -> None:
        self.take_back(data.draw(st.sampled_from(self.world.of("AccessApproval"))))

    @rule(who=st.sampled_from(PEOPLE))
    def a_person_loses_the_right_or_gets_it_back(self, who: str) -> None:
        """What they said when they had it counts again when they get it back."""
        self.world.approvers["fix"] ^= {who}
        self.wavered.add(who)

    @rule(minutes=st.sampled_from([1, 15]), backstop=st.sampled_from(BACKSTOPS), asks=APPROVALS)
    def the_policy_changes(self, minutes: int, backstop: str, asks: int | None) -> None:
        known = self.world.objects["AgentPolicy", "", "fix"]
        generation = known["metadata"]["generation"] + 1
        spec = policy(minutes, backstop, **people(asks, self.covers), **self.limits)["spec"] | (
            {} if asks else {"approval": None}
        )
        self.asked_for[generation] = asks or 0
        self.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": generation}, "spec": spec})
        if minutes == 1:
            for grant in self.live_grants():
                self.cause(grant, Reason.POLICY_CHANGED)
        for body in self.world.of("AccessRequest"):
            # What is being granted as the policy changes ends, for nobody has been asked by the policy as it is now.
            if minutes == 1 or "grant" not in body.get("status", {}):
                self.cause_of_request(body["metadata"]["uid"], Reason.POLICY_CHANGED)

    @rule(name=st.sampled_from(PODS))
    def somebody_takes_the_name_of_the_secret(self, name: str) -> None:
        place = ("Secret", "shop", f"valetkey-{name}-b")
        if place not in self.world.objects:
            body = {"metadata": {"name": place[2], "namespace": "shop"}, "type": "Opaque", "data": {"theirs": "eA=="}}
            self.world.add("Secret", body)

    # -- promises --------------------------------------------------------------------------------------------------

    @invariant()
    def every_live_credential_is_named_by_a_grant(self) -> None:
        named = {grant["spec"]["plan"]["kubernetes"]["account"]["name"] for grant in self.world.of("TaskGrant")}
        named |= {
            grant.spec.plan.kubernetes.account.name
            for grant in self.process.cache.vanished.values()
            if grant.spec.plan.kubernetes
        }
        for kind in ("ServiceAccount", "Role", "RoleBinding", "Job"):
            for body in self.world.of(kind):
                assert f"valetkey-{body['metadata']['labels'][REQUEST_LABEL]}" in named, (kind, body)

    @invariant()
    def what_a_live_grant_was_given_is_there(self) -> None:
        for grant in self.live_grants():
            status = grant.get("status", {})
            if "end" not in status and any(c["type"] == "Delivered" for c in status.get("conditions", ())):
                plan = grant["spec"]["plan"]["kubernetes"]
                timed = [plan["account"], plan["timer"]] if "timer" in plan else []
                over = self.world.now >= not_after(grant)
                disabled = not DISABLES.isdisjoint(self.causes.get(grant["spec"]["order"]["requestUID"], ()))
                for entry in (plan["account"], *plan["objects"], *timed):
                    if (over and entry in timed) or (disabled and entry["kind"] == "RoleBinding"):
                        continue
                    assert (entry["kind"], entry["namespace"], entry["name"]) in self.world.objects, entry

    @invariant()
    def what_has_a_timer_is_over_at_its_time_whatever_the_operator_does(self) -> None:
        accounts = {body["metadata"]["name"]: body["metadata"] for body in self.world.of("ServiceAccount")}
        jobs = {body["metadata"]["name"]: body for body in self.world.of("Job")}
        for grant in self.world.of("TaskGrant"):
            timer = grant["spec"]["plan"]["kubernetes"].get("timer")
            assert (timer is not None) == grant["spec"]["order"]["backstop"]
            account = accounts.get(grant["spec"]["plan"]["kubernetes"]["account"]["name"])
            if timer is None:
                assert account is None or "ownerReferences" not in account
                continue
            job = jobs.get(timer["name"])
            if job is not None:
                assert ends_at(job) <= not_after(grant) + timedelta(seconds=3)
            if account is not None:
                assert job is not None
                assert [owner["uid"] for owner in account["ownerReferences"]] == [job["metadata"]["uid"]]

    @invariant()
    def no_grant_has_two_credentials_within_reach(self) -> None:
        live = self.world.live_tokens()
        renewed = {record["request_uid"] for record in self.world.records if record.get("message") == "renewal"}
        within: dict[str, set[str]] = {}
        for uid, token in self.world.placed:
            if token in live and uid not in renewed:
                within.setdefault(uid, set()).add(token)
        assert all(len(tokens) == 1 for tokens in within.values()), within

    @invariant()
    def who_is_asked_had_said_yes_when_a_grant_was_opened(self) -> None:
        """Each grant that is new was opened since the last look: nobody but the operator has acted meanwhile."""
        for grant in self.world.of("TaskGrant"):
            if grant["metadata"]["uid"] in self.seen:
                continue
            self.seen.add(grant["metadata"]["uid"])
            order = grant["spec"]["order"]
            words = order.get("approvals", [])
            needed = self.asked_for[order["policy"]["generation"]]
            beside = [word for word in words if "request" in word]
            assert len(words) == len({word["username"] for word in words})
            assert len(words) >= needed if beside else len(words) == needed
            for word in words:
                if ("AccessApproval", "shop", word["name"]) not in self.world.objects:
                    # The operator had not heard that it was gone: it finds that before anything is made.
                    assert not self.tokens_of(grant)
                    continue
                said = self.world.objects["AccessApproval", "shop", word["name"]]
                assert said["metadata"]["uid"] == word["uid"]
                assert said["spec"]["verdict"] == "Approve"
                assert word["username"] in self.world.approvers["fix"]
                if word in beside:
                    self.check_covered(grant, said)
                else:
                    assert said["spec"]["request"]["uid"] == order["requestUID"]

    def check_covered(self, grant: Json, said: Json) -> None:
        """A word on another request is for its task, for this pod, of this policy, and lasts as long as the grant."""
        order, spec = grant["spec"]["order"], said["spec"]
        asked = self.world.objects["AccessRequest", "shop", spec["request"]["name"]]
        assert asked["metadata"]["uid"] == spec["request"]["uid"] != order["requestUID"]
        assert asked["spec"]["subject"]["podUID"] == order["subject"]["podUID"]
        assert [asked["spec"].get(field) for field in ("parent", "delegation")] == [
            order.get(field) for field in ("parent", "delegation")
        ]
        assert spec["covers"] == "Task"
        assert spec["policyGeneration"] == order["policy"]["generation"]
        day = datetime.fromisoformat(said["metadata"]["creationTimestamp"]) + timedelta(hours=24)
        assert not_after(grant) <= min(datetime.fromisoformat(spec["until"]), day)

    @invariant()
    def no_more_is_granted_in_any_hour_than_the_policy_says(self) -> None:
        if self.per_hour is not None:
            granted = self.world.granted
            assert all(at - first >= HOUR for first, at in zip(granted, granted[self.per_hour :], strict=False))

    @invariant()
    def a_secret_of_others_is_as_it_was(self) -> None:
        for body in self.world.of("Secret"):
            assert body["type"] == SECRET_TYPE or body["data"] == {"theirs": "eA=="}

    def teardown(self) -> None:
        """Everything ends, and for the reason that began the end."""
        self.all_ends()
        objects.AWAKE = AWAKE  # type: ignore[misc]

    def all_ends(self) -> None:
        for _ in range(12):
            self.time_passes(7.0)
            self.operate(fuse=None, after=False, faults=[], fresh=True)
            self.operate(fuse=None, after=False, faults=[], fresh=True)
        world = self.world
        assert not world.of("TaskGrant")
        for kind in ("ServiceAccount", "Role", "RoleBinding", "Job"):
            assert not world.of(kind), (kind, world.of(kind))
        assert all(body["type"] != SECRET_TYPE for body in world.of("Secret"))
        assert not world.live_tokens()
        for body in world.of("AccessRequest"):
            assert AccessRequest.model_validate(body).finished, body
            assert "delivery" not in body["status"], body
        self.check_reasons()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def check_reasons(self) -> None:
        ends: dict[str, str] = {}
        for record in self.world.records:
            uid = record.get("grant")
            if uid is None or record["reason"] == "CredentialRevoked":
                continue
            if place_of(Reason(record["reason"]))[1] == "Finished":
                ends[uid] = record["reason"]
        for record in self.world.records:
            if record["reason"] == "CredentialRevoked":
                uid = record["grant"]
                assert record["message"].startswith(ends[uid]), (record, ends)
                unsettled = self.covers and self.pods[record["request_uid"]] in self.unsettled
                known = {Reason.DELIVERY_FAILED, Reason.ISSUE_FAILED, *([Reason.POLICY_CHANGED] if unsettled else [])}
                if ends[uid] not in known:
                    assert ends[uid] in self.causes.get(record["request_uid"], ()), (record, self.causes)

    # -- inside ----------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[], Any]) -> None:
        self.loop.run_until_complete(work())

    def tokens_of(self, grant: Json) -> list[str]:
        account = grant["spec"]["plan"]["kubernetes"]["account"]["name"]
        return [token for token, (name, _) in self.world.tokens.items() if name == account]

    def live_grants(self) -> list[Json]:
        return [body for body in self.world.of("TaskGrant") if "deletionTimestamp" not in body["metadata"]]

    def report(self, request: Json) -> None:
        self.world.change("AccessRequest", "shop", request["metadata"]["name"], {"spec": {"outcome": "Succeeded"}})
        self.cause_of_request(request["metadata"]["uid"], Reason.TASK_RELEASED)

    def delete(self, request: Json) -> None:
        self.world.remove("AccessRequest", "shop", request["metadata"]["name"])
        self.cause_of_request(request["metadata"]["uid"], Reason.REQUEST_DELETED)
        self.unsettle(request["metadata"]["uid"])

    def says_of_task(self, request: Json, who: str, minutes: int, seen: int = 0) -> None:
        """That somebody approves the whole task; `seen` is how far the policy was from what it is."""
        self.count += 1
        generation = self.world.objects["AgentPolicy", "", "fix"]["metadata"]["generation"] + seen
        until = format_seconds(self.world.now + timedelta(minutes=minutes))
        task: Json = {"covers": "Task", "until": until, "policyGeneration": max(1, generation)}
        self.world.add("AccessApproval", approval(f"a{self.count}", request, who, **task))

    def deny(self, request: Json, who: str) -> None:
        self.count += 1
        self.world.add("AccessApproval", approval(f"a{self.count}", request, who, "Deny"))
        self.cause_of_request(request["metadata"]["uid"], Reason.POLICY_CHANGED)
        self.unsettle(request["metadata"]["uid"])

    def take_back(self, word: Json) -> None:
        self.world.remove("AccessApproval", "shop", word["metadata"]["name"])
        self.cause_of_request(word["spec"]["request"]["uid"], Reason.POLICY_CHANGED)
        self.unsettle(word["spec"]["request"]["uid"])

    def unsettle(self, request: str) -> None:
        self.unsettled.add(self.pods[request])

    def cause(self, grant: Json, reason: Reason) -> None:
        self.cause_of_request(grant["spec"]["order"]["requestUID"], reason)

    def cause_of_request(self, uid: str, reason: Reason) -> None:
        self.causes.setdefault(uid, set()).add(reason)


def status(grant: Json) -> Json:
    """What was observed of a grant."""
    found: Json = grant.get("status", {})
    return found


def people(asks: int | None, covers: bool) -> Json:
    """The part of a policy that asks for so many people, and says what a word of theirs may cover."""
    return {"approval": {"approvals": asks} | ({"covers": "Task"} if covers else {})} if asks else {}


def not_after(grant: Json) -> datetime:
    """When a grant ends at the latest."""
    return datetime.fromisoformat(grant["spec"]["order"]["notAfter"])


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
