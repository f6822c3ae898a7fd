"""Parameters are what their purpose says, and small enough to look at."""

from __future__ import annotations

from typing import Any

import pytest

from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import Task
from valetkey.kinds.agentpolicy import Purpose
from valetkey.policy.claims import check_claims
from valetkey.policy.parameters import ParameterError, check_parameters, check_size
from valetkey.reasons import Reason


def check(value: Any, **parameter: Any) -> None:
    purpose = Purpose.model_validate({"name": "p", "parameters": {"x": {"required": True, **parameter}}})
    check_parameters({"x": value}, purpose)


@pytest.mark.parametrize(
    ("value", "parameter"),
    [
        ("checkout", {"type": "string"}),
        ("", {"type": "string"}),
        ("checkout", {"type": "string", "pattern": "[a-z]+", "enum": ["checkout"], "maxLength": 8}),
        (3, {"type": "integer", "minimum": 3, "maximum": 3}),
        (2.5, {"type": "number", "minimum": 2, "maximum": 3}),
        (2, {"type": "number"}),
        (True, {"type": "boolean"}),
        (["a", "b"], {"type": "array", "pattern": "[ab]"}),
        ([], {"type": "array"}),
        ("x" * 253, {"type": "string"}),
    ],
)
def test_a_value_of_the_right_type_passes(value: Any, parameter: dict[str, Any]) -> None:
    check(value, **parameter)


@pytest.mark.parametrize(
    ("value", "parameter"),
    [
        (7, {"type": "string"}),
        (None, {"type": "string"}),
        (["a"], {"type": "string"}),
        (True, {"type": "integer"}),
        (False, {"type": "number"}),
        (3.0, {"type": "integer"}),
        ("3", {"type": "integer"}),
        (1, {"type": "boolean"}),
        ("true", {"type": "boolean"}),
        ("a", {"type": "array"}),
        ([1], {"type": "array"}),
        ({"a": "b"}, {"type": "array"}),
        ({}, {"type": "string"}),
        ("x" * 254, {"type": "string"}),
        ("abc", {"type": "string", "maxLength": 2}),
        (["a", "abc"], {"type": "array", "maxLength": 2}),
        (["a"] * 65, {"type": "array"}),
        ("Checkout", {"type": "string", "pattern": "[a-z]+"}),
        ("checkout!", {"type": "string", "pattern": "[a-z]+"}),
        (["a", "B"], {"type": "array", "pattern": "[a-z]"}),
        ("orders", {"type": "string", "enum": ["checkout"]}),
        (["checkout", "orders"], {"type": "array", "enum": ["checkout"]}),
        (2, {"type": "integer", "minimum": 3}),
        (4, {"type": "integer", "maximum": 3}),
        (float("nan"), {"type": "number", "minimum": 0, "maximum": 1}),
    ],
)
def test_a_value_of_another_type_is_refused_and_named(value: Any, parameter: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as raised:
        check(value, **parameter)
    assert raised.value.reason is Reason.PARAMETERS_INVALID
    assert raised.value.field == "spec.task.parameters.x"
    assert raised.value.allowed or "items" in raised.value.message


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ParameterError, match='no parameter "y"'):
        check_parameters({"y": 1}, Purpose(name="p"))


def test_a_required_parameter_must_be_there() -> None:
    purpose = Purpose.model_validate({"name": "p", "parameters": {"x": {"type": "string", "required": True}}})
    with pytest.raises(ParameterError, match="needs the parameter x"):
        check_parameters({}, purpose)


def test_an_optional_parameter_may_be_left_out() -> None:
    check_parameters({}, Purpose.model_validate({"name": "p", "parameters": {"x": {"type": "string"}}}))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("parameters", [{}, {"a": "x" * 16_000}, nested(8), {"a": [1, 2.5, None, True, "ä→"]}])
def test_what_is_small_and_flat_may_be_looked_at(parameters: dict[str, Any]) -> None:
    check_size(parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"a": "x" * 2**20},
        {"a": "x" * 16_384},
        {"a": ["x"] * 100_000},
        {"ä" * 9_000: 1},
        nested(9),
        nested(100_000),
        {"a": "line\nbreak"},
        {"a": "\u0085"},
        {"a": "\x00"},
        {"a": "\x7f"},
        {"a": ["fine", "\u202eright to left"]},
        {"a": {"b\u2066": 1}},
        {"a": "\ud800"},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**63},
        {"a": {1: 2}},
        {"a": b"bytes"},
        {"a": {"set"}},
    ],
)
def test_what_is_large_deep_or_no_plain_json_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        check_size(parameters)


@pytest.mark.parametrize("mark", ["\n", "\x1b[2J", "\u0085", "\u202e", "\u2066", "\u2028", "\u200f", "\x7f"])
def test_an_objective_that_does_not_show_what_it_says_is_refused(mark: str) -> None:
    with pytest.raises(InvalidError) as raised:
        check_claims(Task(id="run-1", objective=f"Restart {mark}checkout", purpose="p"))
    assert raised.value.reason is Reason.REQUEST_INVALID
    assert mark not in raised.value.message


def test_an_objective_in_any_language_is_fine() -> None:
    check_claims(Task(id="run-1", objective="Перезапустить checkout, 再起動, إعادة", purpose="p"))
