"""A word on one request that covers others of its task: which, for how long, and what then rests on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from cel_expr_python import cel  # type: ignore[import-untyped]
from pydantic import TypeAdapter

from tests.unit.policy.given import DEPLOYMENTS, NOW, PODS, decided, deny, facts, in_shop, policy, request
from tests.unit.policy.test_approvals import ITSELF, UNSPOKEN, rule, said
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest, RequestMetadata, RequestSpec
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.base import Metadata
from valetkey.kinds.schema import structural
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.coverage import LONGEST, MOST, end, task_word, void_for
from valetkey.policy.decide import Approved, Decision, Denied, Waiting, decide
from valetkey.policy.explain import explain
from valetkey.policy.facts import Facts, ParentFacts, TaskWord
from valetkey.policy.replay import replay

UNREAD = "which cannot be read"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LATER = NOW + timedelta(minutes=10)
TASK: dict[str, Any] = {"covers": "Task"}
PEOPLE = policy(approval=TASK)


HANDED_ON: dict[str, Any] = {"to": [{"namespace": "shop", "serviceAccount": "worker"}], "maxDepth": 1}
PARENT = {"namespace": "shop", "name": "plan", "uid": "plan-uid"}


def parent_of(account: str) -> ParentFacts:
    """What is granted to the request that another works for, which hands all of it on to the fixer."""
    return ParentFacts(
        namespace=PARENT["namespace"],
        name=PARENT["name"],
        uid=PARENT["uid"],
        task={},
        account=account,
        act=(),
        to=(("shop-agents", "fixer"),),
        among=(("shop-agents", "fixer"),),
        pod_templates=False,
        depth=1,
        access=(request().access.to_api(),),
        not_after=NOW + HOUR,
    )


def word(
    username: str = "ann", *, asked: RequestSpec | None = None, until: timedelta = HOUR, **changes: Any
) -> TaskWord:
    """What a person said at 14:01 on the request r1, which is the same as the one that is decided."""
    statement = said(username, minute=1, request="r1", until=NOW + until)
    beside = {key: changes.pop(key) for key in ("policy_generation", "denied_by") if key in changes}
    body = (asked or request()).to_api()
    whole: dict[str, Any] = {"policy_generation": 3, "asked": body, "denied_by": None} | beside
    return TaskWord(said=replace(statement, **changes), **whole)


def asked(*policies: AgentPolicy, words: tuple[TaskWord, ...] = (), own: Any = (), **known: Any) -> Decision:
    spec = known.pop("spec", None) or request()
    return decided(spec, *(policies or (PEOPLE,)), known=facts(now=LATER, covering=words, approvals=own, **known))


def waits(decision: Decision) -> str:
    """Why what was said does not count, of a request that waits for all that."""
    assert isinstance(decision, Waiting), decision
    assert decision.approved_by == ()
    (why,) = decision.void
    return why


def rests_on(decision: Decision) -> list[tuple[str, str | None]]:
    assert isinstance(decision, Approved), decision
    return [(one.username, one.request) for one in decision.approvals]


def of_access(*rules: dict[str, Any], **spec: Any) -> RequestSpec:
    return request(access=in_shop(*rules), **spec)


# -- what a word covers ----------------------------------------------------------------------------------------------


def test_a_further_request_of_the_task_is_granted_by_the_same_word_which_the_grant_names() -> None:
    decision = asked(words=(word(),))
    assert rests_on(decision) == [("ann", "r1")]
    assert isinstance(decision, Approved)
    (one,) = decision.approvals
    assert (one.name, one.uid, decision.reason) == ("ann-says", "uid-ann", "PersonApproved")


def test_less_access_for_another_time_and_in_other_words_is_of_the_task_too() -> None:
    less = request(
        {"id": "run-2", "objective": "Look at it again"},
        access=in_shop({**DEPLOYMENTS, "verbs": ["get"]}),
        ttl="3m",
    )
    assert rests_on(asked(words=(word(),), spec=less)) == [("ann", "r1")]


@pytest.mark.parametrize("spec", [{"approval": {}}, {"approval": {"covers": "Request"}}])
def test_a_policy_that_does_not_let_a_word_cover_a_task_never_hears_it(spec: dict[str, Any]) -> None:
    heard = policy(validations=rule("size(approvals) == 0"), **spec)
    decision = asked(heard, words=(word(),))
    assert waits(decision) == (
        "ann approved the task of r1 until 2026-11-23T15:00:00Z, and policy shop-fixers lets a word cover its own "
        "request alone (approval.covers)"
    )


def _of(**parameters: Any) -> RequestSpec:
    return request({"parameters": parameters})


def _requester(**changes: Any) -> RequestSpec:
    spec = request().to_api()
    return RequestSpec.model_validate(spec | {"requester": spec["requester"] | changes})


def _rules(count: int) -> RequestSpec:
    others = [DEPLOYMENTS | {"resourceNames": [f"d{at}"]} for at in range(count - 1)]
    return of_access(*others, DEPLOYMENTS)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (word(until=10 * MINUTE), "which is over"),
        (word(until=10 * MINUTE + timedelta(milliseconds=999)), "which is over"),
        (word(until=-HOUR), "which is over"),
        (word(policy_generation=2), "before policy shop-fixers was changed"),
        (word(at=NOW), "before policy shop-fixers was changed"),
        (word(denied_by="bob"), "which bob has denied"),
        (word(allowed=False), "and may no longer approve for policy shop-fixers"),
        (word(verdict="Deny"), "which covers no other request"),
        (word(asked=request(subject={"podName": "fixer-1", "podUID": "another"})), "for another pod"),
        (word(asked=_requester(podUID="another")), "for another pod"),
        (word(asked=_requester(serviceAccount="other")), "for another ServiceAccount"),
        (word(asked=_requester(via="Door")), "that came in another way"),
        (word(asked=_requester(username="system:serviceaccount:other:fixer")), "for another ServiceAccount"),
        (word(asked=request({"purpose": "upgrade"})), "for another purpose"),
        (word(asked=_of(deployment="web")), "for other parameters"),
        (word(asked=_of()), "for other parameters"),
        (word(asked=_of(deployment="checkout", more=1)), "for other parameters"),
        (
            word(asked=of_access({**DEPLOYMENTS, "verbs": ["get"]})),
            "for less than spec.access.kubernetes.scopes[0].rules[0]",
        ),
        (word(asked=of_access(PODS)), "for less than spec.access.kubernetes.scopes[0].rules[0]"),
        (
            word(asked=of_access(*[PODS | {"resourceNames": [f"p{n}" for n in range(32)], "verbs": ["v"] * 32}] * 16)),
            UNREAD,
        ),
        (word(asked=_rules(16)), None),
        (replace(word(), asked={"task": {}}), UNREAD),
        (word(asked=request(parent=PARENT)), "in the work of another request, or of none"),
        (word(asked=request(delegation=HANDED_ON)), "for work that is handed on otherwise"),
        (word(asked=request(delegation=HANDED_ON | {"access": [in_shop(*[PODS] * 16)] * 3})), UNREAD),
        (word(asked=request(delegation=HANDED_ON | {"access": [in_shop(PODS | {"apiGroups": ["core"]})]})), UNREAD),
        (word(asked=_of(deployment={"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}})), UNREAD),
    ],
)
def test_a_word_covers_no_other_task_and_no_more_and_its_approver_is_told_why(one: TaskWord, why: str | None) -> None:
    decision = asked(words=(one,))
    if why is None:
        assert rests_on(decision) == [("ann", "r1")]
    else:
        assert waits(decision).endswith(f", {why}")


def test_of_more_rules_than_are_compared_only_the_same_request_is_covered() -> None:
    spec: dict[str, Any] = {
        "access": [{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [ANY]}]}}]
    }
    people = policy(approval=TASK, **spec)
    scopes = [{"namespace": "shop", "rules": [{**DEPLOYMENTS, "resourceNames": [f"d{at}"]} for at in range(16)]}] * 2
    large = request(access={"kubernetes": {"scopes": scopes}})
    assert rests_on(asked(people, words=(word(asked=large),), spec=large)) == [("ann", "r1")]
    less = request(access={"kubernetes": {"scopes": scopes[:1]}})
    assert waits(asked(people, words=(word(asked=large),), spec=less)).endswith("of too many rules to compare")


ANY: dict[str, Any] = {**{key: value for key, value in DEPLOYMENTS.items() if key != "resourceNames"}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, True, False),
        (0, False, False),
        (1, 1.0, True),
        (1, "1", False),
        (None, False, False),
        ([1], [True], False),
        (["a", "b"], ["b", "a"], False),
        (["a"], "a", False),
        (["a"], ["a", "b"], False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}]}, True),
        ({"a": [{"b": 1}]}, {"a": [{"b": True}]}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        (9007199254740993, 9007199254740992.0, False),
    ],
)
def test_parameters_are_the_same_as_json_has_them(one: object, other: object, same: bool) -> None:
    for before, asks in ((one, other), (other, one)):
        why = void_for(word(asked=_of(p=before)), _of(p=asks), PEOPLE, LATER)
        assert (why is None) is same
        assert same or str(why).endswith("for other parameters")


def test_what_an_agent_says_itself_covers_nothing_and_nobody_is_asked_to_look_for_more() -> None:
    decision = asked(words=(word(ITSELF),))
    assert waits(decision) == f"{ITSELF} asks itself"


@pytest.mark.parametrize("who", ["system:serviceaccount:shop:worker", "system:serviceaccount:shop:planner"])
def test_whoever_has_a_part_in_the_work_covers_nothing_of_it(who: str) -> None:
    """It is handed on by the planner, and further to the worker."""
    known = {"parent": parent_of("planner")} if who.endswith("planner") else {}
    spec = request(parent=PARENT) if known else request(delegation=HANDED_ON)
    limits = {"to": HANDED_ON["to"], "maxDepth": 1}
    people = policy(approval=TASK, delegation=limits)
    decision = asked(people, words=(word(who, asked=spec),), spec=spec, **known)
    assert waits(decision) == f"{who} has a part in that work"
    assert rests_on(asked(people, words=(word(asked=spec),), spec=spec, **known)) == [("ann", "r1")]


def test_a_word_for_another_policy_covers_nothing_here() -> None:
    other = policy("a-other", approval=TASK, validations=rule("false"))
    decision = asked(PEOPLE, other, words=(word(policy="a-other"),))
    assert isinstance(decision, Waiting)
    assert (decision.policy, decision.approved_by, decision.void) == ("shop-fixers", (), ())


# -- how long --------------------------------------------------------------------------------------------------------


def test_what_is_granted_ends_when_the_word_does_though_its_own_time_is_longer() -> None:
    for until, lives in ((17 * MINUTE, 7 * MINUTE), (HOUR, 15 * MINUTE)):
        decision = asked(words=(word(until=until),), spec=request(ttl="15m"))
        assert isinstance(decision, Approved)
        assert decision.not_after(LATER) == LATER + lives


def test_of_several_words_the_first_that_ends_ends_the_grant_for_all_were_read() -> None:
    words = (word(until=17 * MINUTE), word("bob", until=14 * MINUTE), word("kim", until=HOUR))
    everybody = deny(validations=[{"name": "n", "expression": "size(approvals) < 3", "message": "m"}])
    decision = asked(policy(approval=TASK), everybody, words=words, spec=request(ttl="15m"))
    assert sorted(rests_on(decision)) == [("ann", "r1"), ("bob", "r1"), ("kim", "r1")]
    assert isinstance(decision, Approved)
    assert decision.not_after(LATER) == LATER + 4 * MINUTE


@pytest.mark.parametrize(("needed", "people"), [(1, ["kim"]), (2, ["ann", "kim"]), (3, ["ann", "bob", "kim"])])
def test_of_more_words_than_are_needed_those_that_cover_longest_are_heard(needed: int, people: list[str]) -> None:
    words = (word(until=17 * MINUTE), word("bob", until=14 * MINUTE), word("kim", until=HOUR))
    decision = asked(policy(approval=TASK | {"approvals": needed}), words=words, spec=request(ttl="15m"))
    assert sorted(name for name, _ in rests_on(decision)) == people
    assert isinstance(decision, Approved)
    assert (decision.not_after(LATER) == LATER + 4 * MINUTE) is (needed == 3)


def test_the_policys_own_end_stays_where_it_is_sooner() -> None:
    decision = asked(policy(approval=TASK, until=LATER + 2 * MINUTE), words=(word(),))
    assert isinstance(decision, Approved)
    assert decision.not_after(LATER) == LATER + 2 * MINUTE


def _approval(**spec: Any) -> AccessApproval:
    base = {"request": {"name": "r1", "uid": "u"}, "policy": "shop-fixers", "verdict": "Approve"}
    task = {"covers": "Task", "until": NOW + 48 * HOUR, "policyGeneration": 3, "approver": {"username": "ann"}}
    metadata = Metadata(name="ann-says", uid="uid-ann", creation_timestamp=NOW)
    return AccessApproval.model_validate({"metadata": metadata, "spec": base | task | spec})


def _looked_at(**status: Any) -> AccessRequest:
    metadata = RequestMetadata(name="r1", uid="u", creation_timestamp=NOW)
    return AccessRequest.model_validate({"metadata": metadata, "spec": request(), "status": status})


def test_a_word_ends_a_day_after_it_was_said_whatever_it_says() -> None:
    approval = _approval()
    read = task_word(said(), approval.spec, _looked_at(), None)
    assert read is not None
    assert (read.said.until, read.said.request, read.policy_generation) == (NOW + LONGEST, "r1", 3)
    soon = task_word(said(), _approval(until=NOW + HOUR).spec, _looked_at(), None)
    assert soon is not None
    assert soon.said.until == NOW + HOUR


@pytest.mark.parametrize(
    "spec",
    [{"covers": "Request"}, {"covers": None}, {"until": None}, {"policyGeneration": None}, {"verdict": "Deny"}],
    ids=str,
)
def test_what_the_crd_would_refuse_is_a_word_on_its_own_request_alone(spec: dict[str, Any]) -> None:
    approval = _approval(**spec).spec
    assert end(approval, NOW) is None
    assert task_word(said(), approval, _looked_at(), None) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"covers": "Request", "until": None, "policyGeneration": None}, []),
        ({"covers": None, "until": None, "policyGeneration": None}, []),
        ({"until": None}, ["until"]),
        ({"policyGeneration": None}, ["policyGeneration"]),
        ({"covers": "Request"}, ["until", "policyGeneration"]),
        ({"covers": None, "until": None}, ["policyGeneration"]),
        ({"verdict": "Deny", "reason": "no"}, ["covers:"]),
    ],
    ids=str,
)
def test_the_rules_of_the_crd_say_what_is_missing_or_too_much(change: dict[str, Any], says: list[str]) -> None:
    whole = {"verdict": "Approve", "covers": "Task", "until": "2026-01-01T00:00:00Z", "policyGeneration": 1} | change
    spec = {key: value for key, value in whole.items() if value is not None}
    rules = structural(AccessApproval)["properties"]["spec"]["x-kubernetes-validations"]
    api_server = cel.NewEnv(variables={"self": cel.Type.DYN})
    broken = [one for one in rules if not api_server.compile(one["rule"]).eval(data={"self": spec}).value()]
    assert [one["message"].split()[0] for one in broken] == says


def test_a_request_that_nobody_can_read_is_not_put_on_record_as_what_was_approved() -> None:
    deep: Any = {}
    for _ in range(2000):
        deep = {"a": deep}
    unread = _looked_at().model_copy(update={"spec": _of(deployment=deep)})
    assert task_word(said(), _approval().spec, unread, None) is None


def test_a_request_that_a_person_denied_covers_nothing_though_the_denial_was_taken_back() -> None:
    condition = {
        "type": "Approved",
        "status": "False",
        "reason": "PersonDenied",
        "message": "m",
        "lastTransitionTime": NOW,
    }
    read = task_word(said(), _approval().spec, _looked_at(conditions=[condition]), None)
    assert read is not None
    assert read.denied_by == "a person"


# -- beside what is said on the request itself -----------------------------------------------------------------------


def test_what_needs_no_such_word_rests_on_none_and_lives_as_long_as_ever() -> None:
    short = (word(until=12 * MINUTE),)
    own = asked(words=short, own=(said("bob"),))
    assert rests_on(own) == [("bob", None)]
    nobody = asked(policy(), words=short)
    assert rests_on(nobody) == []
    when = asked(policy(approval=TASK | {"when": "false"}), words=short)
    assert rests_on(when) == []
    for decision in (own, nobody, when):
        assert isinstance(decision, Approved)
        assert decision.not_after(LATER) == LATER + 5 * MINUTE


def test_it_adds_up_with_words_on_the_request_itself_and_each_person_counts_once() -> None:
    two = policy(approval=TASK | {"approvals": 2})
    again = replace(word(until=2 * HOUR), said=replace(word(until=2 * HOUR).said, name="ann-again", uid="uid-2"))
    waiting = asked(two, words=(word(), again))
    assert isinstance(waiting, Waiting)
    assert waiting.approved_by == ("ann for the task until 2026-11-23T16:00:00Z",)
    assert waiting.void == ()
    decision = asked(two, words=(word(), again), own=(said("bob", minute=5),))
    assert rests_on(decision) == [("bob", None), ("ann", "r1")]
    assert isinstance(asked(two, words=(word(), again), own=(said("ann", minute=5),)), Waiting)
    beside = asked(two, words=(word(until=12 * MINUTE), word("bob")), own=(said("ann", minute=5),))
    assert rests_on(beside) == [("ann", None), ("bob", "r1")]
    assert isinstance(beside, Approved)
    assert beside.not_after(LATER) == LATER + 5 * MINUTE


def test_of_a_persons_words_that_which_covers_longest_counts_and_one_that_is_void_hides_none() -> None:
    def named(name: str, **changes: Any) -> TaskWord:
        one = word(**changes)
        return replace(one, said=replace(one.said, name=name, uid=name))

    words = (
        named("short", until=20 * MINUTE),
        named("stale", until=5 * HOUR, policy_generation=2),
        named("denied", until=4 * HOUR, denied_by="bob"),
        named("long", until=2 * HOUR),
    )
    decision = asked(words=words)
    assert isinstance(decision, Approved)
    assert [one.name for one in decision.approvals] == ["long"]


def test_sixteen_people_count_and_no_grant_names_more_words_than_it_can() -> None:
    needed = policy(approval=TASK | {"approvals": 10})
    everybody = deny(validations=[{"name": "n", "expression": f"size(approvals) < {MOST}", "message": "m"}])
    words = tuple(word(f"p{at:02}", until=HOUR + at * MINUTE) for at in range(40))
    decision = asked(needed, everybody, words=words)
    assert [name for name, _ in rests_on(decision)] == sorted(f"p{at:02}" for at in range(40 - MOST, 40))


def test_one_is_told_of_no_word_of_a_person_who_has_spoken_on_the_request_itself() -> None:
    two = policy(approval=TASK | {"approvals": 2})
    decision = asked(two, words=(word(policy_generation=1),), own=(said(minute=5),))
    assert isinstance(decision, Waiting)
    assert (decision.approved_by, decision.void) == (("ann",), ())


def test_a_waiting_request_says_what_a_word_may_cover_and_for_which_generation() -> None:
    for covers in ("Request", "Task", None):
        decision = asked(policy(approval={"covers": covers} if covers else {}))
        assert isinstance(decision, Waiting)
        assert (decision.policy_generation, decision.covers) == (3, covers)


def test_a_person_who_says_no_to_this_request_ends_it_though_a_word_covers_it() -> None:
    decision = asked(words=(word(),), own=(said("bob", "Deny", reason="no"),))
    assert isinstance(decision, Denied)
    assert decision.denial.reason == "PersonDenied"


# -- what rules read -------------------------------------------------------------------------------------------------


def test_a_guardrail_that_wants_a_person_is_content_with_a_word_that_covers() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    assert rests_on(asked(PEOPLE, guard, words=(word(),))) == [("ann", "r1")]
    assert isinstance(asked(policy(approval={}), guard, words=(word(),)), Waiting)


def test_a_grant_rests_on_a_word_that_a_guardrail_alone_has_read_and_ends_with_it() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    asks_nobody = policy(approval=TASK | {"when": "false"})
    decision = asked(asks_nobody, guard, words=(word(until=12 * MINUTE),))
    assert rests_on(decision) == [("ann", "r1")]
    assert isinstance(decision, Approved)
    assert decision.not_after(LATER) == LATER + 2 * MINUTE


def test_a_word_that_covers_makes_no_answer_worse() -> None:
    guard = deny(validations=rule("size(approvals) == 1"))
    assert isinstance(asked(PEOPLE, guard), Waiting)
    assert isinstance(asked(PEOPLE, guard, words=(word(),)), Waiting)
    assert isinstance(asked(policy(), guard, words=(word(),)), Approved)


def test_a_live_grant_hears_what_it_rests_on_and_neither_time_nor_generation_ends_it() -> None:
    guard = deny(validations=rule(UNSPOKEN))
    whole = Policies.of(compile_policy(one) for one in (PEOPLE, guard))
    granted = decide(request(), whole, facts(now=LATER, covering=(word(until=12 * MINUTE),)))
    assert rests_on(granted) == [("ann", "r1")]
    known = replace(said(minute=1), request="r1")
    late = facts(now=NOW + 14 * MINUTE, approvals=(known,), live=True)
    live = decide(request(), whole, late)
    assert isinstance(live, Approved)
    assert live.until is None
    assert isinstance(decide(request(), whole, replace(late, approvals=())), Denied)


def test_who_explains_a_decision_sees_the_word_that_covers() -> None:
    policies = Policies.of((compile_policy(PEOPLE),))
    for words, says in (((word(),), "grants"), ((), "waits")):
        (one,) = explain(request(), policies, facts(now=LATER, covering=words))
        assert one.says == says


# -- the log ---------------------------------------------------------------------------------------------------------


def _record(known: Facts) -> dict[str, Any]:
    read = {"at": "now", "request": "shop/r", "asked": request().to_api(), "facts": known}
    return dict(orjson.loads(orjson.dumps(read)))


def test_a_decision_is_replayed_from_its_record_with_the_words_that_cover() -> None:
    policies = Policies.of((compile_policy(PEOPLE),))
    known = facts(now=LATER, covering=(word(), word("bob", policy_generation=2)))
    (one,) = replay([_record(known)], policies, Policies.of((compile_policy(policy(approval={})),)))
    assert one is not None
    assert (one.before, one.after) == ("Approved by shop-fixers", "Waiting for shop-fixers")
    assert TypeAdapter(Facts).validate_python(_record(known)["facts"]) == known


@pytest.mark.parametrize(
    "forget", [lambda record: record["facts"].pop("covering"), lambda record: _without(record, "request", "until")]
)
def test_a_record_of_before_there_were_such_words_is_replayed_as_ever(forget: Callable[[Any], object]) -> None:
    policies = Policies.of((compile_policy(PEOPLE),))
    record = _record(facts(now=LATER, approvals=(said(),)))
    forget(record)
    (one,) = replay([record], policies, policies)
    assert one is not None
    assert one.before == "Approved by shop-fixers"


def _without(record: dict[str, Any], *fields: str) -> None:
    for field in fields:
        del record["facts"]["approvals"][0][field]
