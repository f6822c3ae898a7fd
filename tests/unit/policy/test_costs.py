"""What an expression may cost is known from its text, before anything of it is run."""

from __future__ import annotations

import pytest

from valetkey.policy.expressions import ExpressionError, compile_expression
from valetkey.reasons import Reason

LONG = "a" * 1500
UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


@pytest.mark.parametrize(
    "expression",
    [
        "['" + "a" * 200 + "']" + ".map(x, x + x)" * 24 + ".size() == 1",
        "[[1, 2, 3, 4]]" + ".map(x, x + x)" * 12 + ".size() == 1",
        "[1].map(x, [x, x]) == [[1, 1]]",
        "[1] . map // a comment (it's one)\n (x, true, x) == [1]",
        "'''it's''' == cluster || r'.map(' == cluster || [1].map(x, x) == [1]",
        "['a'].all(a, [a + a].all(b, [b + b].all(c, c != '')))",
        "['a'].all(a, (a + a).size() == 2)",
        "[1].all(a, [[a, a]].all(b, [[b, b]].all(c, c == c)))",
        "[1].all(a, [{'a': a}].all(b, b == b))",
    ],
)
def test_what_builds_values_that_grow_is_refused(expression: str) -> None:
    refused(expression)


@pytest.mark.parametrize(
    "expression",
    [
        f"!'{LONG}'.matches('(a?){{1000}}a{{1000}}b')",
        "cluster.matches('(a?)\\x7b1000}')",
        "cluster.matches('(a?b?c?d?a?b?c?d?a?b?c?d?a?b?c?d?){100}')",
        "cluster.matches('\\\\p{L}{90}')",
        "cluster.matches('\\\\Q[\\\\E(a?){100}]')",
        "cluster.matches('" + "a?" * 1000 + "')",
        "cluster.matches('(a?){100' + '0}')",
        "cluster.matches(claims.task.objective)",
        "matches(cluster, '(a?){1000}')",
        "[1, 2, 3].all(x, !cluster.matches('a.........c'))",
    ],
)
def test_a_pattern_that_takes_long_is_refused(expression: str) -> None:
    refused(expression)


def refused(expression: str) -> str:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(expression)
    assert raised.value.reason is Reason.EXPRESSION_TOO_COSTLY
    return str(raised.value)


def test_it_says_where_it_is_and_what_to_write_instead() -> None:
    told = refused("cluster == 'a' ||\n  [1].map(x, x) == [1]")
    assert told.startswith("line 2, column 7: map builds ")
    assert told.endswith("use all, exists, exists_one or filter")


@pytest.mark.parametrize(
    "expression",
    [
        "cluster == '[1].map(x, x + x)' || cluster == \"it's .map(\"",
        "has(claims.task.parameters.map) // map(x, x)",
        "['a', 'b'].all(v, v in ['a', 'c'])",
        "access.kubernetes.scopes.exists_one(s, s.rules.exists(r, r.verbs[0] in ['get'] && cluster == s.namespace))",
        "access.kubernetes.scopes.filter(s, s.namespace == 'shop').size() == 1",
        "approvals.exists(a, a.at > now - duration('1h'))",
        "cluster + '-' + identity.namespace == 'west-shop'",
        "cluster in [identity.namespace, 'west']",
        f"cluster.matches('{UUID}')",
        "cluster.matches(r'^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$') && cluster.matches('[[:alpha:]]')",
        "cluster.matches('\\\\p{L}+')",
    ],
)
def test_what_costs_no_more_than_its_steps_compiles(expression: str) -> None:
    compile_expression(expression)
