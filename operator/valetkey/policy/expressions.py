"""CEL: is this rule true? Compiled once, typed, bounded; whatever is not the boolean true is not true.

`cel_expr_python` gives an evaluation error as a value whose content is a truthy string, and raises when its budget of
10 000 iterations is spent; both leave this module as one EvaluationError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]

from valetkey.reasons import Reason

MAX_EXPRESSION: Final = 4096

_STRING = cel.Type.STRING
_ANYTHING = cel.Type.Map(_STRING, cel.Type.DYN)
_LABELS = cel.Type.Map(_STRING, _STRING)

# Each field is a variable of its own, so that a misspelt one is found when the policy is compiled.
_VARIABLES: Final[Mapping[str, cel.Type]] = {
    "identity.namespace": _STRING,
    "identity.serviceAccount": _STRING,
    "identity.podName": _STRING,
    "identity.podUID": _STRING,
    "identity.nodeName": _STRING,
    "identity.labels": _LABELS,
    "claims.task.id": _STRING,
    "claims.task.objective": _STRING,
    "claims.task.purpose": _STRING,
    "claims.task.parameters": _ANYTHING,
    "access": _ANYTHING,
    "namespaces": cel.Type.Map(_STRING, cel.Type.Map(_STRING, _LABELS)),
    "cluster": _STRING,
    "now": cel.Type.TIMESTAMP,
}
_ENVIRONMENT: Final = cel.NewEnv(variables=dict(_VARIABLES))
# Enough to run a loop over constants, which alone can be too costly for every request.
_SAMPLE: Final[dict[str, Any]] = {
    **{name: "" if kind == _STRING else {} for name, kind in _VARIABLES.items()},
    "now": datetime(2026, 1, 1, tzinfo=UTC),
}

_PATTERNS: Final = cel.NewEnv(variables={"text": _STRING, "pattern": _STRING})
_MATCHES: Final = _PATTERNS.compile("text.matches(pattern)")

_AT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_BUDGET = "budget exceeded"
_TOO_LARGE = ("limit exceeded", "exceeds codepoint limit")


class ExpressionError(Exception):
    """An expression cannot be used; says which of the two reasons, where and what is wrong."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EvaluationError(Exception):
    """An expression is neither true nor false for this request; carries no text of it."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression that gives a boolean."""

    _program: cel.Expression

    def is_true(self, variables: Mapping[str, Any]) -> bool:
        """Whether it is true; raises EvaluationError where it is neither true nor false."""
        return _boolean(self._program, variables)


def compile_expression(text: str) -> Expression:
    """Compiles a rule; raises ExpressionError with line and column."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(Reason.EXPRESSION_TOO_COSTLY, f"the expression has more than {MAX_EXPRESSION} characters")
    try:
        program = _ENVIRONMENT.compile(text)
    except Exception as error:  # the library raises RuntimeError, or UnicodeError for lone surrogates
        raise _explained(str(error)) from None
    if program.return_type() != cel.Type.BOOL:
        raise ExpressionError(
            Reason.EXPRESSION_INVALID,
            f"line 1, column 1: it gives {program.return_type().name()}, not BOOL; compare it, as in `… == true`",
        )
    try:
        program.eval(data=_SAMPLE)
    except Exception as error:
        # Only its cost matters here: the sample has no values that it could be right about.
        if _BUDGET in str(error):
            raise ExpressionError(
                Reason.EXPRESSION_TOO_COSTLY, "line 1, column 1: its loops take more than 10000 steps"
            ) from None
    return Expression(program)


def check_pattern(pattern: str) -> None:
    """Raises ExpressionError unless the pattern is RE2, by itself and when it is anchored."""
    # By itself too: `a)|(?:b` is no pattern, but would be one within the brackets of the anchored form.
    for form in (pattern, _whole(pattern)):
        try:
            _boolean(_MATCHES, {"text": "", "pattern": form})
        except EvaluationError:
            raise ExpressionError(Reason.EXPRESSION_INVALID, "the pattern is not an RE2 expression") from None


def matches_whole(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text, a newline at its end included; what cannot be matched does not."""
    try:
        return _boolean(_MATCHES, {"text": text, "pattern": _whole(pattern)})
    except EvaluationError:
        return False


def _whole(pattern: str) -> str:
    # \A and \z, since $ may match before the end where the pattern sets flags.
    return rf"\A(?:{pattern})\z"


def _boolean(program: cel.Expression, variables: Mapping[str, Any]) -> bool:
    try:
        result = program.eval(data=dict(variables))
    except Exception:
        raise EvaluationError("the expression took too many steps or met a value that it cannot hold") from None
    if result.type() != cel.Type.BOOL:
        raise EvaluationError("the expression gave an error")
    return result.value() is True


def _explained(text: str) -> ExpressionError:
    if any(words in text for words in _TOO_LARGE):
        return ExpressionError(Reason.EXPRESSION_TOO_COSTLY, "line 1, column 1: it is nested too deeply or too long")
    found = _AT.search(text)
    if found is None:
        return ExpressionError(Reason.EXPRESSION_INVALID, "line 1, column 1: it cannot be read")
    line, column, what = found.groups()
    return ExpressionError(Reason.EXPRESSION_INVALID, f"line {line}, column {column}: {what[:500]}")
