"""Does one access lie within another that somebody agreed to?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from valetkey.kinds.access import Access
from valetkey.policy.within import leaves

_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
_ONE = {**_PODS, "resourceNames": ["cart", "web"]}
_EXACT = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["cart"], "verbs": ["get"]}
_PATH = {"nonResourceURLs": ["/metrics/*"], "verbs": ["get"]}


def _access(*scopes: Mapping[str, Any]) -> Access:
    return Access.model_validate({"kubernetes": {"scopes": list(scopes)}})


def _in(namespace: str, *rules: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"namespace": namespace, "rules": list(rules)}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (_access(_in("shop", _PODS)), _access(_in("shop", _PODS))),
        (_access(_in("shop", _EXACT)), _access(_in("shop", _ONE))),
        (_access(_in("shop", _EXACT)), _access(_in("web", _PODS), _in("shop", _PODS))),
        (_access(_in("shop", _EXACT)), _access({"rules": [_PODS]})),
        (_access(_in("shop", {**_EXACT, "verbs": ["get"]})), _access(_in("shop", {**_PODS, "verbs": ["*"]}))),
        (_access({"namespace": "shop", "clusterRole": "view"}), _access({"namespace": "shop", "clusterRole": "view"})),
        (_access({"namespace": "shop", "clusterRole": "view"}), _access({"clusterRole": "view"})),
        (_access({"rules": [{**_PATH, "nonResourceURLs": ["/metrics/a"]}]}), _access({"rules": [_PATH]})),
    ],
)
def test_what_was_agreed_to_and_less_lies_within(asked: Access, given: Access) -> None:
    assert leaves(asked, given) is None


@pytest.mark.parametrize(
    ("asked", "given", "field"),
    [
        (_access(_in("web", _PODS)), _access(_in("shop", _PODS)), "[0].namespace"),
        (_access({"rules": [_PODS]}), _access(_in("shop", _PODS)), "[0]"),
        (_access(_in("shop", _EXACT), _in("shop", _PODS)), _access(_in("shop", _ONE)), "[1].rules[0]"),
        (_access(_in("shop", {**_PODS, "verbs": ["get", "delete"]})), _access(_in("shop", _PODS)), "[0].rules[0]"),
        (_access(_in("shop", {**_PODS, "resources": ["*"]})), _access(_in("shop", _PODS)), "[0].rules[0]"),
        (_access(_in("shop", {**_PODS, "apiGroups": ["apps"]})), _access(_in("shop", _PODS)), "[0].rules[0]"),
        (_access({"namespace": "shop", "clusterRole": "edit"}), _access(_in("shop", _PODS)), "[0].clusterRole"),
        (_access(_in("shop", _PODS)), _access({"namespace": "shop", "clusterRole": "view"}), "[0].rules[0]"),
        (
            _access({"namespace": "shop", "clusterRole": "edit"}),
            _access({"namespace": "shop", "clusterRole": "view"}),
            "[0].clusterRole",
        ),
        (_access({"rules": [{**_PATH, "nonResourceURLs": ["/*"]}]}), _access({"rules": [_PATH]}), "[0].rules[0]"),
    ],
)
def test_whatever_was_not_agreed_to_leaves_it_and_the_field_is_named(asked: Access, given: Access, field: str) -> None:
    assert leaves(asked, given) == f"spec.access.kubernetes.scopes{field}"


def test_two_rules_that_were_given_do_not_add_up() -> None:
    halves = ({**_PODS, "verbs": ["get"]}, {**_PODS, "verbs": ["list"]})
    assert leaves(_access(_in("shop", _PODS)), _access(_in("shop", *halves))) is not None
