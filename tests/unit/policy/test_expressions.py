"""An expression is true, false, or an error; nothing else passes for true."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.policy.given import facts, request, scopes
from valetkey.policy.expressions import (
    EvaluationError,
    ExpressionError,
    Values,
    check_pattern,
    compile_expression,
    matches_whole,
)
from valetkey.policy.variables import variables
from valetkey.reasons import Reason


def is_true(expression: str, task: dict[str, Any] | None = None, **spec: Any) -> bool:
    return compile_expression(expression).is_true(Values.of(variables(request(task, **spec), facts())))


@pytest.mark.parametrize(
    "expression",
    [
        'identity.namespace == "shop-agents" && identity.serviceAccount == "fixer"',
        'identity.podName == "fixer-0" && identity.podUID == "pod-uid" && identity.nodeName == "node-1"',
        'identity.labels["valetkey.dev/agent"] == "true"',
        'claims.task.id == "run-1" && claims.task.objective.contains("checkout")',
        'claims.task.purpose == "remediation" && claims.task.parameters.deployment == "checkout"',
        'access.kubernetes.scopes.all(s, s.namespace == "shop")',
        'access.kubernetes.scopes.all(s, s.rules.all(r, !("delete" in r.verbs)))',
        'namespaces.all(n, namespaces[n].labels.env == "test")',
        'cluster == "west"',
        'now > timestamp("2026-11-23T00:00:00Z") && now.getHours("UTC") == 14',
        "!has(identity.labels.absent)",
    ],
)
def test_everything_that_a_decision_reads_can_be_asked_for(expression: str) -> None:
    assert is_true(expression) is True


def test_false_is_false() -> None:
    assert is_true('cluster == "east"') is False


@pytest.mark.parametrize(
    ("expression", "line", "column", "what"),
    [
        ("1 +", 1, 4, "Syntax error"),
        ("true &&\n  unknown", 2, 3, "undeclared reference to 'unknown'"),
        (
            'identity.namespce == "a"',
            1,
            9,
            "identity has no field namespce; it has namespace, serviceAccount, podName,",
        ),
        ('claims.task.purpos == "a"', 1, 12, "claims.task has no field purpos; it has id, objective, purpose, param"),
        ("access.kubernets.scopes.size() == 1", 1, 7, "access has no field kubernets; it has kubernetes"),
        (
            'cluster == "west" &&\n  access.kubernetes.scopes.all(s, s.namspace == "shop")',
            2,
            36,
            "access.kubernetes.scopes has no field namspace; it has namespace, rules, clusterRole",
        ),
        (
            'access.kubernetes.scopes.all(s, s.rules.exists(r, "get" in r.verb))',
            1,
            61,
            "access.kubernetes.scopes.rules has no field verb; it has ",
        ),
        ("[access].exists(a, has(a.kube))", 1, 23, "access has no field kube; "),
        ("namespaces.all(n, namespaces[n].label.env == 'test')", 1, 32, "namespaces has no field label; it has labels"),
        ("cluster == 1", 1, 9, "no matching overload"),
        (
            "access.kubernetes.scopes[0].namespace == 1",
            1,
            39,
            "no matching overload for '_==_' applied to '(string, int)",
        ),
        ("identity.labels.team == true", 1, 22, "applied to '(string, bool)'"),
        ("namespaces['shop'].labels.env == 1", 1, 31, "applied to '(string, int)'"),
        ("access.kubernetes in ['shop']", 1, 19, "applied to '(access.kubernetes, list(string))'"),
        ("access.kubernetes.scopes == null", 1, 26, "applied to '(list(access.kubernetes.scopes), null_type)'"),
        ("identity == null", 1, 10, "applied to '(map(string, dyn), null_type)'"),
        ("type(access) == package.access", 1, 17, "reserved identifier: package"),
        ("true ? true : 'a'", 1, 6, "no matching overload"),
    ],
)
def test_what_does_not_compile_says_where_and_what_is_wrong(expression: str, line: int, column: int, what: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(expression)
    assert raised.value.reason is Reason.EXPRESSION_INVALID
    assert str(raised.value).startswith(f"line {line}, column {column}: ")
    assert what in str(raised.value)


@pytest.mark.parametrize(
    ("expression", "gives"),
    [
        ('"true"', "STRING"),
        ("1", "INT"),
        ("null", "NULL"),
        ("[true]", "LIST<BOOL>"),
        ("dyn(true)", "DYN"),
        ("claims.task.parameters.sure", "DYN"),
        ("identity.labels", "MAP<STRING, STRING>"),
        ("access.kubernetes.scopes[0].namespace", "STRING"),
        ("access.kubernetes", "access.kubernetes"),
        ("access.kubernetes.scopes", "LIST<access.kubernetes.scopes>"),
    ],
)
def test_what_does_not_give_a_boolean_does_not_compile(expression: str, gives: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(expression)
    assert raised.value.reason is Reason.EXPRESSION_INVALID
    assert str(raised.value).startswith(f"line 1, column 1: it gives {gives}, not BOOL; ")


@pytest.mark.parametrize(
    "expression",
    [
        'claims.task.parameters.absent == "x"',
        'identity.labels.absent == "x"',
        'namespaces["unknown"].labels.env == "prod"',
        "1 / (claims.task.parameters.size() - 1) == 1",
        'timestamp(claims.task.id) < now || cluster == "east"',
        'cluster.matches("[")',
    ],
)
def test_an_error_is_not_true(expression: str) -> None:
    with pytest.raises(EvaluationError):
        is_true(expression)


TENFOLD = "[0,1,2,3,4,5,6,7,8,9]"
MILLION = "".join(f"{TENFOLD}.all({name}," for name in "abcdef") + "true" + ")" * 6


def test_a_loop_over_a_million_constants_does_not_compile() -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(MILLION)
    assert raised.value.reason is Reason.EXPRESSION_TOO_COSTLY


def test_a_loop_over_a_million_elements_of_a_request_ends_with_an_error_and_soon() -> None:
    loop = compile_expression("claims.task.parameters.l.all(x, x >= 0)")
    started = time.monotonic()
    with pytest.raises(EvaluationError):
        loop.is_true(Values.of({"claims": {"task": {"parameters": {"l": list(range(1_000_000))}}}}))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("expression", ["(" * 100 + "true" + ")" * 100, "true" + " && true" * 1000])
def test_a_huge_expression_is_too_costly(expression: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(expression)
    assert raised.value.reason is Reason.EXPRESSION_TOO_COSTLY


def test_the_cluster_scope_shows_every_namespace() -> None:
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    assert is_true('"web" in namespaces && "shop" in namespaces', access=scopes({"rules": [nodes]}))
    assert is_true('!("web" in namespaces)')


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("[a-z]+", "abc", True),
        ("[a-z]+", "abc\n", False),
        ("[a-z]+", "\nabc", False),
        ("[a-z]+", "abc1", False),
        ("a|b", "ab", False),
        ("a|b", "b", True),
        ("(?m)^a$", "a\nb", False),
        ("(?i)abc", "ABC", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, text: str, expected: bool) -> None:
    check_pattern(pattern)
    assert matches_whole(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["[a-", "(?=a)b", "(a", "a)|(?:b", "\\Qab", "\\", "a{2000}", "(?P<", "\\1"])
def test_a_pattern_that_is_not_re2_or_breaks_out_of_its_anchors_is_refused(pattern: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        check_pattern(pattern)
    assert raised.value.reason is Reason.EXPRESSION_INVALID


def test_a_pattern_that_would_take_for_ever_elsewhere_is_fast() -> None:
    started = time.monotonic()
    assert matches_whole("(a+)+b", "a" * 16_000) is False
    assert time.monotonic() - started < 2
