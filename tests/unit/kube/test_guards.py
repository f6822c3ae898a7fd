"""Guards: what must be in force is compared with what is; what the API server adds is no change."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from valetkey.kube.api import Json
from valetkey.kube.guards import Guards, compare, identify, load

CREATED = "2026-11-23T14:00:00Z"
RULE: Json = {
    "apiGroups": ["valetkey.dev"],
    "apiVersions": ["v1alpha1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["accessrequests"],
}
POLICY: Json = {
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "request-attest"},
    "spec": {
        "matchConstraints": {"resourceRules": [RULE]},
        "matchConditions": [{"name": "agents", "expression": "true"}],
        "variables": [{"name": "asked", "expression": "object.spec.requester"}],
        "validations": [{"expression": "variables.asked.username == request.userInfo.username", "reason": "Forbidden"}],
        "failurePolicy": "Fail",
    },
}
BINDING: Json = {
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "request-attest"},
    "spec": {"policyName": "request-attest", "validationActions": ["Deny"]},
}
Path_ = tuple[str | int, ...]


def live(body: Json, **metadata: Any) -> Json:
    """A guard as the API server gives it back: stamped, with its defaults filled in."""
    found = copy.deepcopy(body)
    found["metadata"] |= {"uid": "u", "creationTimestamp": CREATED} | metadata
    if found["kind"] == "ValidatingAdmissionPolicy":
        constraints = found["spec"]["matchConstraints"]
        constraints |= {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
        for rule in constraints["resourceRules"]:
            rule["scope"] = "*"
        found["status"] = {"observedGeneration": 1, "typeChecking": {}}
    return found


def judged(*found: Json) -> Guards:
    return compare((POLICY, BINDING), {identify(body): body for body in found})


def changed(body: Json, path: Path_, value: Any) -> Json:
    found = live(body)
    place = found["spec"]
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_guards_with_the_defaults_of_the_api_server_are_in_force_since_their_creation() -> None:
    assert judged(live(POLICY), live(BINDING)) == Guards(wrong=(), since=at(CREATED))


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ([BINDING], ["ValidatingAdmissionPolicy"]),
        ([POLICY], ["ValidatingAdmissionPolicyBinding"]),
        ([], ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]),
    ],
)
def test_a_guard_that_is_missing_is_named_and_none_is_in_force(found: list[Json], missing: list[str]) -> None:
    wrong = tuple(f"{kind} request-attest: missing" for kind in missing)
    assert judged(*(live(body) for body in found)) == Guards(wrong=wrong, since=None)


def test_a_guard_that_is_being_deleted_is_not_in_force() -> None:
    found = judged(live(POLICY, deletionTimestamp=CREATED), live(BINDING))
    assert found == Guards(wrong=("ValidatingAdmissionPolicy request-attest: being deleted",), since=None)


POLICY_CHANGES: list[tuple[Path_, Any]] = [
    (("failurePolicy",), "Ignore"),
    (("failurePolicy",), None),
    (("validations", 0, "expression"), "true"),
    (("validations", 0, "reason"), "Invalid"),
    (("validations", 0, "message"), "added"),
    (("validations",), []),
    (("validations",), None),
    (("variables", 0, "expression"), "request.userInfo"),
    (("variables",), [{"name": "asked", "expression": "object.spec.requester"}, {"name": "b", "expression": "1"}]),
    (("matchConditions", 0, "expression"), "false"),
    (("matchConditions",), [*POLICY["spec"]["matchConditions"], {"name": "never", "expression": "false"}]),
    (("paramKind",), {"apiVersion": "v1", "kind": "ConfigMap"}),
    (("matchConstraints", "matchPolicy"), "Exact"),
    (("matchConstraints", "namespaceSelector"), {"matchLabels": {"a": "b"}}),
    (("matchConstraints", "objectSelector"), {"matchLabels": {"a": "b"}}),
    (("matchConstraints", "excludeResourceRules"), [RULE]),
    (("matchConstraints", "resourceRules"), []),
    (("matchConstraints", "resourceRules", 0, "scope"), "Cluster"),
    (("matchConstraints", "resourceRules", 0, "operations"), ["CREATE"]),
    (("matchConstraints", "resourceRules", 0, "operations"), ["UPDATE", "CREATE"]),
    (("matchConstraints", "resourceRules", 0, "resources"), ["taskgrants"]),
    (("matchConstraints", "resourceRules", 0, "resourceNames"), ["one"]),
]
BINDING_CHANGES: list[tuple[Path_, Any]] = [
    (("policyName",), "another"),
    (("validationActions",), ["Audit"]),
    (("validationActions",), ["Deny", "Audit"]),
    (("matchResources",), {"namespaceSelector": {"matchLabels": {"a": "b"}}}),
    (("matchResources",), {"objectSelector": {"matchLabels": {"a": "b"}}}),
    (("matchResources",), {"excludeResourceRules": [RULE]}),
    (("paramRef",), {"name": "p", "parameterNotFoundAction": "Allow"}),
]


@pytest.mark.parametrize(("path", "value"), POLICY_CHANGES)
def test_a_policy_that_was_changed_in_any_field_is_not_in_force(path: Path_, value: Any) -> None:
    found = judged(changed(POLICY, path, value), live(BINDING))
    assert found == Guards(wrong=("ValidatingAdmissionPolicy request-attest: changed",), since=None)


@pytest.mark.parametrize(("path", "value"), BINDING_CHANGES)
def test_a_binding_that_was_changed_or_narrowed_is_not_in_force(path: Path_, value: Any) -> None:
    found = judged(live(POLICY), changed(BINDING, path, value))
    assert found == Guards(wrong=("ValidatingAdmissionPolicyBinding request-attest: changed",), since=None)


def test_spaces_around_an_expression_are_no_change() -> None:
    path: Path_ = ("validations", 0, "expression")
    expression = POLICY["spec"]["validations"][0]["expression"]
    assert judged(changed(POLICY, path, f"{expression}\n"), live(BINDING)).wrong == ()


def test_guards_of_others_and_labels_do_not_matter() -> None:
    other = live(BINDING | {"metadata": {"name": "other"}}, creationTimestamp="2026-11-24T00:00:00Z")
    found = judged(live(POLICY, labels={"a": "b"}), live(BINDING), other)
    assert found == Guards(wrong=(), since=at(CREATED))


def write(time: str, **more: str) -> dict[str, str]:
    return {"manager": "m", "operation": "Update", "time": time, **more}


def test_guards_are_in_force_since_the_newest_write_to_any_of_them() -> None:
    newest = "2026-11-23T15:30:00Z"
    policy = live(POLICY, managedFields=[write("2026-11-23T15:00:00Z"), write("2026-11-23T14:30:00Z")])
    binding = live(BINDING, managedFields=[write(newest)])
    assert judged(policy, binding).since == judged(binding, policy).since == at(newest)


def test_a_write_to_the_status_of_a_policy_does_not_count() -> None:
    policy = live(POLICY, managedFields=[write(CREATED), write("2026-11-24T00:00:00Z", subresource="status")])
    assert judged(policy, live(BINDING)).since == at(CREATED)


def test_an_apply_that_changed_nothing_has_no_time_and_does_not_count() -> None:
    policy = live(POLICY, managedFields=[write(CREATED), {"manager": "m", "operation": "Apply"}])
    assert judged(policy, live(BINDING)).since == at(CREATED)


def test_where_nothing_is_expected_nothing_says_that_guards_are_in_force() -> None:
    assert compare((), {}) == Guards(wrong=(), since=None)


def test_guards_are_loaded_as_the_chart_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    path.write_bytes(orjson.dumps([POLICY, BINDING]))
    assert load(path) == (POLICY, BINDING)
    assert at(CREATED).tzinfo == UTC
