"""What the models have, an expression can read, and finds there what `variables` gives."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from tests.unit.policy.given import facts, request
from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import Task
from valetkey.kinds.base import Model
from valetkey.kinds.demands import Validation
from valetkey.kinds.identity import Identity
from valetkey.kinds.schema import structural
from valetkey.policy.environment import FIELDS
from valetkey.policy.expressions import Values, compile_expression
from valetkey.policy.variables import variables


def full(annotation: Any) -> Any:
    """A value with every field that a model has, however deep; where several may not stand together too."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return full(next(choice for choice in arguments if choice is not type(None)))
    if origin is tuple:
        return [full(arguments[0])]
    if origin in (dict, Mapping):
        return {"key": full(arguments[1])}
    if origin is Literal:
        return arguments[0]
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return {field.alias: full(field.annotation) for field in annotation.model_fields.values()}
    return (
        full(arguments[0]) if origin is not None else {str: "a", int: 1, float: 1.5, bool: True, Any: "a"}[annotation]
    )


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is no object and no list, with the expression that reads it."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(f"{path}.{name}", member)
    elif isinstance(value, list):
        yield from leaves(f"{path}[0]", value[0])
    else:
        yield path, value


def literal(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


ACCESS: dict[str, Any] = full(Access)
TASK: dict[str, Any] = full(Task)
READABLE = [*leaves("access", ACCESS), *leaves("claims.task", TASK)]


@pytest.mark.parametrize(("path", "value"), READABLE, ids=[path for path, _ in READABLE])
def test_every_field_of_the_models_can_be_read_and_has_the_value_of_the_request(path: str, value: Any) -> None:
    read = Values.of(variables(request(TASK, access=ACCESS), facts()))
    assert compile_expression(f"{path} == {literal(value)}").is_true(read)


def test_every_field_of_the_access_is_among_them() -> None:
    """Counted by its schema, so that a walk that forgets a branch is found."""

    def counted(schema: dict[str, Any]) -> int:
        if "properties" in schema:
            return sum(counted(field) for field in schema["properties"].values())
        return counted(schema["items"]) if "items" in schema else 1

    assert len(list(leaves("access", ACCESS))) == counted(structural(Access))


@pytest.mark.parametrize("field", [field.name for field in fields(Identity)])
def test_every_field_of_the_identity_can_be_read(field: str) -> None:
    head, *rest = field.split("_")
    name = head + "".join(part.upper() if part == "uid" else part.capitalize() for part in rest)
    known = facts()
    compared = f"identity.{name} == identity.{name}"
    assert compile_expression(compared).is_true(Values.of(variables(request(), known)))
    assert variables(request(), known)["identity"][name] == getattr(known.identity, field)


def test_what_variables_gives_is_what_the_environment_knows_and_no_more() -> None:
    read = variables(request(TASK, access=ACCESS), facts())
    assert read.keys() == {*(path for path in FIELDS if "." not in path), "cluster", "now"}
    for path in ("identity", "claims", "claims.task", "access", "access.kubernetes"):
        at: Any = read
        for part in path.split("."):
            at = at[part]
        assert set(at) == set(FIELDS[path])
    assert {name for namespace in read["namespaces"].values() for name in namespace} <= set(FIELDS["namespaces"])


def test_what_a_request_leaves_out_is_absent_rather_than_empty() -> None:
    read = Values.of(variables(request(), facts()))
    assert compile_expression("access.kubernetes.scopes.all(s, has(s.namespace) && !has(s.clusterRole))").is_true(read)
    assert compile_expression("access.kubernetes.scopes.all(s, s.rules.all(r, !has(r.nonResourceURLs)))").is_true(read)


@pytest.mark.parametrize("path", FIELDS)
def test_the_reference_that_people_read_names_every_field(path: str) -> None:
    told = structural(Validation)["properties"]["expression"]["description"].replace("[]", "").replace("[name]", "")
    names = FIELDS[path]
    listed = names[0] if len(names) == 1 else "{" + ", ".join(names) + "}"
    assert f"{path.rpartition('.')[2]}.{listed}" in told
