"""Does an expression cost more than its steps say?

The library counts the steps of loops, not what a step takes: one that builds doubles what the one before it built, and
one pattern may take seconds. So before anything is run, its text is held to what cannot grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cel_expr_python import cel  # type: ignore[import-untyped]

# A pattern takes time in proportion to its size times the text's: of 500, and an agent's 16 KB, a third of a second.
MAX_PATTERNS: Final = 500
_CLASS: Final = 100
"""What \\p{L} and its like count: each is some hundred ranges."""

_LOOPS: Final = frozenset({"all", "exists", "exists_one", "filter"})
# None of these is known to the environment today; they would build as map does.
_BUILDERS: Final = frozenset(
    {"map", "bind", "optMap", "optFlatMap", "transformList", "transformMap", "transformMapEntry", "block"}
)
_CONSTANTS: Final = frozenset({"true", "false", "null"})

_TOKEN: Final = re.compile(
    r"""
      (?P<skipped> \s+ | //[^\n]* )
    | (?P<text>
          [bB]?[rR](?: "{3}.*?"{3} | '''.*?''' | "[^"\n\r]*" | '[^'\n\r]*' )
        | [bB]?(?: "{3}(?:\\.|[^\\])*?"{3} | '''(?:\\.|[^\\])*?''' | "(?:\\.|[^\\"\n\r])*" | '(?:\\.|[^\\'\n\r])*' ) )
    | (?P<name> [A-Za-z_]\w* )
    | (?P<number> \d(?: [eE][+-]?\d | [\w.] )* )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ATOM: Final = re.compile(
    r"""
      \\[pP](?: \{[^}]*\} | . ) | \\x\{[^}]*\} | \\.
    | \[\^?\]?(?: \\. | \[:\^?\w+:\] | [^\]\\] )*\]
    | \{(?P<count>\d+)(?:,(?P<most>\d*))?\}
    | .
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_TEXTS: Final = cel.NewEnv()


class CostError(Exception):
    """An expression may cost too much; says where, and what to write instead."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def check_costs(text: str) -> None:
    """Raises CostError unless all that an expression which compiles can cost lies in its steps."""
    tokens = tuple(_tokens(text))
    for token, what in _faults(tokens):
        line, start = text.count("\n", 0, token.at) + 1, text.rfind("\n", 0, token.at) + 1
        raise CostError(f"line {line}, column {token.at - start + 1}: {what}")


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup is not None and found.lastgroup != "skipped":
            yield _Token(found.lastgroup, found[0], found.start())


def _faults(tokens: Sequence[_Token]) -> Iterator[tuple[_Token, str]]:
    called = [one for one, after in pairwise(tokens) if one.kind == "name" and after.text == "("]
    for one in called:
        if one.text in _BUILDERS:
            yield one, f"{one.text} builds what may double with each; use all, exists, exists_one or filter"
    loops = any(one.text in _LOOPS for one in called)
    if loops:
        yield from _built(tokens)
    size = 0
    for at, one in enumerate(tokens):
        if one not in called or one.text != "matches":
            continue
        if loops:
            yield one, "matches beside a loop; use startsWith, endsWith, contains or in, or a rule of its own"
        pattern = _pattern(tokens[at - 1 : at + 4])
        if pattern is None:
            yield one, "matches takes its pattern as one string, as in text.matches('[a-z]+'); use startsWith or =="
        else:
            size += _size(pattern)
        if size > MAX_PATTERNS:
            yield one, f"its patterns, repetitions written out, come to more than {MAX_PATTERNS}; use shorter ones"


def _built(tokens: Iterable[_Token]) -> Iterator[tuple[_Token, str]]:
    """What builds a value: within a loop it may be given on to the next, which builds on it."""
    brackets: list[bool] = []
    before: _Token | None = None
    for one in tokens:
        name = one.kind == "name" and one.text not in _CONSTANTS
        if one.text == "+":
            yield one, "+ beside a loop; use - on the other side, or a rule of its own"
        elif one.text == "{":
            yield one, "a map or message beside a loop; compare its fields, or use a rule of its own"
        elif one.text == "[":
            brackets.append(not _ends_value(before))
        elif one.text == "]" and brackets:
            brackets.pop()
        elif name and any(brackets):
            yield one, "a list beside a loop has constants alone; use || or &&, or a rule of its own"
        before = one


def _ends_value(token: _Token | None) -> bool:
    """Whether a bracket after it is an index."""
    if token is None or token.text == "in":
        return False
    return token.kind != "sign" or token.text in ")]}"


def _pattern(around: Sequence[_Token]) -> str | None:
    """The pattern of `.matches(…)`, if that is one string; a function's, or one that is put together, is not."""
    match [one.text if one.kind == "sign" else one.kind for one in around]:
        case [".", "name", "(", "text", ")"]:
            # An escape may stand for a brace, so the library itself reads it.
            return str(_TEXTS.compile(around[3].text).eval(data={}).value())
    return None


def _size(pattern: str) -> int:
    """At least its size with repetitions written out: a group's count repeats all that stands before its end."""
    size, last, group = 0, 0, True
    for found in _ATOM.finditer(pattern):
        atom = found[0]
        if atom == "\\Q":
            return MAX_PATTERNS + 1  # until \\E nothing is what it looks like here
        if found["count"] is not None:
            count = max(int(found["count"]), int(found["most"] or 0), 1)
            size = size * count if group else size + last * count
            group = True
        else:
            last = _CLASS * len(re.findall(r"\\[pP]", atom)) + len(atom) // 4 + 1
            size += last
            group = atom in {")", "?", "*", "+"}
    return size
