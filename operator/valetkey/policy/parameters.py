"""Are a task's parameters what its purpose says they are?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from valetkey.errors import InvalidError
from valetkey.kinds.agentpolicy import Parameter, Purpose
from valetkey.policy.claims import UNSHOWABLE
from valetkey.policy.expressions import matches_whole
from valetkey.reasons import Reason

MAX_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8
MAX_LENGTH: Final = 253
MAX_ITEMS: Final = 64
_INT64: Final = range(-(2**63), 2**63)
ROOT: Final = "spec.task.parameters"


class ParameterError(InvalidError):
    """A parameter is not what it must be; says which, and what would be."""

    def __init__(self, field: str, message: str, allowed: str | None = None) -> None:
        super().__init__(Reason.PARAMETERS_INVALID, message)
        self.field = field
        self.allowed = allowed


def check_size(parameters: Mapping[str, Any]) -> None:
    """Raises ParameterError unless the parameters are JSON, small and flat enough for any policy to look at."""
    for value, depth in _walk(parameters):
        if depth > MAX_DEPTH:
            raise ParameterError(ROOT, f"The parameters are nested more than {MAX_DEPTH} levels deep: flatten them.")
        _check_leaf(value)
    size = len(json.dumps(dict(parameters), ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        raise ParameterError(ROOT, f"The parameters take {size} bytes of JSON: at most {MAX_BYTES} are read.")


def check_parameters(parameters: Mapping[str, Any], purpose: Purpose) -> None:
    """Raises ParameterError for the first parameter that the purpose does not know or that is not of its type."""
    known = purpose.parameters
    for name in sorted(parameters):
        if name not in known:
            raise ParameterError(
                ROOT,
                f"Purpose {purpose.name} has no parameter {_quoted(name)}: leave it out.",
                _described(known),
            )
    for name, parameter in known.items():
        if name in parameters:
            _check_value(name, parameters[name], parameter)
        elif parameter.required:
            raise ParameterError(
                f"{ROOT}.{name}",
                f"Purpose {purpose.name} needs the parameter {name}: {_type_of(parameter)}.",
                _described({name: parameter}),
            )


def _walk(root: Mapping[str, Any]) -> Iterator[tuple[object, int]]:
    """Every key and value with its depth, without recursion: what is nested deeply must not exhaust the stack."""
    waiting: list[tuple[object, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if depth > MAX_DEPTH:
            continue
        if isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ParameterError(ROOT, "The parameters are not a JSON object: every key is a string.")
                waiting += [(key, depth), (item, depth + isinstance(item, Mapping | list | tuple))]
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + isinstance(item, Mapping | list | tuple)) for item in value]


def _check_leaf(value: object) -> None:
    match value:
        case str():
            if UNSHOWABLE.search(value):
                raise ParameterError(
                    ROOT, "The parameters hold control characters or marks of writing direction: leave them out."
                )
        case bool() | None:
            pass
        case int():
            if value not in _INT64:
                raise ParameterError(ROOT, "The parameters hold an integer of more than 64 bits.")
        case float():
            if not math.isfinite(value):
                raise ParameterError(ROOT, "The parameters hold a number that is not finite, which JSON does not know.")
        case Mapping() | list() | tuple():
            pass
        case _:
            raise ParameterError(ROOT, "The parameters hold a value that JSON does not know.")


def _check_value(name: str, value: object, parameter: Parameter) -> None:
    field = f"{ROOT}.{name}"
    match parameter.type, value:
        case "string", str():
            _check_string(field, name, value, parameter)
        case "array", list() | tuple() if all(isinstance(item, str) for item in value):
            if len(value) > MAX_ITEMS:
                raise ParameterError(field, f"Parameter {name} has more than {MAX_ITEMS} items.")
            for item in value:
                _check_string(field, name, item, parameter)
        case "boolean", bool():
            pass
        # To Python a bool is an integer; to JSON it is not.
        case "integer", int() if not isinstance(value, bool) and _within(value, parameter):
            pass
        case "number", int() | float() if not isinstance(value, bool) and _within(value, parameter):
            pass
        case _:
            raise ParameterError(
                field, f"Parameter {name} is not {_type_of(parameter)}.", _described({name: parameter})
            )


def _check_string(field: str, name: str, value: str, parameter: Parameter) -> None:
    longest = MAX_LENGTH if parameter.max_length is None else parameter.max_length
    if len(value) > longest:
        raise ParameterError(
            field, f"Parameter {name} is longer than {longest} characters.", _described({name: parameter})
        )
    if parameter.enum is not None and value not in parameter.enum:
        raise ParameterError(field, f"Parameter {name} is none of its values.", _described({name: parameter}))
    if parameter.pattern is not None and not matches_whole(parameter.pattern, value):
        raise ParameterError(field, f"Parameter {name} does not match its pattern.", _described({name: parameter}))


def _within(value: float, parameter: Parameter) -> bool:
    least = -math.inf if parameter.minimum is None else parameter.minimum
    most = math.inf if parameter.maximum is None else parameter.maximum
    return least <= value <= most


def _type_of(parameter: Parameter) -> str:
    if parameter.type == "array":
        return "a list of strings"
    text = f"an {parameter.type}" if parameter.type == "integer" else f"a {parameter.type}"
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", parameter.minimum), ("at most", parameter.maximum))
        if bound is not None
    ]
    return " ".join([text, " and ".join(bounds)]).strip()


def _described(known: Mapping[str, Parameter]) -> str:
    """The types of parameters, as the policy writes them, on one line."""
    types = {
        name: parameter.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"description"})
        for name, parameter in known.items()
    }
    return "parameters: " + json.dumps(types, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 64 else text[:63] + "…", ensure_ascii=False)
