"""A decision: what grants, what denies, and what an agent is told."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml

from tests.unit.policy.given import (
    DEPLOYMENTS,
    PODS,
    decided,
    deny,
    facts,
    in_shop,
    policy,
    request,
    scopes,
)
from valetkey.kinds.accessrequest import Denial
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.identity import Identity
from valetkey.policy.decide import Approved, Decision, Denied, Undecided
from valetkey.reasons import Reason

EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
STRANGER = Identity(
    namespace="elsewhere", pod_name="p", pod_uid="u", node_name="n", service_account="default", labels={}
)


def validation(expression: str, message: str = "Not at this hour.") -> list[dict[str, str]]:
    return [{"name": "rule", "expression": expression, "message": message}]


def denial(decision: Decision, reason: Reason) -> Denial:
    assert isinstance(decision, Denied), decision
    assert decision.denial.reason == reason
    return decision.denial


def ceiling(name: str, *rules: dict[str, Any], risks: tuple[str, ...] = (), **scope: Any) -> dict[str, Any]:
    place = scope or {"namespaces": ["shop"]}
    return {"name": name, "kubernetes": {"scopes": [{**place, "rules": list(rules)}], "risks": list(risks)}}


def test_a_request_within_a_policy_is_approved_by_it_with_its_default_ttl() -> None:
    decision = decided(request(), policy())
    assert isinstance(decision, Approved)
    assert (decision.policy.name, decision.policy.uid, decision.policy.generation) == (
        "shop-fixers",
        "uid-shop-fixers",
        3,
    )
    assert (decision.entry, decision.ttl, decision.pod_templates) == ("restart", timedelta(minutes=5), False)


def test_the_first_policy_by_name_that_grants_is_used() -> None:
    decision = decided(request(ttl="10m"), policy("c"), policy("b"), policy("a", ttl={"max": "5m"}))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "b"
    assert decision.ttl == timedelta(minutes=10)


def test_pod_templates_is_told_where_the_entry_accepts_them() -> None:
    creates = {**DEPLOYMENTS, "verbs": ["create"]}
    decision = decided(
        request(access=in_shop(creates)), policy(access=[ceiling("deploy", creates, risks=("PodTemplates",))])
    )
    assert isinstance(decision, Approved)
    assert (decision.entry, decision.pod_templates) == ("deploy", True)


@pytest.mark.parametrize(("said", "told"), [({}, False), ({"backstop": "None"}, False), ({"backstop": "Job"}, True)])
def test_a_backstop_is_told_where_the_policy_says_so(said: dict[str, str], told: bool) -> None:
    decision = decided(request(), policy(**said))
    assert isinstance(decision, Approved)
    assert decision.backstop == told


def test_two_entries_never_add_up() -> None:
    asked = request(access=in_shop(DEPLOYMENTS, PODS))
    assert isinstance(decided(asked, policy(access=[ceiling("one", DEPLOYMENTS, PODS)])), Approved)
    apart = policy(access=[ceiling("one", DEPLOYMENTS), ceiling("two", PODS)])
    denial(decided(asked, apart), Reason.ACCESS_BEYOND_POLICY)


def test_two_policies_never_add_up() -> None:
    asked = request(access=in_shop(DEPLOYMENTS, PODS))
    one, two = policy("one", access=[ceiling("one", DEPLOYMENTS)]), policy("two", access=[ceiling("two", PODS)])
    denial(decided(asked, one, two), Reason.ACCESS_BEYOND_POLICY)


def test_an_agent_that_no_policy_is_about_learns_nothing_of_the_policies() -> None:
    decision = decided(request(), policy(), known=facts(identity=STRANGER))
    told = denial(decision, Reason.NO_POLICY_MATCHED)
    assert isinstance(decision, Denied)
    assert (decision.policy, told.allowed, told.contact, told.field) == (None, None, None, None)
    for secret in ("shop-fixers", "remediation", "shop-platform", "checkout"):
        assert secret not in told.message
    assert "elsewhere/default" in told.message


def test_no_policy_at_all_grants_nothing() -> None:
    denial(decided(request()), Reason.NO_POLICY_MATCHED)


def test_an_unknown_purpose_is_denied_with_the_purposes_there_are() -> None:
    inspect = policy("inspectors", purposes=[{"name": "inspection"}], access=[ceiling("read", PODS)])
    told = denial(decided(request({"purpose": "world-peace"}), policy(), inspect), Reason.PURPOSE_UNKNOWN)
    assert told.field == "spec.task.purpose"
    assert told.allowed == "purpose: inspection | remediation"
    assert told.contact == "#shop-platform"


def test_a_wrong_parameter_is_denied_with_its_type() -> None:
    told = denial(decided(request({"parameters": {"deployment": 7}}), policy()), Reason.PARAMETERS_INVALID)
    assert told.field == "spec.task.parameters.deployment"
    assert told.allowed is not None
    assert yaml.safe_load(told.allowed)["parameters"]["deployment"]["type"] == "string"


@pytest.mark.parametrize(
    "parameters",
    [
        {"deployment": "checkout", "blob": "x" * 2**20},
        {"deployment": "checkout\u202e"},
        {"deployment": "check\nout"},
        {"deployment": [[[[[[[[["deep"]]]]]]]]]},
        {"deployment": float("nan")},
    ],
)
def test_parameters_that_no_policy_should_look_at_are_denied_before_any_does(parameters: dict[str, Any]) -> None:
    throws = deny("strict", validations=validation("claims.task.parameters.absent == 1"))
    decision = decided(request({"parameters": parameters}), policy(), throws)
    denial(decision, Reason.PARAMETERS_INVALID)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (in_shop({**DEPLOYMENTS, "verbs": ["get", "delete"]}), "scopes[0].rules[0].verbs"),
        (in_shop({**DEPLOYMENTS, "verbs": ["*"]}), "scopes[0].rules[0].verbs"),
        (in_shop({**DEPLOYMENTS, "resources": ["*"]}), "scopes[0].rules[0].resources"),
        (in_shop({**DEPLOYMENTS, "resources": ["deployments/scale"]}), "scopes[0].rules[0].resources"),
        (in_shop({**DEPLOYMENTS, "apiGroups": ["*"]}), "scopes[0].rules[0].apiGroups"),
        (in_shop({**DEPLOYMENTS, "resourceNames": ["checkout", "orders"]}), "scopes[0].rules[0].resourceNames"),
        (
            in_shop({key: value for key, value in DEPLOYMENTS.items() if key != "resourceNames"}),
            "scopes[0].rules[0].resourceNames",
        ),
        (in_shop(DEPLOYMENTS, PODS), "scopes[0].rules[1].resources"),
        (scopes({"namespace": "web", "rules": [DEPLOYMENTS]}), "scopes[0].namespace"),
        (scopes({"rules": [DEPLOYMENTS]}), "scopes[0]"),
        (scopes({"rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}), "scopes[0]"),
        (scopes({"namespace": "shop", "clusterRole": "log-reader"}), "scopes[0].clusterRole"),
    ],
)
def test_access_beyond_the_policy_is_denied_with_the_field_and_what_may_be_pasted(
    asked: dict[str, Any], field: str
) -> None:
    told = denial(decided(request(access=asked), policy()), Reason.ACCESS_BEYOND_POLICY)
    assert told.field == f"spec.access.kubernetes.{field}"
    assert told.allowed is not None
    offered = yaml.safe_load(told.allowed)["access"]
    assert offered == in_shop(DEPLOYMENTS)
    assert isinstance(decided(request(access=offered), policy()), Approved)


@pytest.mark.parametrize(
    "rule",
    [
        {**DEPLOYMENTS, "resources": ["deployments/*"]},
        {"apiGroups": ["apps"], "verbs": ["get"]},
        {**DEPLOYMENTS, "nonResourceURLs": ["/healthz"]},
        {"nonResourceURLs": ["/healthz"], "verbs": ["get"]},
        {"resources": ["pods"], "verbs": ["get"]},
        {**DEPLOYMENTS, "apiGroups": ["apps/v1"]},
        {**DEPLOYMENTS, "verbs": ["GET"]},
    ],
)
def test_a_rule_that_could_be_misread_is_denied_whatever_the_policy(rule: dict[str, Any]) -> None:
    cluster_admin = policy(access=[ceiling("all", EVERYTHING, cluster=True)])
    told = denial(decided(request(access=in_shop(rule)), cluster_admin), Reason.ACCESS_BEYOND_POLICY)
    assert told.field is not None
    assert told.field.startswith("spec.access.kubernetes.scopes[0].rules[0]")


def test_more_words_than_anybody_needs_are_denied_before_any_policy_is_asked() -> None:
    names = [f"name-{at}" for at in range(32)]
    rules = [{**DEPLOYMENTS, "resourceNames": names}] * 16
    wide = scopes(*({"namespace": f"ns-{at}", "rules": rules} for at in range(8)))
    told = denial(decided(request(access=wide), policy()), Reason.ACCESS_BEYOND_POLICY)
    assert "ask for less" in told.message


def test_the_parameter_and_nothing_else_is_filled_into_the_ceiling() -> None:
    orders = in_shop({**DEPLOYMENTS, "resourceNames": ["orders"]})
    assert isinstance(decided(request({"parameters": {"deployment": "orders"}}, access=orders), policy()), Approved)
    denial(decided(request(access=orders), policy()), Reason.ACCESS_BEYOND_POLICY)


def test_an_empty_list_of_names_is_no_name_rather_than_any() -> None:
    listed = [{"name": "remediation", "parameters": {"deployment": {"type": "array", "required": True}}}]
    asked = request(
        {"parameters": {"deployment": []}},
        access=in_shop({key: value for key, value in DEPLOYMENTS.items() if key != "resourceNames"}),
    )
    denial(decided(asked, policy(purposes=listed)), Reason.ACCESS_BEYOND_POLICY)


def test_a_risk_that_the_entry_does_not_accept_is_denied_with_what_is_left_without_it() -> None:
    broad = policy(access=[ceiling("all", EVERYTHING)])
    told = denial(decided(request(access=in_shop({**PODS, "verbs": ["get", "watch"]})), broad), Reason.RISK_NOT_ALLOWED)
    assert "Watch" in told.message
    assert told.field == "spec.access.kubernetes.scopes[0].rules[0]"
    assert told.allowed is not None
    assert yaml.safe_load(told.allowed) == {"access": in_shop({**PODS, "verbs": ["get"]})}


def test_a_later_entry_that_accepts_the_risk_grants() -> None:
    watching = {**PODS, "verbs": ["watch"]}
    entries = [ceiling("plain", watching), ceiling("bold", watching, risks=("Watch",))]
    decision = decided(request(access=in_shop(watching)), policy(access=entries))
    assert isinstance(decision, Approved)
    assert decision.entry == "bold"


def test_a_cluster_role_carries_the_risks_of_its_rules() -> None:
    roles = [{"name": "roles", "kubernetes": {"scopes": [{"namespaces": ["shop"], "clusterRoles": ["watcher"]}]}}]
    asked = request(access=scopes({"namespace": "shop", "clusterRole": "watcher"}))
    told = denial(decided(asked, policy(access=roles)), Reason.RISK_NOT_ALLOWED)
    assert told.field == "spec.access.kubernetes.scopes[0].clusterRole"


def test_a_cluster_role_whose_rules_are_unknown_is_beyond_every_policy() -> None:
    roles = [{"name": "roles", "kubernetes": {"scopes": [{"cluster": True, "clusterRoles": ["ghost"]}]}}]
    asked = request(access=scopes({"namespace": "shop", "clusterRole": "ghost"}))
    told = denial(decided(asked, policy(access=roles)), Reason.ACCESS_BEYOND_POLICY)
    assert told.allowed is None
    assert told.field == "spec.access.kubernetes.scopes[0].clusterRole"
    assert 'ClusterRole "ghost" does not exist, or is not among those that this cluster hands out' in told.message


def test_a_ttl_beyond_the_maximum_is_denied_with_the_maximum() -> None:
    told = denial(decided(request(ttl="15m1s"), policy()), Reason.TTL_TOO_LONG)
    assert (told.field, told.allowed) == ("spec.ttl", "ttl: 15m")
    assert isinstance(decided(request(ttl="15m"), policy()), Approved)


def test_no_way_of_delivery_is_denied() -> None:
    told = denial(decided(request(delivery={}), policy()), Reason.DELIVERY_NOT_ALLOWED)
    assert told.allowed is not None
    assert yaml.safe_load(told.allowed) == {"delivery": {"secret": {}}}


def test_a_rule_that_is_false_denies_with_its_message_and_without_its_text() -> None:
    strict = policy(validations=validation('cluster == "east"', "Only in the east."))
    told = denial(decided(request(), strict), Reason.VALIDATION_FAILED)
    assert told.message == "Only in the east."
    assert "cluster ==" not in told.model_dump_json()


def test_a_rule_that_is_true_grants() -> None:
    rule = 'identity.labels.team == "shop" && claims.task.parameters.deployment == "checkout" && cluster == "west"'
    assert isinstance(decided(request(), policy(validations=validation(rule))), Approved)


@pytest.mark.parametrize(
    "expression",
    ["claims.task.parameters.absent == 1", "claims.task.parameters.list.all(x, x == 'a')"],
)
def test_an_allow_whose_rule_cannot_be_evaluated_does_not_grant(expression: str) -> None:
    purposes = [
        {
            "name": "remediation",
            "parameters": {"deployment": {"type": "string", "required": True}, "list": {"type": "string"}},
        }
    ]
    broken = policy("a-broken", purposes=purposes, validations=validation(expression))
    undecided = decided(request(), broken)
    assert isinstance(undecided, Undecided)
    assert undecided.reason is Reason.EVALUATION_FAILED
    assert "absent" not in undecided.message
    # Another policy still may.
    assert isinstance(decided(request(), broken, policy("b-sound")), Approved)


def test_the_limit_of_live_grants_is_kept_and_says_when_to_try_again() -> None:
    full = facts(active={"shop-fixers": 3})
    told = denial(decided(request(), policy(limits={"active": 3}), known=full), Reason.LIMIT_REACHED)
    assert told.retry_after == timedelta(minutes=1)
    assert isinstance(decided(request(), policy(limits={"active": 4}), known=full), Approved)
    denial(decided(request(), policy(), known=facts(active={"shop-fixers": 20})), Reason.LIMIT_REACHED)


def test_a_policy_at_its_limit_leaves_the_next_one_to_grant() -> None:
    decision = decided(request(), policy("a", limits={"active": 1}), policy("b"), known=facts(active={"a": 1, "b": 0}))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "b"


@pytest.mark.parametrize(
    ("further", "nearer"),
    [
        ({"purposes": [{"name": "other"}], "access": [ceiling("a", PODS)]}, {"access": [ceiling("a", PODS)]}),
        ({"access": [ceiling("a", PODS)]}, {"ttl": {"default": "1s"}}),
        ({"access": [ceiling("a", PODS, DEPLOYMENTS, namespaces=["web"])]}, {"access": [ceiling("a", PODS)]}),
        ({"ttl": {"default": "1s"}}, {"validations": validation("false")}),
        ({"validations": validation("false")}, {"limits": {"active": 1}}),
    ],
)
def test_a_denial_tells_of_the_policy_that_came_nearest(further: dict[str, Any], nearer: dict[str, Any]) -> None:
    known = facts(active={"b-nearer": 1})
    decision = decided(request(ttl="2s"), policy("a-further", **further), policy("b-nearer", **nearer), known=known)
    assert isinstance(decision, Denied)
    assert decision.policy == "b-nearer"


def test_of_equally_near_policies_the_first_by_name_is_told() -> None:
    decision = decided(request(ttl="2h"), policy("b"), policy("a"))
    assert isinstance(decision, Denied)
    assert decision.policy == "a"


@pytest.mark.parametrize(
    "against",
    [
        deny(),
        deny(subjects=[{"name": "all", "any": True}]),
        deny(purposes=[{"name": "remediation"}]),
        deny(access=[ceiling("a", EVERYTHING, cluster=True)]),
        deny(access=[ceiling("a", {**DEPLOYMENTS, "resourceNames": ["$deployment"]})]),
        deny(access=[ceiling("a", {**DEPLOYMENTS, "resourceNames": ["$absent"]})]),
        deny(access=[ceiling("a", DEPLOYMENTS, namespaces=["$absent"])]),
        deny(validations=validation('"shop" in namespaces')),
        deny(validations=validation("identity.labels.absent == 'x'")),
    ],
)
def test_a_deny_that_shares_a_right_always_wins(against: AgentPolicy) -> None:
    decision = decided(request(), policy("a"), against, policy("z"))
    told = denial(decision, Reason.POLICY_DENIED)
    assert isinstance(decision, Denied)
    assert decision.policy == "no-prod"
    assert "absent ==" not in told.message


@pytest.mark.parametrize(
    "beside",
    [
        deny(subjects=[{"name": "other", "namespace": "other"}]),
        deny(purposes=[{"name": "other"}]),
        deny(access=[ceiling("a", EVERYTHING, namespaces=["web"])]),
        deny(access=[ceiling("a", {**DEPLOYMENTS, "verbs": ["delete"]})]),
        deny(access=[ceiling("a", {**DEPLOYMENTS, "resourceNames": ["orders"]})]),
        deny(validations=validation('namespaces.exists(n, namespaces[n].labels.env == "prod")')),
    ],
)
def test_a_deny_that_is_about_something_else_does_not_matter(beside: AgentPolicy) -> None:
    assert isinstance(decided(request(), policy(), beside), Approved)


@pytest.mark.parametrize(
    "expression",
    [
        'namespaces.exists(n, namespaces[n].labels.env == "prod")',
        'namespaces.exists(n, has(namespaces[n].labels.env) && namespaces[n].labels.env == "prod")',
    ],
)
def test_a_deny_on_namespaces_sees_a_namespace_without_known_labels(expression: str) -> None:
    never_prod = deny(validations=validation(expression))
    unknown = facts(namespaces={"shop-agents": {}})
    denial(decided(request(), policy(), never_prod, known=unknown), Reason.POLICY_DENIED)


def test_a_deny_on_namespaces_sees_all_of_them_where_the_cluster_is_asked_for() -> None:
    never_prod = deny(validations=validation('namespaces.exists(n, namespaces[n].labels.env == "prod")'))
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    allowed = policy(access=[ceiling("nodes", nodes, cluster=True)])
    asked = request(access=scopes({"rules": [nodes]}))
    assert isinstance(decided(asked, allowed), Approved)
    denial(decided(asked, allowed, never_prod), Reason.POLICY_DENIED)


def test_a_deny_on_a_role_meets_the_role_by_name_and_by_its_rules() -> None:
    roles = [{"name": "r", "kubernetes": {"scopes": [{"namespaces": ["shop"], "clusterRoles": ["log-reader"]}]}}]
    allowed = policy(access=roles)
    asked = request(access=scopes({"namespace": "shop", "clusterRole": "log-reader"}))
    assert isinstance(decided(asked, allowed), Approved)
    denial(decided(asked, allowed, deny(access=roles)), Reason.POLICY_DENIED)
    denial(decided(asked, allowed, deny(access=[ceiling("p", PODS)])), Reason.POLICY_DENIED)
    assert isinstance(decided(asked, allowed, deny(access=[ceiling("d", DEPLOYMENTS)])), Approved)


def test_a_deny_meets_a_role_whose_rules_are_unknown() -> None:
    asked = request(access=scopes({"namespace": "shop", "clusterRole": "ghost"}))
    denial(decided(asked, policy(), deny(access=[ceiling("p", PODS)])), Reason.POLICY_DENIED)
    denial(decided(asked, policy(), deny(access=[ceiling("p", PODS, namespaces=["web"])])), Reason.ACCESS_BEYOND_POLICY)


def test_a_deny_of_everything_does_not_tell_the_agent_to_leave_something_out() -> None:
    told = denial(decided(request(), policy(), deny()), Reason.POLICY_DENIED)
    assert "denies every access" in told.message
    assert "Leave it out" not in told.message


def test_a_deny_that_cannot_be_used_leaves_those_it_selects_undecided() -> None:
    broken = deny("broken", validations=validation("1 +"))
    decision = decided(request(), policy(), broken)
    assert isinstance(decision, Undecided)
    assert decision.reason is Reason.POLICIES_NOT_READY
    assert "broken" in decision.message
    others = deny("broken", validations=validation("1 +"), subjects=[{"name": "o", "namespace": "other"}])
    assert isinstance(decided(request(), policy(), others), Approved)


def test_a_deny_that_matches_wins_over_one_that_cannot_be_used() -> None:
    broken = deny("broken", validations=validation("1 +"))
    denial(decided(request(), policy(), broken, deny("sound")), Reason.POLICY_DENIED)


def test_an_allow_that_cannot_be_used_is_skipped_and_named() -> None:
    broken = policy("broken", validations=validation("1 +"))
    assert isinstance(decided(request(), broken, policy()), Approved)
    told = denial(decided(request(), broken), Reason.NO_POLICY_MATCHED)
    assert "broken" in told.message
    told = denial(decided(request(ttl="2h"), broken, policy()), Reason.TTL_TOO_LONG)
    assert "broken" in told.message
    told = denial(decided(request(), broken, known=facts(identity=STRANGER)), Reason.NO_POLICY_MATCHED)
    assert "broken" not in told.message


def test_what_is_not_known_about_the_agent_never_grants() -> None:
    by_labels = [{"name": "s", "namespaceSelector": {"matchLabels": {"team": "shop"}}}]
    assert isinstance(decided(request(), policy(subjects=by_labels)), Approved)
    unknown = facts(namespaces={})
    allow_only = decided(request(), policy(subjects=by_labels), known=unknown)
    assert isinstance(allow_only, Undecided)
    assert allow_only.reason is Reason.POLICIES_NOT_READY
    against = decided(request(), policy(), deny(subjects=by_labels), known=unknown)
    assert isinstance(against, Undecided)


def test_a_denial_fits_into_its_fields_however_large_the_policy_is() -> None:
    names = [f"{'n' * 200}-{at}" for at in range(32)]
    big = ceiling("big", *([{**DEPLOYMENTS, "resourceNames": names}] * 32))
    told = denial(decided(request(access=in_shop(PODS)), policy(access=[big])), Reason.ACCESS_BEYOND_POLICY)
    assert told.allowed is None
    Denial.model_validate(json.loads(told.model_dump_json(by_alias=True)))
