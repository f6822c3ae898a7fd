"""The kinds at a real API server: what is accepted, what is refused and in which words, what is filled in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.api import ROOT, Api, Json, merged, unique
from tests.cluster.world import World, grant, policy, unfilled

REQUESTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests"
SEALED = {"publicKey": "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw="}
GRANTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/taskgrants"
POLICIES = "/apis/valetkey.dev/v1alpha1/agentpolicies"

ONE_OF_RULE = "a rule names resources or nonResourceURLs, one of the two"
ONE_OF_SCOPE = "a scope has rules or a clusterRole, one of the two"
NEEDS_NAMESPACE = "a subject names a namespace or a namespaceSelector; everybody is {any: true}"

PARENT = {"namespace": "agents", "name": "plan", "uid": "0b8e4a6c-1a2b-4c3d-8e4f-5a6b7c8d9e0f"}
WORKER = {"namespace": "agents", "serviceAccount": "worker"}
RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}


def access(*scopes: Json) -> Json:
    """A request for these scopes."""
    return {"spec": {"access": {"kubernetes": {"scopes": list(scopes)}}}}


def ceiling(**kubernetes: Any) -> Json:
    """A policy whose only access entry is this."""
    return {"spec": {"access": [{"name": "only", "kubernetes": kubernetes}]}}


def subjects(*entries: Json) -> Json:
    """A policy about these."""
    return {"spec": {"subjects": list(entries)}}


def selector(**requirement: Any) -> Json:
    """A policy about agents whose pod meets one requirement."""
    return subjects({"name": "a", "namespace": "agents", "podSelector": {"matchExpressions": [requirement]}})


@pytest.mark.parametrize(
    "change",
    [
        {},
        access({"namespace": "shop", "clusterRole": "log-reader"}),
        access({"rules": [RULE]}),
        access({"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
        access({"namespace": "shop", "rules": [RULE | {"resourceNames": ["a"]}]}),
        access(*[{"namespace": "shop", "rules": [RULE] * 16}] * 8),
        {"spec": {"ttl": "5m"}},
        {"spec": {"ttl": "1s"}},
        {"spec": {"ttl": "1000ms"}},
        {"spec": {"ttl": "1h30m"}},
        {
            "spec": {
                "task": {
                    "parameters": {"deployment": "checkout", "count": 3, "ratio": 0.5, "dry": True, "names": ["a", "b"]}
                }
            }
        },
        {"spec": {"task": {"objective": "Größe 10 → 12, weil «checkout» fällt 🙂"}}},
        {"spec": {"delivery": {"secret": {"name": "valetkey-asker"}}}},
        {"spec": {"delivery": {"secret": None, "sealed": SEALED}}},
        {"spec": {"parent": PARENT}},
        {"spec": {"delegation": {"to": [WORKER]}}},
        {
            "spec": {
                "delegation": {
                    "to": [WORKER],
                    "maxDepth": 4,
                    "access": [access({"rules": [RULE]})["spec"]["access"]] * 4,
                }
            }
        },
    ],
)
async def test_a_request_is_accepted(api: Api, world: World, change: Json) -> None:
    status, answer = await api.post(
        f"{REQUESTS}?dryRun=All", merged(world.request("asker"), change), by=world.tokens["asker"]
    )
    assert status == 201, answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": None}, "spec: Required value"),
        ({"spec": {"task": None}}, "spec.task: Required value"),
        ({"spec": {"access": None}}, "spec.access: Required value"),
        (
            {"spec": {"access": {"kubernetes": None}}},
            "spec.access: Invalid value: access has exactly one member: kubernetes",
        ),
        (
            access(),
            "spec.access.kubernetes.scopes in body should have at least 1 items",
        ),
        (
            access({"namespace": "shop"}),
            f"spec.access.kubernetes.scopes[0]: Invalid value: {ONE_OF_SCOPE}",
        ),
        (
            access({"rules": [RULE], "clusterRole": "view"}),
            f"spec.access.kubernetes.scopes[0]: Invalid value: {ONE_OF_SCOPE}",
        ),
        (
            access({"namespace": "shop", "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
            "scopes[0]: Invalid value: nonResourceURLs exist in cluster scope only: leave namespace out",
        ),
        (
            access({"rules": [{"verbs": ["get"]}]}),
            f"spec.access.kubernetes.scopes[0].rules[0]: Invalid value: {ONE_OF_RULE}",
        ),
        (
            access({"rules": [RULE | {"nonResourceURLs": ["/metrics"]}]}),
            f"spec.access.kubernetes.scopes[0].rules[0]: Invalid value: {ONE_OF_RULE}",
        ),
        (
            access({"rules": [{"resources": ["pods"], "verbs": ["get"]}]}),
            'spec.access.kubernetes.scopes[0].rules[0]: Invalid value: resources need apiGroups (the core group is "")',
        ),
        (
            access({"rules": [{"nonResourceURLs": ["/metrics"], "resourceNames": ["a"], "verbs": ["get"]}]}),
            "spec.access.kubernetes.scopes[0].rules[0]: Invalid value: resourceNames belong to resources",
        ),
        (access({"rules": [RULE | {"verbs": []}]}), "spec.access.kubernetes.scopes[0].rules[0].verbs: Invalid value"),
        (
            access({"rules": [RULE | {"verbs": ["get\n"]}]}),
            "spec.access.kubernetes.scopes[0].rules[0].verbs[0]: Invalid value",
        ),
        (access({"namespace": "shop\n", "rules": [RULE]}), "spec.access.kubernetes.scopes[0].namespace: Invalid value"),
        (access(*[{"rules": [RULE]}] * 9), "spec.access.kubernetes.scopes: Too many: 9: must have at most 8 items"),
        ({"spec": {"ttl": "0s"}}, 'spec.ttl: Invalid value: "0s": at least 1s'),
        ({"spec": {"ttl": "999ms"}}, 'spec.ttl: Invalid value: "999ms": at least 1s'),
        ({"spec": {"ttl": "5 minutes"}}, "spec.ttl: Invalid value"),
        ({"spec": {"ttl": "1.5h"}}, "spec.ttl: Invalid value"),
        ({"spec": {"ttl": "-5m"}}, "spec.ttl: Invalid value"),
        (
            {"spec": {"delivery": {"secret": None}}},
            "spec.delivery: Invalid value: delivery has exactly one member: secret or sealed",
        ),
        (
            {"spec": {"delivery": {"secret": {}, "sealed": SEALED}}},
            "spec.delivery: Invalid value: delivery has exactly one member: secret or sealed",
        ),
        ({"spec": {"delivery": {"secret": {"name": "other"}}}}, "spec.delivery.secret.name: Invalid value"),
        *(
            (
                {"spec": {"delivery": {"secret": None, "sealed": {"publicKey": key}}}},
                "spec.delivery.sealed.publicKey: Invalid value",
            )
            for key in ("", "AAAA", "A" * 42 + "B=", "A" * 44, "A" * 43 + "-")
        ),
        ({"spec": {"task": {"id": "run 8841"}}}, "spec.task.id: Invalid value"),
        ({"spec": {"task": {"purpose": "re\x1b[31mmediation"}}}, "spec.task.purpose: Invalid value"),
        *(
            (
                {"spec": {"task": {"objective": f"Restart{character}checkout"}}},
                ": objective is one line without control characters",
            )
            for character in "\n\r\t\0\x1b\x7f\x85\u061c\u200e\u200f\u2028\u2029\u202e\u2066"
        ),
        (
            {"spec": {"task": {"objective": "x" * 1025}}},
            "spec.task.objective: Too long: may not be more than 1024 bytes",
        ),
        ({"spec": {"task": {"parameters": []}}}, "spec.task.parameters: Invalid value"),
        (
            {"spec": {"task": {"parameters": {str(n): n for n in range(65)}}}},
            "spec.task.parameters: Too many: 65: must have at most 64 items",
        ),
        ({"spec": {"parent": {"namespace": "a", "name": "b"}}}, "spec.parent.uid: Required value"),
        ({"spec": {"parent": PARENT | {"namespace": "A"}}}, "spec.parent.namespace: Invalid value"),
        ({"spec": {"delegation": {}}}, "spec.delegation.to: Required value"),
        ({"spec": {"delegation": {"to": []}}}, "spec.delegation.to in body should have at least 1 items"),
        ({"spec": {"delegation": {"to": [WORKER, WORKER]}}}, "spec.delegation.to[1]: Duplicate value"),
        ({"spec": {"delegation": {"to": [WORKER], "maxDepth": 5}}}, "spec.delegation.maxDepth: Invalid value"),
        ({"spec": {"delegation": {"to": [WORKER], "maxDepth": 0}}}, "spec.delegation.maxDepth: Invalid value"),
        (
            {"spec": {"delegation": {"to": [WORKER], "access": [{}]}}},
            "spec.delegation.access[0]: Invalid value: access has exactly one member: kubernetes",
        ),
        (
            {"spec": {"delegation": {"to": [WORKER], "access": [access({})["spec"]["access"]]}}},
            f"spec.delegation.access[0].kubernetes.scopes[0]: Invalid value: {ONE_OF_SCOPE}",
        ),
        ({"spec": {"outcome": "Done"}}, 'spec.outcome: Unsupported value: "Done"'),
        ({"spec": {"requester": {"via": "Window"}}}, 'spec.requester.via: Unsupported value: "Window"'),
    ],
)
async def test_a_request_is_refused(api: Api, world: World, change: Json, message: str) -> None:
    status, answer = await api.post(
        f"{REQUESTS}?dryRun=All", merged(world.request("asker"), change), by=world.tokens["asker"]
    )
    assert status == 422, answer
    assert message in answer["message"]


async def test_a_request_has_the_defaults_that_its_author_left_out(api: Api, world: World) -> None:
    body = merged(world.request("asker"), {"spec": {"requester": {"via": None}}})
    made = await api.made(REQUESTS, body, by=world.tokens["asker"])
    assert made["spec"] == merged(body["spec"], {"delivery": {"secret": {}}, "requester": {"via": "API"}})


async def test_unknown_members_are_refused_by_clients_that_ask_for_it(api: Api, world: World) -> None:
    body = merged(world.request("asker"), {"spec": {"access": {"postgres": {}}}})
    status, answer = await api.post(f"{REQUESTS}?dryRun=All&fieldValidation=Strict", body, by=world.tokens["asker"])
    assert status == 400
    assert 'unknown field "spec.access.postgres"' in answer["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": None}, "spec: Required value"),
        *(
            (change, "spec does not change, but for outcome, which may appear once: create another AccessRequest")
            for change in (
                {"spec": {"task": {"objective": "Delete checkout"}}},
                {"spec": {"task": {"parameters": {"deployment": "payments"}}}},
                {"spec": {"task": {"parameters": None}}},
                access({"namespace": "payments", "rules": [RULE]}),
                {"spec": {"ttl": "10m"}},
                {"spec": {"ttl": None}},
                {"spec": {"delivery": {"secret": {"name": "valetkey-other"}}}},
                {"spec": {"delivery": {"secret": None, "sealed": SEALED}}},
                {"spec": {"subject": {"podUID": "other"}}},
                {"spec": {"requester": {"nodeName": "other"}}},
                {"spec": {"outcome": "Succeeded", "ttl": "10m"}},
                {"spec": {"parent": PARENT}},
                {"spec": {"delegation": {"to": [WORKER | {"serviceAccount": "other"}]}}},
                {"spec": {"delegation": None}},
                {"spec": {"delegation": {"maxDepth": 2}}},
            )
        ),
    ],
)
async def test_the_spec_of_a_request_does_not_change(api: Api, world: World, change: Json, message: str) -> None:
    asked = {"ttl": "5m", "task": {"parameters": {"deployment": "checkout"}}, "delegation": {"to": [WORKER]}}
    body = world.request("asker", spec=asked)
    made = await api.made(REQUESTS, body, by=world.tokens["asker"])
    status, answer = await api.patch(f"{REQUESTS}/{made['metadata']['name']}", change, by=world.tokens["asker"])
    assert status == 422, answer
    assert message in answer["message"]


async def test_a_ttl_cannot_be_added_later(api: Api, world: World) -> None:
    made = await api.made(REQUESTS, world.request("asker"), by=world.tokens["asker"])
    status, answer = await api.patch(
        f"{REQUESTS}/{made['metadata']['name']}", {"spec": {"ttl": "10m"}}, by=world.tokens["asker"]
    )
    assert status == 422, answer


async def test_an_outcome_is_said_once(api: Api, world: World) -> None:
    made = await api.made(REQUESTS, world.request("asker"), by=world.tokens["asker"])
    path = f"{REQUESTS}/{made['metadata']['name']}"
    for outcome in ("Succeeded", "Succeeded"):
        status, answer = await api.patch(path, {"spec": {"outcome": outcome}}, by=world.tokens["asker"])
        assert status == 200, answer
    for other in ("Failed", None):
        status, answer = await api.patch(path, {"spec": {"outcome": other}}, by=world.tokens["asker"])
        assert status == 422
        assert "outcome has been said and does not change" in answer["message"]


async def test_requests_are_selected_by_pod_and_by_task(api: Api, world: World) -> None:
    made = await api.made(REQUESTS, world.request("asker"), by=world.tokens["asker"])
    uid = world.pods["asker"]["metadata"]["uid"]
    for query, found in (
        (f"spec.subject.podUID={uid}", True),
        ("spec.subject.podUID=other", False),
        ("spec.task.id=run-8841", True),
    ):
        status, answer = await api.get(f"{REQUESTS}?fieldSelector={query}")
        assert status == 200, answer
        assert (made["metadata"]["name"] in [i["metadata"]["name"] for i in answer["items"]]) is found


async def test_the_spec_of_a_grant_does_not_change(api: Api, world: World) -> None:
    operator, body = world.tokens["operator"], grant(unique("fix"), "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b10")
    made = await api.made(GRANTS, body, by=operator)
    path = f"{GRANTS}/{made['metadata']['name']}"
    for change, message in (
        ({"spec": {"order": {"line": "more"}}}, "spec does not change"),
        ({"spec": {"delivery": {"secret": {"name": "valetkey-other"}}}}, "spec does not change"),
        ({"spec": None}, "spec: Required value"),
    ):
        status, answer = await api.patch(path, change, by=operator)
        assert status == 422, answer
        assert message in answer["message"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        subjects({"name": "everybody", "any": True}),
        subjects({"name": "a", "namespaceSelector": {}}),
        subjects(*({"name": str(n), "namespace": "agents"} for n in range(32))),
        selector(key="tier", operator="In", values=["a"]),
        selector(key="tier", operator="Exists"),
        ceiling(scopes=[{"cluster": True, "rules": [RULE]}]),
        ceiling(scopes=[{"namespaces": ["$namespace"], "rules": [RULE], "clusterRoles": ["log-reader"]}]),
        ceiling(
            scopes=[{"namespaces": ["shop"], "rules": [RULE | {"resourceNames": ["$pod"]}]}], risks=["Watch", "Exec"]
        ),
        {"spec": {"ttl": {"default": "5m", "max": "15m"}}},
        {"spec": {"ttl": {"max": "15m"}}},
        {"spec": {"backstop": "Job"}},
        {"spec": {"breakGlass": {}}},
        {"spec": {"breakGlass": {"reviewWithin": "168h", "maxTTL": "1h"}}},
        {"spec": {"delegation": {"to": [WORKER]}}},
        {"spec": {"delegation": {"to": [WORKER], "maxDepth": 4, "required": True}}},
        {"spec": {"delegation": {"required": True}}},
        {"spec": {"approval": {}}},
        {"spec": {"approval": {"when": "true", "approvals": 10, "timeout": "24h", "covers": "Task"}}},
        {"spec": {"approval": {"covers": "Request"}}},
        {"spec": {"purposes": [{"name": "a", "parameters": {"n": {"type": "integer", "minimum": 1, "maximum": 3}}}]}},
        {"spec": {"purposes": [{"name": "a", "parameters": {"s": {"type": "array", "enum": ["x"], "maxLength": 3}}}]}},
    ],
)
async def test_a_policy_is_accepted(api: Api, installed: Json, change: Json) -> None:
    assert installed
    status, answer = await api.post(f"{POLICIES}?dryRun=All", policy(unique("p"), **change))
    assert status == 201, answer


async def test_a_deny_may_name_nothing(api: Api, installed: Json) -> None:
    assert installed
    status, answer = await api.post(f"{POLICIES}?dryRun=All", policy(unique("p"), "Deny"))
    assert status == 201, answer


async def test_a_deny_asks_nobody(api: Api, installed: Json) -> None:
    assert installed
    body = policy(unique("p"), "Deny", spec={"approval": {}})
    status, answer = await api.post(f"{POLICIES}?dryRun=All", body)
    assert status == 422, answer
    assert "approval belongs to an Allow" in answer["message"]


async def test_a_policy_has_the_defaults_that_its_author_left_out(api: Api, installed: Json) -> None:
    assert installed
    _, answer = await api.post(f"{POLICIES}?dryRun=All", policy(unique("p"), "Deny"))
    assert answer["spec"] == {"effect": "Deny"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"effect": None}}, "spec.effect: Required value"),
        ({"spec": {"effect": "Maybe"}}, 'spec.effect: Unsupported value: "Maybe"'),
        ({"spec": {"subjects": None}}, "spec: Invalid value: an Allow names its subjects; everybody is {any: true}"),
        ({"spec": {"purposes": None}}, "spec: Invalid value: an Allow names its purposes"),
        ({"spec": {"access": None}}, "spec: Invalid value: an Allow names the access that it gives at most"),
        ({"spec": {"access": []}}, "spec.access: Invalid value: 0: spec.access in body should have at least 1 items"),
        (
            subjects({"name": "a"}),
            f"spec.subjects[0]: Invalid value: {NEEDS_NAMESPACE}",
        ),
        (
            subjects({"name": "a", "serviceAccount": "fixer"}),
            f"spec.subjects[0]: Invalid value: {NEEDS_NAMESPACE}",
        ),
        (
            subjects({"name": "a", "any": True, "namespace": "agents"}),
            "spec.subjects[0]: Invalid value: any stands alone",
        ),
        (subjects({"name": "a", "any": True, "podSelector": {}}), "spec.subjects[0]: Invalid value: any stands alone"),
        (subjects({"name": "a", "any": False}), "spec.subjects[0].any: Unsupported value: false"),
        (
            subjects({"name": "a", "namespace": "agents", "namespaceSelector": {}}),
            "spec.subjects[0]: Invalid value: a subject has a namespace or a namespaceSelector, one of the two",
        ),
        (
            subjects({"name": "a", "namespace": "agents"}, {"name": "a", "namespace": "other"}),
            'spec.subjects[1]: Duplicate value: {"name":"a"}',
        ),
        *(
            (
                selector(**requirement),
                "Invalid value: In and NotIn need values, Exists and DoesNotExist have none",
            )
            for requirement in (
                {"key": "tier", "operator": "In"},
                {"key": "tier", "operator": "NotIn", "values": []},
                {"key": "tier", "operator": "Exists", "values": ["a"]},
            )
        ),
        (selector(key="tier", operator="Like", values=["a"]), 'operator: Unsupported value: "Like"'),
        (
            {"spec": {"access": [{"name": "only"}]}},
            "spec.access[0]: Invalid value: an access entry has exactly one member: kubernetes",
        ),
        (
            ceiling(scopes=[{"rules": [RULE]}]),
            "spec.access[0].kubernetes.scopes[0]: Invalid value: a scope has namespaces or cluster, one of the two",
        ),
        (
            ceiling(scopes=[{"namespaces": ["shop"], "cluster": True, "rules": [RULE]}]),
            "spec.access[0].kubernetes.scopes[0]: Invalid value: a scope has namespaces or cluster, one of the two",
        ),
        (
            ceiling(scopes=[{"namespaces": ["shop"]}]),
            "spec.access[0].kubernetes.scopes[0]: Invalid value: a scope has rules, clusterRoles or both",
        ),
        (
            ceiling(scopes=[{"namespaces": ["shop"], "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}]),
            "spec.access[0].kubernetes.scopes[0]: Invalid value: nonResourceURLs exist in cluster scope only",
        ),
        (
            ceiling(scopes=[{"cluster": True, "rules": [{"resources": ["pods"], "verbs": ["get"]}]}]),
            'rules[0]: Invalid value: resources need apiGroups (the core group is "")',
        ),
        (ceiling(scopes=[{"cluster": True, "rules": [RULE]}], risks=["All"]), 'risks[0]: Unsupported value: "All"'),
        (
            ceiling(scopes=[{"cluster": True, "rules": [RULE]}], risks=["Exec", "Exec"]),
            'risks[1]: Duplicate value: "Exec"',
        ),
        ({"spec": {"purposes": [{"name": "a"}, {"name": "a"}]}}, 'spec.purposes[1]: Duplicate value: {"name":"a"}'),
        (
            {"spec": {"validations": [{"name": "a", "expression": "true", "message": "no"}] * 2}},
            'spec.validations[1]: Duplicate value: {"name":"a"}',
        ),
        (
            {"spec": {"purposes": [{"name": "a", "parameters": {"n": {"type": "integer", "pattern": "x"}}}]}},
            "Invalid value: pattern, enum and maxLength are for strings and arrays of strings",
        ),
        (
            {"spec": {"purposes": [{"name": "a", "parameters": {"n": {"type": "string", "minimum": 1}}}]}},
            "Invalid value: minimum and maximum are for numbers",
        ),
        ({"spec": {"ttl": {"max": "0s"}}}, 'spec.ttl.max: Invalid value: "0s": at least 1s'),
        ({"spec": {"ttl": {"default": "15m", "max": "5m"}}}, "spec.ttl: Invalid value: max is at least default"),
        (
            {"spec": {"delivery": []}},
            "spec.delivery: Invalid value: 0: spec.delivery in body should have at least 1 items",
        ),
        ({"spec": {"limits": {"active": 0}}}, "spec.limits.active: Invalid value"),
        ({"spec": {"limits": {"perHour": 0}}}, "spec.limits.perHour: Invalid value"),
        ({"spec": {"limits": {"perHour": 1001}}}, "spec.limits.perHour: Invalid value"),
        (
            {"spec": {"limits": {"cooldown": "0s"}}},
            'cooldown: Invalid value: "0s": at least 1s and at most 1h',
        ),
        ({"spec": {"limits": {"cooldown": "1h1s"}}}, 'cooldown: Invalid value: "1h1s": at least 1s and at most 1h'),
        ({"spec": {"effect": "Deny", "limits": {"perHour": 1}}}, "spec: Invalid value: limits belong to an Allow"),
        ({"spec": {"approval": {"timeout": "24h1s"}}}, 'spec.approval.timeout: Invalid value: "24h1s": at most 24h'),
        ({"spec": {"approval": {"timeout": "0s"}}}, 'spec.approval.timeout: Invalid value: "0s": at least 1s'),
        ({"spec": {"approval": {"approvals": 0}}}, "spec.approval.approvals: Invalid value"),
        ({"spec": {"approval": {"approvals": 11}}}, "spec.approval.approvals: Invalid value"),
        ({"spec": {"approval": {"covers": "Pod"}}}, 'spec.approval.covers: Unsupported value: "Pod"'),
        ({"spec": {"breakGlass": {"maxTTL": "61m"}}}, 'spec.breakGlass.maxTTL: Invalid value: "61m": at most 1h'),
        ({"spec": {"breakGlass": {"reviewWithin": "169h"}}}, 'reviewWithin: Invalid value: "169h": at most 168h'),
        ({"spec": {"breakGlass": {"reviewWithin": "0s"}}}, 'reviewWithin: Invalid value: "0s": at least 1s'),
        (
            {"spec": {"breakGlass": {}, "approval": {}}},
            "spec: Invalid value: breakGlass is for when nobody can be asked",
        ),
        ({"spec": {"effect": "Deny", "breakGlass": {}}}, "spec: Invalid value: breakGlass belongs to an Allow"),
        ({"spec": {"access": [{"name": "a", "handedOn": "Also"}]}}, 'handedOn: Unsupported value: "Also"'),
        ({"spec": {"delegation": {}}}, "spec.delegation: Invalid value: delegation says to whom (to), that it is"),
        (
            {"spec": {"delegation": {"required": True, "maxDepth": 1}}},
            "spec.delegation: Invalid value: maxDepth says how",
        ),
        (
            {"spec": {"effect": "Deny", "delegation": {"required": True}}},
            "spec: Invalid value: delegation belongs to an",
        ),
        ({"spec": {"backstop": "Pod"}}, 'spec.backstop: Unsupported value: "Pod"'),
    ],
)
async def test_a_policy_is_refused(api: Api, installed: Json, change: Json, message: str) -> None:
    assert installed
    status, answer = await api.post(f"{POLICIES}?dryRun=All", policy(unique("p"), **change))
    assert status == 422, answer
    assert message in answer["message"]


async def test_the_effect_of_a_policy_does_not_change(api: Api, installed: Json) -> None:
    assert installed
    made = await api.made(POLICIES, policy(unique("p"), "Deny"))
    path = f"{POLICIES}/{made['metadata']['name']}"
    status, answer = await api.patch(path, {"spec": policy("x")["spec"]})
    assert status == 422
    assert (
        'spec.effect: Invalid value: "Allow": effect does not change: create another AgentPolicy' in answer["message"]
    )
    status, answer = await api.patch(path, {"spec": None})
    assert status == 422
    assert "spec: Required value" in answer["message"]
    await api.delete(path)


async def test_columns_say_who_asked_for_what_and_how_it_stands(api: Api, world: World) -> None:
    body = world.request("asker", spec={"task": {"id": "columns"}})
    made = await api.made(REQUESTS, body, by=world.tokens["asker"])
    name = made["metadata"]["name"]
    condition = {"message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status, answer = await api.patch(
        f"{REQUESTS}/{name}/status",
        {
            "status": {
                "agent": "agents/fixer (asker)",
                "access": "shop: get,patch deployments.apps",
                "expiresAt": "2026-01-01T00:05:00.000000Z",
                "conditions": [
                    condition | {"type": "Ready", "status": "False", "reason": "AccessEnded"},
                    condition | {"type": "Finished", "status": "True", "reason": "TTLReached"},
                ],
            }
        },
        by=world.tokens["operator"],
    )
    assert status == 200, answer
    assert await _row(api, f"{REQUESTS}/{name}") == {
        "Name": name,
        "Agent": "agents/fixer (asker)",
        "Purpose": "remediation",
        "Access": "shop: get,patch deployments.apps",
        "Ready": "False",
        "Reason": "TTLReached",
        "Expires": "2026-01-01T00:05:00.000000Z",
    }


async def test_columns_of_grants_and_policies(api: Api, world: World) -> None:
    body = grant(unique("fix"), "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b11")
    made = await api.made(GRANTS, body, by=world.tokens["operator"])
    row = await _row(api, f"{GRANTS}/{made['metadata']['name']}")
    assert list(row) == ["Name", "Agent", "Purpose", "Access", "Issued", "Ending", "Expires"]
    assert (row["Agent"], row["Purpose"]) == ("asker", "remediation")
    deny = await api.made(POLICIES, policy(unique("p"), "Deny"))
    path = f"{POLICIES}/{deny['metadata']['name']}"
    row = await _row(api, path)
    assert list(row) == ["Name", "Effect", "Mode", "Until", "Ready", "Reason"]
    assert row["Effect"] == "Deny"
    await api.delete(path)


async def _row(api: Api, path: str) -> Json:
    status, table = await api.call("GET", path, accept="application/json;as=Table;g=meta.k8s.io;v=v1")
    assert status == 200, table
    cells = dict(zip([c["name"] for c in table["columnDefinitions"]], table["rows"][0]["cells"], strict=True))
    assert cells.pop("Age")
    return cells


async def test_the_kinds_have_short_names_and_a_category(api: Api, installed: Json) -> None:
    assert installed
    _, answer = await api.get("/apis/valetkey.dev/v1alpha1")
    kinds = {r["name"]: r for r in answer["resources"]}
    assert {n: (k.get("shortNames"), k.get("categories")) for n, k in kinds.items() if "/" not in n} == {
        "accessrequests": (["ar"], ["valetkey"]),
        "taskgrants": (["tg"], ["valetkey"]),
        "agentpolicies": (["ap"], ["valetkey"]),
        "accessapprovals": (["aa"], ["valetkey"]),
        "leaders": (None, None),
        "ledgers": (None, None),
    }
    assert {n for n in kinds if "/" in n} == {
        "accessrequests/status",
        "taskgrants/status",
        "agentpolicies/status",
    }


def fields(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every field of a schema, and every item of its lists and maps, by path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield f"{path}[]", schema[key]
            yield from fields(schema[key], f"{path}[]")


def written() -> list[tuple[str, Json]]:
    """The schema of every kind."""
    crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    return [(c["spec"]["names"]["kind"], c["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for c in crds]


def test_every_field_is_described() -> None:
    missing = [
        kind + path
        for kind, schema in written()
        for path, field in fields(schema)
        if not path.endswith("[]") and path != ".metadata" and not field.get("description")
    ]
    assert not missing


def test_everything_is_bounded() -> None:
    unbounded = [
        kind + path
        for kind, schema in written()
        for path, field in fields(schema)
        if path not in (".metadata", ".apiVersion", ".kind")
        and (
            (field["type"] == "string" and not {"maxLength", "enum", "format"} & set(field))
            or (field["type"] == "array" and "maxItems" not in field)
            or (field["type"] == "object" and "properties" not in field and "maxProperties" not in field)
        )
    ]
    assert not unbounded


def test_every_rule_has_a_message() -> None:
    for kind, schema in written():
        for path, field in [("", schema), *fields(schema)]:
            for rule in field.get("x-kubernetes-validations", ()):
                assert rule.get("message"), kind + path


def test_the_written_crds_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "valetkey.kinds", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run python -m valetkey.kinds; not current:\n{done.stderr}"


async def test_requests_need_what_admission_fills_in(api: Api, world: World) -> None:
    body = merged(unfilled(), {"spec": {"requester": {}, "subject": {}}})
    status, answer = await api.post(f"{REQUESTS}?dryRun=All", body)
    assert status == 422, answer
    assert "spec.requester.username: Required value" in answer["message"]
    assert world
