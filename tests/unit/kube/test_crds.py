"""Whether the API server's CRDs have what this version counts on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from valetkey.kinds.schema import KINDS, crd
from valetkey.kube import crds
from valetkey.kube.api import Json

NAME = "taskgrants.valetkey.dev"
LIVE = {body["metadata"]["name"]: body for body in map(crd, KINDS)}


def schema(body: Json) -> Json:
    found: Json = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def order(body: Json) -> Json:
    found: Json = schema(body)["properties"]["spec"]["properties"]["order"]
    return found


def test_the_crds_of_this_version_have_everything() -> None:
    assert {name: crds.lacks(expected, LIVE[name]) for name, expected in crds.load().items()} == dict.fromkeys(LIVE)


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (lambda body: order(body)["properties"].pop("podTemplates"), ".spec.order.podTemplates"),
        (lambda body: order(body)["required"].append("later"), None),
        (lambda body: order(body)["required"].remove("access"), ".spec.order.required: access"),
        (lambda body: order(body)["properties"].update(later={"type": "string"}), None),
        (lambda body: order(body)["properties"]["line"].update(maxLength=9), ".spec.order.line.maxLength"),
        (lambda body: order(body).update(description="said otherwise"), None),
        (lambda body: schema(body).pop("x-kubernetes-validations"), ".x-kubernetes-validations"),
        (lambda body: schema(body)["x-kubernetes-validations"].clear(), ".x-kubernetes-validations: {"),
        (lambda body: body["spec"]["versions"][0].update(served=False), "version v1alpha1"),
        (lambda body: body["spec"]["versions"][0].update(name="v1"), "version v1alpha1"),
    ],
)
def test_a_crd_is_outdated_exactly_where_something_is_missing_or_less(
    change: Callable[[Json], object], lacks: str | None
) -> None:
    body = copy.deepcopy(LIVE[NAME])
    change(body)
    found = crds.lacks(crds.load()[NAME], body)
    assert found is None if lacks is None else (found or "").startswith(lacks)
