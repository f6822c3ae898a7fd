"""CEL: is this rule true? Compiled once, typed, bounded; whatever is not the boolean true is not true.

`cel_expr_python` gives an evaluation error as a value whose content is a truthy string, and raises when its budget of
steps is spent; both leave this module as one EvaluationError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]

from valetkey.policy.costs import CostError, check_costs
from valetkey.policy.environment import CHECKING, FIELDS, PACKAGE, RUNNING, WITHOUT_APPROVALS
from valetkey.reasons import Reason

# Without it, whoever may write one policy fills the operator's memory, and every status and log that quotes it.
MAX_EXPRESSION: Final = 4096
# The library's own. Without it, an agent that gives long parameters to a loop in a loop stops all other decisions.
MAX_STEPS: Final = 10_000

# RE2 alone, which takes time in proportion to the text: with another, an agent whose parameter meets an unlucky pattern
# stops all other decisions.
_PATTERNS: Final = cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING})
_MATCHES: Final = _PATTERNS.compile("text.matches(pattern)")

_SHORT: Final = 128
"""Characters of a text whose match is remembered: an agent must not fill the memory with long ones."""
_AT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_NO_FIELD = re.compile(rf"undefined field '(.+)' not found in struct '{PACKAGE}\.(\w+)'")
_STRUCT = re.compile(rf"\b{PACKAGE}\.(\w+)")
_BUDGET = "budget exceeded"
# The library's own, 32 levels deep. Without it, whoever may write one policy exhausts the stack, and the operator ends.
_TOO_LARGE = ("limit exceeded", "exceeds codepoint limit")


class ExpressionError(Exception):
    """An expression cannot be used; says which of the two reasons, where and what is wrong."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EvaluationError(Exception):
    """An expression is neither true nor false for this request; carries no text of it."""


@dataclass(frozen=True, slots=True)
class Values:
    """What expressions read, by name; handed to CEL once, however many read it."""

    named: Mapping[str, Any]
    activation: cel.Activation

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Values:
        """Values, ready to be read."""
        return cls(named, RUNNING.Activation(dict(named)))


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression that gives a boolean."""

    _program: cel.Expression
    reads_approvals: bool
    """Whether it asks what people have said, so that it may be otherwise once somebody has spoken."""

    def is_true(self, values: Values) -> bool:
        """Whether it is true; raises EvaluationError where it is neither true nor false."""
        return _boolean(self._program, values.activation)


def compile_expression(text: str) -> Expression:
    """Compiles a rule; raises ExpressionError with line and column."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(Reason.EXPRESSION_TOO_COSTLY, f"the expression has more than {MAX_EXPRESSION} characters")
    given = _compiled(CHECKING, text).return_type()
    if given != cel.Type.BOOL:
        what = _in_words(given.name())
        raise _invalid(f"line 1, column 1: it gives {what}, not BOOL; compare it, as in `… == true`")
    try:
        check_costs(text)
    except CostError as error:
        raise ExpressionError(Reason.EXPRESSION_TOO_COSTLY, str(error)) from None
    program = _compiled(RUNNING, text)
    try:
        program.eval(data={})
    except Exception as error:
        # Only its cost matters here: a loop over constants, which needs no values, can alone be too costly.
        if _BUDGET in str(error):
            raise ExpressionError(
                Reason.EXPRESSION_TOO_COSTLY, f"line 1, column 1: its loops take more than {MAX_STEPS} steps"
            ) from None
    return Expression(program, _reads_approvals(text))


def _reads_approvals(text: str) -> bool:
    """Whether it means nothing where there are no approvals: a word in a string, or a name of its own, is none."""
    if "approvals" not in text:
        return False
    try:
        WITHOUT_APPROVALS.compile(text)
    except Exception:  # as in _compiled; it does compile where they are known
        return True
    return False


def check_pattern(pattern: str) -> None:
    """Raises ExpressionError unless the pattern is RE2, by itself and when it is anchored."""
    # By itself too: `a)|(?:b` is no pattern, but would be one within the brackets of the anchored form.
    for form in (pattern, _whole(pattern)):
        try:
            _boolean(_MATCHES, _PATTERNS.Activation({"text": "", "pattern": form}))
        except EvaluationError:
            raise _invalid("the pattern is not an RE2 expression, or is too large for one") from None


def matches_whole(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text, a newline at its end included; what cannot be matched does not."""
    return _matched(pattern, text) if len(text) <= _SHORT else _match(pattern, text)


def _match(pattern: str, text: str) -> bool:
    try:
        return _boolean(_MATCHES, _PATTERNS.Activation({"text": text, "pattern": _whole(pattern)}))
    except EvaluationError:
        return False


# The same few patterns meet the same few words in policy after policy, and RE2 reads the pattern anew each time.
_matched = lru_cache(maxsize=1024)(_match)


def _whole(pattern: str) -> str:
    # \A and \z, since $ may match before the end where the pattern sets flags.
    return rf"\A(?:{pattern})\z"


def _boolean(program: cel.Expression, activation: cel.Activation) -> bool:
    try:
        answer = program.eval(activation).value()
    except Exception:
        raise EvaluationError("the expression took too many steps or met a value that it cannot hold") from None
    if answer is not True and answer is not False:
        raise EvaluationError("the expression gave an error")
    return answer


def _compiled(environment: cel.Env, text: str) -> cel.Expression:
    try:
        return environment.compile(text)
    except Exception as error:  # the library raises RuntimeError, or UnicodeError for lone surrogates
        raise _explained(str(error)) from None


def _explained(text: str) -> ExpressionError:
    if any(words in text for words in _TOO_LARGE):
        return ExpressionError(Reason.EXPRESSION_TOO_COSTLY, "line 1, column 1: it is nested too deeply or too long")
    found = _AT.search(text)
    if found is None:
        return _invalid("line 1, column 1: it cannot be read")
    line, column, what = found.groups()
    if no_field := _NO_FIELD.search(what):
        name, path = no_field[1], _path(no_field[2])
        what = f"{path} has no field {name}; it has {', '.join(FIELDS[path])}"
    return _invalid(f"line {line}, column {column}: {_in_words(what)[:500]}")


def _invalid(message: str) -> ExpressionError:
    return ExpressionError(Reason.EXPRESSION_INVALID, message)


def _in_words(text: str) -> str:
    """A type or message of the compiler with each message's name as the path that people write."""
    return _STRUCT.sub(lambda found: _path(found[1]), text.removesuffix(" (in container '')"))


def _path(message: str) -> str:
    return message.replace("_", ".")
