"""What one request hands on to another: to whom, how much, how often, and what policy says to it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tests.unit.policy.given import (
    DEPLOYMENTS,
    NOW,
    PODS,
    decided,
    deny,
    facts,
    in_shop,
    policy,
    request,
    scopes,
    unusable,
)
from tests.unit.policy.test_approvals import said
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.backwards import who_can
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.decide import Approved, Decision, Denied, Waiting
from valetkey.policy.explain import explain
from valetkey.policy.facts import ParentFacts
from valetkey.policy.replay import replay
from valetkey.reasons import Reason

FIXER = {"namespace": "shop-agents", "serviceAccount": "fixer"}
HELPER = {"namespace": "web-agents", "serviceAccount": "helper"}
PARENT = {"namespace": "plans", "name": "plan", "uid": "plan-uid"}
READ_PODS = in_shop(PODS)
GETS = {**DEPLOYMENTS, "verbs": ["get"]}


def parent(**changes: Any) -> ParentFacts:
    """A planner's live request that hands on what the request of `given` asks for, once, to its agent."""
    base: dict[str, Any] = {
        "namespace": "plans",
        "name": "plan",
        "uid": "plan-uid",
        "task": {"id": "run-7", "objective": "Mend the shop", "purpose": "incident", "parameters": {}},
        "account": "planner",
        "act": (),
        "to": (("shop-agents", "fixer"),),
        "among": (("shop-agents", "fixer"),),
        "pod_templates": False,
        "depth": 1,
        "access": (in_shop(DEPLOYMENTS),),
        "not_after": NOW + timedelta(minutes=10),
    }
    return ParentFacts(**base | changes)


def works(*policies: AgentPolicy, live: bool = False, asks: dict[str, Any] | None = None, **changes: Any) -> Decision:
    """What is decided on a request that works for that one."""
    known = facts(parent=parent(**changes), live=live)
    return decided(request(parent=PARENT, **asks or {}), *(policies or (policy(),)), known=known)


def refused(decision: Decision) -> tuple[str, str | None]:
    assert isinstance(decision, Denied), decision
    return decision.denial.reason, decision.denial.field


def approved(decision: Decision) -> Approved:
    assert isinstance(decision, Approved), decision
    return decision


# -- who works for another -------------------------------------------------------------------------------------------


def test_what_is_handed_on_is_granted_by_the_workers_own_policy_and_names_whose_work_it_is() -> None:
    granted = approved(works(act=(("desk", "boss"),)))
    assert granted.policy.name == "shop-fixers"
    assert [str(one) for one in granted.act] == ["plans/planner", "desk/boss"]
    assert refused(works(policy(ttl={"max": "1m", "default": "1m"}), asks={"ttl": "2m"}))[0] == Reason.TTL_TOO_LONG
    assert refused(works(policy(), deny()))[0] == Reason.POLICY_DENIED


def test_it_ends_no_later_than_what_it_works_for() -> None:
    assert approved(works(asks={"ttl": "15m"})).not_after(NOW) == NOW + timedelta(minutes=10)
    assert approved(works(asks={"ttl": "2m"})).not_after(NOW) == NOW + timedelta(minutes=2)
    before = policy(until="2026-11-23T14:03:00Z")
    assert approved(works(before, asks={"ttl": "15m"})).not_after(NOW) == NOW + timedelta(minutes=3)


@pytest.mark.parametrize(("left", "live", "is_live"), [(0.9, False, False), (1, False, True), (0.1, True, True)])
def test_a_parent_that_is_about_to_end_hands_nothing_on(left: float, live: bool, is_live: bool) -> None:
    decision = works(live=live, not_after=NOW + timedelta(seconds=left))
    assert isinstance(decision, Approved) is is_live
    assert is_live or refused(decision) == (Reason.PARENT_NOT_LIVE, "spec.parent")


def test_a_parent_that_is_not_live_hands_nothing_on_whatever_policy_says() -> None:
    decision = decided(request(parent=PARENT), policy(), known=facts())
    assert refused(decision) == (Reason.PARENT_NOT_LIVE, "spec.parent")
    assert isinstance(decision, Denied)
    assert "Request plans/plan of uid plan-uid has no live grant" in decision.denial.message


@pytest.mark.parametrize("account", [("shop-agents", "another"), ("shop", "fixer")])
def test_it_hands_on_to_the_accounts_that_it_names_and_to_no_others(account: tuple[str, str]) -> None:
    assert refused(works(to=(account,))) == (Reason.BEYOND_PARENT, "spec.parent")


def test_what_goes_beyond_it_is_denied_with_the_field_and_what_it_gives() -> None:
    decision = works(access=(in_shop(GETS),))
    assert refused(decision) == (Reason.BEYOND_PARENT, "spec.access.kubernetes.scopes[0].rules[0]")
    assert isinstance(decision, Denied)
    assert decision.denial.allowed == f"access: {json.dumps(in_shop(GETS))}"


def test_it_lies_within_one_of_the_accesses_that_are_handed_on_and_never_in_their_sum() -> None:
    both = {"access": in_shop(GETS, PODS)}
    wide = policy(access=[{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [GETS, PODS]}]}}])
    assert approved(works(wide, asks=both, access=(READ_PODS, in_shop(GETS, PODS))))
    decision = works(wide, asks=both, access=(in_shop(GETS), READ_PODS))
    assert refused(decision) == (Reason.BEYOND_PARENT, "spec.access")
    assert isinstance(decision, Denied)
    assert decision.denial.allowed == f"access: {json.dumps(in_shop(GETS))}\naccess: {json.dumps(READ_PODS)}"


# -- who hands it on -------------------------------------------------------------------------------------------------

HANDS_ON: dict[str, Any] = {"delegation": {"to": [FIXER, HELPER], "maxDepth": 2}}


def hands_on(to: list[dict[str, str]] | None = None, **delegation: Any) -> dict[str, Any]:
    return {"delegation": {"to": to or [FIXER], **delegation}}


def test_a_policy_says_whether_what_it_grants_may_be_handed_on_to_whom_and_how_often() -> None:
    assert refused(decided(request(**hands_on()), policy())) == (Reason.ACCESS_BEYOND_POLICY, "spec.delegation")
    worker = policy(delegation={"required": False})
    assert refused(decided(request(**hands_on()), worker)) == (Reason.ACCESS_BEYOND_POLICY, "spec.delegation")
    planner = policy(delegation={"to": [FIXER]})
    assert approved(decided(request(**hands_on()), planner))
    assert approved(decided(request(), planner))
    deep = decided(request(**hands_on(maxDepth=2)), planner)
    assert refused(deep) == (Reason.ACCESS_BEYOND_POLICY, "spec.delegation.maxDepth")
    assert isinstance(deep, Denied)
    assert deep.denial.allowed == "maxDepth: 1"
    stranger = decided(request(**hands_on([FIXER, HELPER])), planner)
    assert refused(stranger) == (Reason.ACCESS_BEYOND_POLICY, "spec.delegation.to[1]")
    assert isinstance(stranger, Denied)
    assert stranger.denial.allowed == "to: [{namespace: shop-agents, serviceAccount: fixer}]"
    assert approved(decided(request(**hands_on([FIXER, HELPER], maxDepth=2)), policy(**HANDS_ON)))


def test_each_access_that_is_handed_on_is_decided_on_as_if_it_were_asked_for() -> None:
    more = hands_on(access=[in_shop(DEPLOYMENTS), READ_PODS])
    assert refused(decided(request(**more), policy(**HANDS_ON))) == (
        Reason.ACCESS_BEYOND_POLICY,
        "spec.delegation.access[1].kubernetes.scopes[0].rules[0].resources",
    )
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    risky = [{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [DEPLOYMENTS, secrets]}]}}]
    assert refused(decided(request(**hands_on(access=[in_shop(secrets)])), policy(access=risky, **HANDS_ON))) == (
        Reason.RISK_NOT_ALLOWED,
        "spec.delegation.access[0].kubernetes.scopes[0].rules[0]",
    )


def test_an_allows_rules_hold_for_each_access_that_is_handed_on() -> None:
    rule = 'access.kubernetes.scopes.all(s, s.rules.all(r, r.verbs.all(v, v == "get")))'
    only = policy(validations=[{"name": "reads", "expression": rule, "message": "Read only."}], **HANDS_ON)
    mine = {"access": in_shop(GETS)}
    assert approved(decided(request(**mine, **hands_on()), only))
    assert refused(decided(request(**mine, **hands_on(access=[in_shop(DEPLOYMENTS)])), only))[0] == (
        Reason.VALIDATION_FAILED
    )


def test_a_deny_about_a_right_holds_for_whoever_hands_it_on() -> None:
    writes = [{**DEPLOYMENTS, "verbs": ["patch"]}]
    no = deny(access=[{"name": "no", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": writes}]}}])
    mine = {"access": in_shop(GETS)}
    assert approved(decided(request(**mine, **hands_on()), policy(**HANDS_ON), no))
    decision = decided(request(**mine, **hands_on(access=[in_shop(DEPLOYMENTS)])), policy(**HANDS_ON), no)
    assert refused(decision) == (
        Reason.POLICY_DENIED,
        "spec.delegation.access[0].kubernetes.scopes[0].rules[0]",
    )


def test_people_are_asked_where_one_of_the_accesses_that_are_handed_on_takes_it() -> None:
    when = 'access.kubernetes.scopes.exists(s, s.rules.exists(r, "patch" in r.verbs))'
    asks = policy(approval={"when": when}, **HANDS_ON)
    mine = {"access": in_shop(GETS)}
    assert approved(decided(request(**mine, **hands_on()), asks))
    assert isinstance(decided(request(**mine, **hands_on(access=[in_shop(DEPLOYMENTS)])), asks), Waiting)


def test_what_is_handed_on_and_could_be_read_in_more_ways_than_one_is_denied_before_any_policy() -> None:
    odd = in_shop({**PODS, "resources": ["pods/*"]})
    every = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    wide = [{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [every]}]}}]
    assert refused(decided(request(**hands_on(access=[odd])), policy(access=wide, **HANDS_ON))) == (
        Reason.ACCESS_BEYOND_POLICY,
        "spec.delegation.access[0].kubernetes.scopes[0].rules[0].resources",
    )


# -- who hands on what was handed on ---------------------------------------------------------------------------------

TWICE: dict[str, Any] = {"to": (("shop-agents", "fixer"), ("web-agents", "helper")), "depth": 2}


def test_what_was_handed_on_goes_on_less_often_to_no_others_and_is_no_more() -> None:
    sub = policy(delegation={"to": [FIXER, HELPER], "maxDepth": 4})
    assert approved(works(sub, asks=hands_on([HELPER]), **TWICE))
    assert approved(works(sub, asks=hands_on([HELPER], access=[in_shop(GETS)]), **TWICE))
    for asks, field in (
        (hands_on([HELPER], maxDepth=2), "spec.delegation.maxDepth"),
        (hands_on([HELPER, {"namespace": "web-agents", "serviceAccount": "x"}]), "spec.delegation.to[1]"),
        (
            hands_on([HELPER], access=[in_shop(GETS), READ_PODS]),
            "spec.delegation.access[1].kubernetes.scopes[0].rules[0]",
        ),
    ):
        assert refused(works(sub, asks=asks, **TWICE)) == (Reason.BEYOND_PARENT, field)
    assert refused(works(sub, asks=hands_on([FIXER]), depth=1)) == (Reason.BEYOND_PARENT, "spec.delegation")


# -- what policies say to it -----------------------------------------------------------------------------------------


def test_a_policy_may_grant_only_what_works_for_another() -> None:
    worker = policy(delegation={"required": True})
    assert approved(works(worker))
    assert refused(decided(request(), worker)) == (Reason.PARENT_NOT_LIVE, "spec.parent")
    (may,) = who_can(Policies.of([compile_policy(worker)]), "patch", "deployments", "apps", "shop")
    assert "for another request" in may.conditions


@pytest.mark.parametrize(
    ("expression", "alone", "working"),
    [
        ("has(parent.name)", False, True),
        ('has(parent.name) && parent.namespace == "plans" && parent.name == "plan"', False, True),
        ('has(parent.identity) && parent.identity.serviceAccount == "planner"', False, True),
        ('has(parent.task) && parent.task.purpose == "incident" && parent.task.id == "run-7"', False, True),
        ("has(parent.task) && size(parent.task.parameters) == 0", False, True),
        ('!has(parent.identity) || parent.identity.namespace == "plans"', True, True),
    ],
)
def test_rules_read_what_a_request_works_for(expression: str, alone: bool, working: bool) -> None:
    ruled = policy(validations=[{"name": "parent", "expression": expression, "message": "No."}])
    assert isinstance(decided(request(), ruled), Approved) is alone
    assert isinstance(works(ruled), Approved) is working


def test_a_deny_that_reads_a_parent_where_there_is_none_counts_as_true() -> None:
    no = deny(validations=[{"name": "parent", "expression": 'parent.name == "plan"', "message": "m"}])
    assert refused(decided(request(), policy(), no))[0] == Reason.POLICY_DENIED


@pytest.mark.parametrize(
    ("who", "counts"),
    [
        ("ann", True),
        ("system:serviceaccount:shop-agents:fixer", False),
        ("system:serviceaccount:plans:planner", False),
        ("system:serviceaccount:desk:boss", False),
        ("system:serviceaccount:web-agents:helper", False),
        ("system:serviceaccount:shop-agents:sibling", False),
        ("system:serviceaccount:shop-agents:stranger", True),
    ],
)
def test_nobody_with_a_part_in_the_work_approves_it(who: str, counts: bool) -> None:
    """The agent itself, who gets it next, who handed it on, and who else may have got that."""
    known = parent(
        act=(("desk", "boss"),),
        to=(("shop-agents", "fixer"), ("web-agents", "helper")),
        among=(("shop-agents", "fixer"), ("web-agents", "helper"), ("shop-agents", "sibling"), ("plans", "planner")),
        depth=2,
    )
    asks = policy(approval={}, delegation={"to": [HELPER]})
    asked = request(parent=PARENT, **hands_on([HELPER]))
    decision = decided(asked, asks, known=facts(parent=known, approvals=(said(who),)))
    assert isinstance(decision, Approved if counts else Waiting), decision
    if isinstance(decision, Waiting) and "fixer" not in who:
        assert decision.void == (f"{who} has a part in that work",)


def test_a_delegate_does_not_approve_what_it_would_get() -> None:
    asks = policy(approval={}, **HANDS_ON)
    word = said("system:serviceaccount:web-agents:helper")
    assert isinstance(decided(request(**hands_on([HELPER])), asks, known=facts(approvals=(word,))), Waiting)
    assert approved(decided(request(**hands_on()), asks, known=facts(approvals=(word,))))


def test_a_delegate_does_not_approve_what_only_a_rule_about_it_asks_people_for() -> None:
    """A guardrail that the planner's own access does not meet, and what it hands on does."""
    writes = [{**DEPLOYMENTS, "verbs": ["patch"]}]
    guard = deny(
        access=[{"name": "no", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": writes}]}}],
        validations=[{"name": "u", "expression": '!approvals.exists(a, a.verdict == "Approve")', "message": "m"}],
    )
    asked = request(access=in_shop(GETS), **hands_on([HELPER], access=[in_shop(DEPLOYMENTS)]))
    for who, outcome in (("system:serviceaccount:web-agents:helper", Waiting), ("ann", Approved)):
        asks = policy(approval={}, **HANDS_ON)
        decision = decided(asked, asks, guard, known=facts(approvals=(said(who),)))
        assert isinstance(decision, outcome), decision
    plain = policy("plain", **HANDS_ON)
    word = said("system:serviceaccount:web-agents:helper", policy="plain")
    assert refused(decided(asked, plain, guard, known=facts(approvals=(word,))))[0] == Reason.POLICY_DENIED


RISKY: list[dict[str, Any]] = [
    {
        "name": "change",
        "kubernetes": {
            "scopes": [{"namespaces": ["shop"], "rules": [DEPLOYMENTS]}],
            "risks": ["PodTemplates"],
        },
    }
]


def test_the_risk_of_pod_templates_goes_with_what_is_handed_on_or_is_not_there() -> None:
    accepting = policy(access=RISKY, **HANDS_ON)
    assert (approved(decided(request(), accepting)).pod_templates) is True
    assert approved(works(accepting)).pod_templates is False
    assert approved(works(accepting, pod_templates=True)).pod_templates is True
    for more in ({}, {"access": [in_shop(DEPLOYMENTS)]}, {"access": [in_shop(GETS)]}):
        assert approved(decided(request(**hands_on(**more)), accepting)).delegates_pod_templates is True
    assert approved(decided(request(**hands_on()), policy(**HANDS_ON))).delegates_pod_templates is False
    assert approved(decided(request(), accepting)).delegates_pod_templates is False
    mixed = policy(
        access=[*RISKY, {"name": "look", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [PODS]}]}}],
        **HANDS_ON,
    )
    both = hands_on(access=[in_shop(DEPLOYMENTS), READ_PODS])
    assert approved(decided(request(**both), mixed)).delegates_pod_templates is False
    sub = policy(access=RISKY, delegation={"to": [HELPER]})
    assert approved(works(sub, asks=hands_on([HELPER]), **TWICE)).delegates_pod_templates is False


def test_what_may_only_be_handed_on_is_not_given_to_who_asks_for_it() -> None:
    mend = {
        "handedOn": "Only",
        "name": "mend",
        "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [DEPLOYMENTS]}]},
    }
    look = {"name": "look", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [PODS]}]}}
    planner = policy(access=[look, mend], **HANDS_ON)
    assert refused(decided(request(), planner))[0] == Reason.ACCESS_BEYOND_POLICY
    assert refused(decided(request(**hands_on()), planner))[0] == Reason.ACCESS_BEYOND_POLICY
    assert approved(decided(request(access=READ_PODS, **hands_on(access=[in_shop(DEPLOYMENTS)])), planner))
    assert approved(decided(request(access=READ_PODS, **hands_on()), planner))
    for nobody in (None, {"required": True}):
        assert (
            "gives nothing where delegation.to names nobody"
            in unusable(policy(access=[mend], delegation=nobody)).message
        )
    (may,) = who_can(Policies.of([compile_policy(planner)]), "patch", "deployments", "apps", "shop")
    assert may.entry == "mend (to hand on only)"
    assert "handedOn belongs to an Allow" in unusable(deny(access=[mend])).message


def test_what_is_handed_on_has_no_more_rules_than_are_compared() -> None:
    many = in_shop(*[PODS] * 16)
    wide = policy(
        access=[{"name": "all", "kubernetes": {"scopes": [{"namespaces": ["shop"], "rules": [PODS, DEPLOYMENTS]}]}}],
        **HANDS_ON,
    )
    assert approved(decided(request(access=many, **hands_on(access=[many])), wide))
    decision = decided(request(access=many, **hands_on(access=[many, READ_PODS])), wide)
    assert refused(decision) == (Reason.ACCESS_BEYOND_POLICY, "spec")
    assert isinstance(decision, Denied)
    assert "32 rules at most, not 33" in decision.denial.message
    more = scopes(*[{"namespace": "shop", "rules": [PODS] * 11}] * 3)
    assert refused(works(wide, asks={"access": more})) == (Reason.ACCESS_BEYOND_POLICY, "spec")
    assert approved(decided(request(access=more), wide))


def test_of_a_live_grants_parent_nothing_is_asked_but_whether_it_goes_on() -> None:
    assert approved(works(live=True, access=(READ_PODS,), to=()))
    assert refused(works(live=True, not_after=NOW))[0] == Reason.PARENT_NOT_LIVE


def test_a_recorded_decision_on_work_is_decided_again_as_it_was() -> None:
    record = {
        "at": "2026-11-23T14:00:00Z",
        "request": "shop-agents/work",
        "asked": request(parent=PARENT).to_api(),
        "facts": facts(parent=parent()),
    }
    policies = Policies.of([compile_policy(policy(delegation={"required": True}))])
    (again,) = replay(
        [json.loads(orjson.dumps(record))], policies, Policies.of([compile_policy(policy("other", delegation=None))])
    )
    assert again is not None
    assert (again.before, again.after) == ("Approved by shop-fixers", "Approved by other")


def test_each_rule_is_explained_of_each_access_that_is_handed_on() -> None:
    rule = 'access.kubernetes.scopes.all(s, s.rules.all(r, r.verbs.all(v, v == "get")))'
    only = policy(validations=[{"name": "reads", "expression": rule, "message": "Read only."}], **HANDS_ON)
    asked = request(access=in_shop(GETS), **hands_on(access=[in_shop(DEPLOYMENTS)]))
    (told,) = explain(asked, Policies.of([compile_policy(only)]), facts())
    assert told.says == "refuses"
    assert [(one.of, one.says) for one in told.rules] == [
        ("spec.access", "true"),
        ("spec.delegation.access[0]", "false"),
    ]


def test_delegation_belongs_to_an_allow() -> None:
    assert unusable(deny(delegation={"to": [FIXER]})).message.startswith("spec.delegation: it belongs to an Allow")
