"""Ceilings are sets of rights, and decisions keep to them."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tests.properties.rules import (
    ceiling_scopes,
    parameters,
    request_scopes,
    resource_rules,
    rights_of_ceiling,
    rights_of_request,
)
from tests.unit.policy import given as build
from valetkey.kinds.access import Access
from valetkey.kinds.agentpolicy import AccessCeiling, AgentPolicy, Risk
from valetkey.policy.ceiling import Asked, Ceiling, find_gap, shared_field
from valetkey.policy.compile import Policies
from valetkey.policy.decide import Approved, Denied, decide
from valetkey.policy.facts import RoleRule
from valetkey.policy.risks import carried_risks

SUBJECTS = [{"name": "all", "any": True}]


def access_of(scopes: list[dict[str, Any]]) -> Asked:
    return Asked.of(Access.model_validate(build.scopes(*scopes)))


def ceiling_of(scopes: list[dict[str, Any]]) -> Ceiling:
    return build.ceiling(*scopes)


@settings(max_examples=500, deadline=None)
@given(request_scopes(), ceiling_scopes(), parameters())
def test_within_says_what_counting_says(
    asked: list[dict[str, Any]], ceiling: list[dict[str, Any]], known: dict[str, Any]
) -> None:
    expected = rights_of_request(asked) <= rights_of_ceiling(ceiling, known, deny=False)
    event(f"within: {expected}")
    assert (find_gap(access_of(asked), ceiling_of(ceiling), known) is None) is expected


@settings(max_examples=200, deadline=None)
@given(request_scopes(), ceiling_scopes(), parameters())
def test_within_says_what_counting_says_where_the_ceiling_was_made_to_cover(
    asked: list[dict[str, Any]], ceiling: list[dict[str, Any]], known: dict[str, Any]
) -> None:
    """A request is rarely within by chance: the ceiling holds its rules too, each cut into pieces."""
    pieces: list[dict[str, Any]] = []
    for scope in asked:
        place = {"namespaces": [scope["namespace"]]} if "namespace" in scope else {"cluster": True}
        cut = [{**rule, "verbs": [verb]} for rule in scope["rules"] for verb in rule["verbs"]]
        pieces.append({**place, "rules": cut})
    both = pieces + ceiling
    assert rights_of_request(asked) <= rights_of_ceiling(both, known, deny=False)
    assert find_gap(access_of(asked), ceiling_of(both), known) is None
    less = pieces[1:] + ceiling
    assume(less)
    expected = rights_of_request(asked) <= rights_of_ceiling(less, known, deny=False)
    assert (find_gap(access_of(asked), ceiling_of(less), known) is None) is expected


@settings(max_examples=500, deadline=None)
@given(request_scopes(), ceiling_scopes(), parameters())
def test_intersects_says_what_counting_says(
    asked: list[dict[str, Any]], ceiling: list[dict[str, Any]], known: dict[str, Any]
) -> None:
    expected = not rights_of_request(asked).isdisjoint(rights_of_ceiling(ceiling, known, deny=True))
    event(f"intersects: {expected}")
    assert (shared_field(access_of(asked), ceiling_of(ceiling), known, {}) is not None) is expected


@settings(max_examples=200, deadline=None)
@given(request_scopes(), ceiling_scopes(), parameters())
def test_a_cluster_role_intersects_as_its_rules_do(
    asked: list[dict[str, Any]], ceiling: list[dict[str, Any]], known: dict[str, Any]
) -> None:
    scope = asked[0]
    rules = tuple(
        RoleRule(
            api_groups=tuple(rule.get("apiGroups", ())),
            resources=tuple(rule.get("resources", ())),
            resource_names=tuple(rule.get("resourceNames", ())),
            non_resource_urls=tuple(rule.get("nonResourceURLs", ())),
            verbs=tuple(rule["verbs"]),
        )
        for rule in scope["rules"]
    )
    by_role = Asked.of(build.role_access("some-role", scope.get("namespace")))
    by_rules = shared_field(access_of([scope]), ceiling_of(ceiling), known, {}) is not None
    assert (shared_field(by_role, ceiling_of(ceiling), known, {"some-role": rules}) is not None) is by_rules
    assert find_gap(by_role, ceiling_of(ceiling), known) is not None


@st.composite
def widened(draw: st.DrawFn, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same scopes with more rights: more words, more rules, more scopes, no names."""
    wider: list[dict[str, Any]] = json.loads(json.dumps(asked))
    for scope in wider:
        for rule in scope["rules"]:
            rule["verbs"] = sorted(
                {*rule["verbs"], *draw(st.sets(st.sampled_from(("get", "delete", "*")), max_size=2))}
            )
            if draw(st.booleans()):
                rule.pop("resourceNames", None)
        scope["rules"] += draw(st.lists(resource_rules(), max_size=2))
    return wider + draw(st.lists(request_scopes().map(lambda scopes: scopes[0]), max_size=2))


def allow_of(name: str, ceilings: list[list[dict[str, Any]]], risks: list[str]) -> AgentPolicy:
    access = [{"name": f"e{at}", "kubernetes": {"scopes": one, "risks": risks}} for at, one in enumerate(ceilings)]
    purposes = [{"name": "remediation", "parameters": {"p": {"type": "string", "required": True}}}]
    return build.policy(name, subjects=SUBJECTS, access=access, purposes=purposes)


def deny_of(name: str, ceiling: list[dict[str, Any]]) -> AgentPolicy:
    return build.deny(name, access=[{"name": "e", "kubernetes": {"scopes": ceiling}}])


risks = st.lists(st.sampled_from([risk.value for risk in Risk]), unique=True, max_size=8)
policies = st.builds(
    lambda allows, denies, accepted: [
        *(allow_of(f"allow-{at}", one, accepted) for at, one in enumerate(allows)),
        *(deny_of(f"deny-{at}", one) for at, one in enumerate(denies)),
    ],
    st.lists(st.lists(ceiling_scopes(), min_size=1, max_size=2), min_size=1, max_size=2),
    st.lists(ceiling_scopes(), max_size=2),
    risks,
)


@settings(max_examples=150, deadline=None)
@given(st.data(), request_scopes(), policies, st.sampled_from(("a", "shop")))
def test_adding_rights_to_a_denied_request_never_makes_it_pass(
    data: st.DataObject, asked: list[dict[str, Any]], agent_policies: list[AgentPolicy], parameter: str
) -> None:
    task = {"parameters": {"p": parameter}}
    before = build.decided(build.request(task, access=build.scopes(*asked)), *agent_policies)
    more = data.draw(widened(asked))
    after = build.decided(build.request(task, access=build.scopes(*more)), *agent_policies)
    event(f"{type(before).__name__} then {type(after).__name__}")
    assert not (isinstance(before, Denied) and isinstance(after, Approved))


@settings(max_examples=100, deadline=None)
@given(request_scopes(), policies)
def test_the_order_in_which_policies_come_does_not_matter(
    asked: list[dict[str, Any]], agent_policies: list[AgentPolicy]
) -> None:
    request = build.request({"parameters": {"p": "a"}}, access=build.scopes(*asked))
    compiled = [build.usable(one) for one in agent_policies]
    decisions = [decide(request, Policies.of(order), build.facts()) for order in permutations(compiled)]
    assert all(decision == decisions[0] for decision in decisions)


@settings(max_examples=150, deadline=None)
@given(request_scopes(), policies, ceiling_scopes())
def test_one_more_deny_never_makes_a_request_pass(
    asked: list[dict[str, Any]], agent_policies: list[AgentPolicy], ceiling: list[dict[str, Any]]
) -> None:
    request = build.request({"parameters": {"p": "a"}}, access=build.scopes(*asked))
    before = build.decided(request, *agent_policies)
    after = build.decided(request, *agent_policies, deny_of("a-first", ceiling))
    assert not (isinstance(before, Denied) and isinstance(after, Approved))


@settings(max_examples=150, deadline=None)
@given(request_scopes(), policies)
def test_what_is_approved_lies_within_one_entry_with_its_risks_and_meets_no_deny(
    asked: list[dict[str, Any]], agent_policies: list[AgentPolicy]
) -> None:
    request = build.request({"parameters": {"p": "a"}}, access=build.scopes(*asked))
    decision = build.decided(request, *agent_policies)
    known = request.task.parameters
    fits = any(
        rights_of_request(asked) <= rights_of_ceiling(_written(entry), known, deny=False)
        and {one.risk for one in carried_risks(request.access, {})} <= set(entry.kubernetes.risks)
        for one in agent_policies
        if one.spec.effect == "Allow"
        for entry in one.spec.access or ()
        if entry.kubernetes is not None
    )
    meets = any(
        not rights_of_request(asked).isdisjoint(rights_of_ceiling(_written(entry), known, deny=True))
        for one in agent_policies
        if one.spec.effect == "Deny"
        for entry in one.spec.access or ()
    )
    event(type(decision).__name__)
    assert isinstance(decision, Approved) is (fits and not meets)


@settings(max_examples=150, deadline=None)
@given(request_scopes(), policies)
def test_what_a_denial_offers_would_pass_the_policy_that_offers_it(
    asked: list[dict[str, Any]], agent_policies: list[AgentPolicy]
) -> None:
    allows = [one for one in agent_policies if one.spec.effect == "Allow"]
    task = {"parameters": {"p": "a"}}
    decision = build.decided(build.request(task, access=build.scopes(*asked)), *allows)
    assume(isinstance(decision, Denied) and decision.denial.allowed is not None)
    assert isinstance(decision, Denied)
    assert decision.denial.allowed is not None
    offered = json.loads(decision.denial.allowed.removeprefix("access: "))
    assert isinstance(build.decided(build.request(task, access=offered), *allows), Approved)


def _written(entry: AccessCeiling) -> list[dict[str, Any]]:
    assert entry.kubernetes is not None
    return [scope.to_api() for scope in entry.kubernetes.scopes]
