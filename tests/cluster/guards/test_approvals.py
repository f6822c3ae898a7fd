"""Guard approvals: who speaks is who was authenticated, and may approve for that policy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.api import GRANTS, Api, Caller, Json, merged, unique
from tests.cluster.guards.attack import COLLECTOR, NOBODY, RBAC, accepted, forbidden, refused
from tests.cluster.world import TEST_LABEL, World

APPROVALS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessapprovals"
ANN = Caller(user="ann", groups=("team-a", "team-b"), extra={"authentication.kubernetes.io/credential-id": ("X509=1",)})
NEEDS_APPROVE = "need the verb approve on agentpolicies.valetkey.dev/"


@pytest.fixture(scope="module")
async def people(api: Api, world: World) -> dict[str, Caller]:
    """Ann may approve for one policy, a team for another; all of them may create approvals."""
    rule = {"apiGroups": ["valetkey.dev"], "resources": ["agentpolicies"], "verbs": ["approve"]}
    for name, policy in (("test-approve-restart", "restart"), ("test-approve-deploy", "deploy")):
        await api.ensured(
            f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": [rule | {"resourceNames": [policy]}]}
        )
    subjects = {"ann": {"kind": "User", "name": "ann"}, "team": {"kind": "Group", "name": "team"}}
    for name, role, who in (
        ("test-ann-restart", "test-approve-restart", "ann"),
        ("test-team-deploy", "test-approve-deploy", "team"),
    ):
        await api.ensured(
            f"{RBAC}/clusterrolebindings",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subjects[who] | {"apiGroup": "rbac.authorization.k8s.io"}],
            },
        )
    speakers = [
        *({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"} for name in ("ann", "bob", "kim")),
        {"kind": "ServiceAccount", "name": "valetkey-x", "namespace": GRANTS},
    ]
    await api.ensured(
        f"{RBAC}/namespaces/agents/rolebindings",
        {
            "metadata": {"name": "test-speakers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valetkey-approver"},
            "subjects": speakers,
        },
    )
    return {"ann": ANN, "bob": Caller(user="bob"), "kim": Caller(user="kim", groups=("team",))}


def approval(by: Caller, **change: Any) -> Json:
    """An approval that its client filled in."""
    extra = by.extra.get("authentication.kubernetes.io/credential-id", ())
    groups = [*by.groups, "system:authenticated"]
    body = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AccessApproval",
        "metadata": {
            "name": unique("yes"),
            "labels": {TEST_LABEL: "true"},
            "ownerReferences": [
                {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "name": "fix-1", "uid": NOBODY}
            ],
        },
        "spec": {
            "request": {"name": "fix-1", "uid": NOBODY},
            "policy": "restart",
            "verdict": "Approve",
            "approver": {"username": by.user, "groups": groups} | ({"credentialID": extra[0]} if extra else {}),
        },
    }
    return merged(body, change)


async def send(api: Api, by: Caller, **change: Any) -> tuple[int, Json]:
    return await api.post(f"{APPROVALS}?dryRun=All", approval(by, **change), by=by)


async def test_who_may_approve_for_a_policy_speaks_on_its_requests(api: Api, people: dict[str, Caller]) -> None:
    accepted(await send(api, people["ann"]))
    accepted(await send(api, people["kim"], spec={"policy": "deploy", "verdict": "Deny", "reason": "not today"}))


TASK: Json = {"covers": "Task", "until": "2030-01-01T00:00:00Z", "policyGeneration": 1}


async def test_a_word_may_cover_a_task_until_some_time(api: Api, people: dict[str, Caller]) -> None:
    accepted(await send(api, people["ann"], spec=TASK))
    accepted(await send(api, people["ann"], spec={"covers": "Request"}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (TASK | {"until": None}, "until belongs to covers: Task, which needs it"),
        (TASK | {"policyGeneration": None}, "policyGeneration belongs to covers: Task, which needs it"),
        (TASK | {"policyGeneration": 0}, "spec.policyGeneration: Invalid value"),
        (TASK | {"covers": None}, "until belongs to covers: Task"),
        (TASK | {"covers": "Request"}, "policyGeneration belongs to covers: Task"),
        (TASK | {"verdict": "Deny", "reason": "no"}, "covers: Task belongs to an Approve"),
        (TASK | {"covers": "Pod"}, 'spec.covers: Unsupported value: "Pod"'),
        (TASK | {"until": "soon"}, "spec.until: Invalid value"),
    ],
)
async def test_what_it_covers_makes_sense(api: Api, people: dict[str, Caller], change: Json, says: str) -> None:
    status, answer = await send(api, people["ann"], spec=change)
    assert status == 422, answer
    assert says in answer["message"]


async def test_who_may_not_approve_for_a_policy_does_not_speak_on_its_requests(
    api: Api, people: dict[str, Caller]
) -> None:
    refused(await send(api, people["bob"]), "approvals", f"{NEEDS_APPROVE}restart")
    refused(await send(api, people["ann"], spec={"policy": "deploy"}), "approvals", f"{NEEDS_APPROVE}deploy")
    refused(await send(api, people["bob"], spec={"verdict": "Deny", "reason": "no"}), "approvals", NEEDS_APPROVE)


@pytest.mark.parametrize(
    "change",
    [
        {"username": "bob"},
        {"groups": ["team-a", "system:authenticated", "team"]},
        {"groups": []},
        {"credentialID": "X509=2"},
        {"credentialID": None},
    ],
    ids=["another's name", "a group more", "no groups", "another's credential", "no credential"],
)
async def test_nobody_speaks_as_somebody_else(api: Api, people: dict[str, Caller], change: Json) -> None:
    refused(await send(api, people["ann"], spec={"approver": change}), "approvals", "names the caller")


async def test_what_an_agent_was_granted_approves_nothing(api: Api, people: dict[str, Caller]) -> None:
    account = f"system:serviceaccount:{GRANTS}:valetkey-x"
    by = Caller(user=account, groups=("system:masters",))
    refused(await send(api, by), "approvals", "approves nothing")


async def test_agents_and_editors_do_not_speak(api: Api, world: World, people: dict[str, Caller]) -> None:
    for by in (world.tokens["asker"], world.editor, world.insider, world.tokens["operator"]):
        body = approval(Caller(user="x"))
        forbidden(await api.post(f"{APPROVALS}?dryRun=All", body, by=by))


@pytest.mark.parametrize(
    "change",
    [
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "fix-1", "uid": NOBODY}]},
        {
            "ownerReferences": [
                {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "name": "x", "uid": NOBODY}
            ]
        },
    ],
    ids=["a pod", "another request"],
)
async def test_an_approval_goes_with_its_request_and_with_nothing_else(
    api: Api, people: dict[str, Caller], change: Json
) -> None:
    refused(await send(api, people["ann"], metadata=change), "approvals", "one owner")


async def test_an_approval_has_no_finalizers(api: Api, people: dict[str, Caller]) -> None:
    refused(await send(api, people["ann"], metadata={"finalizers": ["a.b/c"]}), "approvals", "no finalizers")


async def test_an_approval_does_not_change_and_is_taken_back_by_deleting_it(
    api: Api, world: World, people: dict[str, Caller]
) -> None:
    asked = await api.made(
        "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests", world.request("asker"), by=world.tokens["asker"]
    )
    request = {"name": asked["metadata"]["name"], "uid": asked["metadata"]["uid"]}
    owner = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", **request}
    made = await api.made(
        APPROVALS,
        approval(people["ann"], spec={"request": request}, metadata={"ownerReferences": [owner]}),
        by=people["ann"],
    )
    path = f"{APPROVALS}/{made['metadata']['name']}"
    everything = Caller(user="root", groups=("system:masters",))
    status, body = await api.patch(path, {"spec": {"verdict": "Deny", "reason": "x"}}, by=everything)
    assert status == 422, body
    refused(await api.patch(path, {"metadata": {"labels": {"a": "b"}}}, by=everything), "approvals", "does not change")
    refused(await api.patch(path, {"metadata": {"finalizers": ["a.b/c"]}}, by=everything), "approvals", "not change")
    accepted(await api.patch(path, {"metadata": {"ownerReferences": None}}, by=COLLECTOR))
    accepted(await api.delete(path, by=people["ann"]))


async def test_what_a_client_left_out_is_filled_in_where_the_cluster_can(api: Api, people: dict[str, Caller]) -> None:
    bindings = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings"
    served, _ = await api.get(f"{bindings}/accessapproval-fill.valetkey.dev")
    body = approval(people["ann"])
    del body["spec"]["approver"], body["metadata"]["ownerReferences"]
    status, made = await api.post(f"{APPROVALS}?dryRun=All", body, by=people["ann"])
    if served != 200:
        assert status in (403, 422), made
        return
    assert status == 201, made
    assert made["spec"]["approver"] == approval(people["ann"])["spec"]["approver"]
    assert made["metadata"]["ownerReferences"][0]["uid"] == NOBODY


async def test_a_word_is_taken_back_by_whoever_gave_it_or_may_approve_and_by_nobody_else(
    api: Api, world: World, people: dict[str, Caller]
) -> None:
    requests = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests"
    asked = await api.made(requests, world.request("asker"), by=world.tokens["asker"])
    request = {"name": asked["metadata"]["name"], "uid": asked["metadata"]["uid"]}
    owner = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", **request}
    body = approval(people["ann"], spec={"request": request}, metadata={"ownerReferences": [owner]})
    made = await api.made(APPROVALS, body, by=people["ann"])
    path = f"{APPROVALS}/{made['metadata']['name']}"
    for name in ("bob", "kim"):
        answer = await api.delete(f"{path}?dryRun=All", by=people[name])
        refused(
            answer,
            "approvals",
            "taking back what ann said needs the verb approve on agentpolicies.valetkey.dev/restart",
        )
    accepted(await api.delete(f"{path}?dryRun=All", by=COLLECTOR))
    accepted(await api.delete(path, by=people["ann"]))


async def test_a_review_is_a_persons_and_outlives_its_request(api: Api, people: dict[str, Caller]) -> None:
    alone = {"metadata": {"ownerReferences": None}, "spec": {"verdict": "Reviewed", "reason": "all in order"}}
    made = accepted(await send(api, people["ann"], **alone))
    assert "ownerReferences" not in made["metadata"]
    owned = {"spec": {"verdict": "Reviewed", "reason": "all in order"}}
    refused(await send(api, people["ann"], **owned), "approvals", "a review has no owner")
    refused(await send(api, people["bob"], **alone), "approvals", NEEDS_APPROVE)
    # Somebody may have let a ServiceAccount approve, and speak.
    for path, body in (
        (f"{RBAC}/clusterrolebindings", BOT_APPROVES),
        (f"{RBAC}/namespaces/agents/rolebindings", merged(BOT_APPROVES, {"roleRef": {"name": "valetkey-approver"}})),
    ):
        await api.ensured(path, body)
    bot = Caller(
        user="system:serviceaccount:agents:bot",
        groups=("system:serviceaccounts", "system:serviceaccounts:agents"),
    )
    refused(await send(api, bot, **alone), "approvals", "is reviewed by a person")


BOT_APPROVES: Json = {
    "metadata": {"name": "test-bot-approves"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-approve-restart"},
    "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "agents"}],
}
