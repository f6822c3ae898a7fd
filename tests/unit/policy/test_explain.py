"""What each policy said is told, rule by rule; and read backwards, who may get a right."""

from __future__ import annotations

from tests.unit.policy.given import deny, facts, policy, request
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.backwards import May, who_can
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.explain import PolicySaid, explain


def said(*policies: AgentPolicy) -> dict[str, PolicySaid]:
    every = Policies.of(compile_policy(one) for one in policies)
    return {one.policy: one for one in explain(request(), every, facts())}


def rule(name: str, expression: str) -> dict[str, str]:
    return {"name": name, "expression": expression, "message": "no"}


def test_every_policy_says_what_it_says_by_itself() -> None:
    told = said(
        policy("grants"),
        policy("refuses", ttl={"default": "1m"}, validations=[rule("never", "cluster == 'nowhere'")]),
        policy("others", subjects=[{"name": "x", "namespace": "elsewhere"}]),
        policy("broken", validations=[rule("broken", "nothing")]),
        policy("over", until="2020-01-01T00:00:00Z"),
        policy("neither", validations=[rule("neither", "identity.labels.absent == 'x'")]),
        policy("rehearsed", mode="Audit"),
    )
    assert {name: one.says for name, one in told.items()} == {
        "grants": "grants",
        "refuses": "refuses",
        "others": "does not apply",
        "broken": "cannot be used",
        "over": "does not apply",
        "neither": "cannot say",
        "rehearsed": "grants",
    }
    assert told["rehearsed"].rehearsed
    assert not told["grants"].rehearsed


def test_a_deny_says_whether_it_applies() -> None:
    told = said(deny("everything"), deny("never", validations=[rule("never", "cluster == 'nowhere'")]))
    assert (told["everything"].says, told["never"].says) == ("denies", "does not apply")


def test_each_rule_says_what_it_read() -> None:
    (one,) = said(
        policy(validations=[rule("here", "cluster == 'west'"), rule("never", "identity.namespace == 'x'")])
    ).values()
    assert [(entry.name, entry.says) for entry in one.rules] == [("here", "true"), ("never", "false")]
    assert one.rules[0].read == {"cluster": "west"}
    assert set(one.rules[1].read) == {"identity"}


def may(*policies: AgentPolicy, verb: str = "patch", namespace: str | None = "shop") -> tuple[May, ...]:
    return who_can(Policies.of(compile_policy(one) for one in policies), verb, "deployments", "apps", namespace)


def test_read_backwards_policies_say_who_may_get_a_right_and_what_else_has_to_be_so() -> None:
    (one,) = may(policy(validations=[rule("hours", "true")]), policy("elsewhere", access=[SOMETHING_ELSE]))
    assert (one.policy, one.effect, one.purposes) == ("shop-fixers", "Allow", ("remediation",))
    assert one.subjects == ("shop-agents/fixer",)
    assert one.conditions == ("hours",)


def test_how_many_people_are_asked_and_where_is_said() -> None:
    (always, sometimes) = may(policy("a", approval={"approvals": 2}), policy("b", approval={"when": "true"}))
    assert always.conditions == ("approval by 2",)
    assert sometimes.conditions == ("approval by 1 where `when` is true",)


def test_a_policy_that_cannot_be_used_is_shown_as_such() -> None:
    (one,) = may(policy(validations=[rule("broken", "1 +")]))
    assert (one.policy, one.entry) == ("shop-fixers", "cannot be used")


def test_a_right_that_no_policy_is_about_is_nobodys() -> None:
    assert may(policy(), verb="delete") == ()
    assert may(policy(), namespace="elsewhere") == ()


def test_a_deny_that_takes_it_away_is_shown_beside() -> None:
    assert [(one.policy, one.effect, one.entry) for one in may(policy(), deny("lock"))] == [
        ("lock", "Deny", "every access"),
        ("shop-fixers", "Allow", "restart"),
    ]


SOMETHING_ELSE = {
    "name": "pods",
    "kubernetes": {
        "scopes": [{"namespaces": ["shop"], "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}]
    },
}
