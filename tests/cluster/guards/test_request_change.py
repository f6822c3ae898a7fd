"""Guard request-attest: a request does not change, but for its outcome."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.api import (
    ADMIN,
    SYSTEM,
    Api,
    Caller,
    Json,
    account,
    merged,
    until,
)
from tests.cluster.guards.attack import (
    COLLECTOR,
    NOBODY,
    ORPHAN,
    PODS,
    REQUESTS,
    accepted,
    forbidden,
    refused,
)
from tests.cluster.world import World


async def test_the_pod_that_asked_says_the_outcome(api: Api, world: World, asked: str) -> None:
    answer = await api.patch(asked, {"spec": {"outcome": "Succeeded"}}, by=world.tokens["asker"])
    assert accepted(answer)["spec"]["outcome"] == "Succeeded"


async def test_another_token_of_the_same_pod_says_the_outcome(api: Api, world: World, asked: str) -> None:
    renewed = await api.token("agents", "fixer", world.pods["asker"])
    accepted(await api.patch(asked, {"spec": {"outcome": "Failed"}}, by=renewed))


async def test_nobody_else_says_the_outcome(api: Api, world: World, asked: str) -> None:
    outcome = {"spec": {"outcome": "Succeeded"}}
    message = "changed by the pod that made it or that it is for, and by nobody else"
    for who in ("twin", "stranger", "unbound"):
        refused(await api.patch(asked, outcome, by=world.tokens[who]), "request-attest", message)
    for caller in (ADMIN, world.insider, account("agents", "fixer"), account(SYSTEM, "other")):
        answer = await api.patch(asked, outcome, by=caller)
        if caller.user and caller.user.endswith(":other"):
            forbidden(answer)
        else:
            refused(answer, "request-attest", message)
    for caller in (world.editor, world.tokens["operator"]):
        forbidden(await api.patch(asked, outcome, by=caller))
    refused(await api.patch(asked, outcome, by=COLLECTOR), "request-attest")


CHANGES: dict[str, Json] = {
    "label": {"metadata": {"labels": {"a": "b"}}},
    "our_label": {"metadata": {"labels": {"valetkey.dev/request": NOBODY}}},
    "annotation": {"metadata": {"annotations": {"a": "b"}}},
    "finalizer": {"metadata": {"finalizers": ["a.b/c"]}},
    "orphan_finalizer": {"metadata": {"finalizers": ["orphan"]}},
    "no_owner": {"metadata": {"ownerReferences": None}},
    "outcome_and_label": {"spec": {"outcome": "Succeeded"}, "metadata": {"labels": {"a": "b"}}},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("caller", ["asker", "admin", "insider"])
async def test_nothing_else_of_a_request_changes(api: Api, world: World, asked: str, caller: str, change: str) -> None:
    by = {"asker": world.tokens["asker"], "admin": ADMIN, "insider": world.insider}[caller]
    refused(await api.patch(asked, CHANGES[change], by=by), "request-attest")


BEAT = "valetkey.dev/heartbeat"


def beat(word: str | None, **more: str) -> Json:
    """A patch that says that the agent still works."""
    return {"metadata": {"annotations": {BEAT: word, **more}}}


async def wanted(api: Api, world: World, asked: str) -> None:
    """The operator says that this request has to be kept alive."""
    status = {"status": {"heartbeat": {"within": "60s"}}}
    accepted(await api.patch(f"{asked}/status", status, by=world.tokens["operator"]))


async def test_nobody_beats_where_nobody_wants_to_hear_it(api: Api, world: World, asked: str) -> None:
    refused(
        await api.patch(asked, beat("1"), by=world.tokens["asker"]), "request-attest", "where status.heartbeat says"
    )


async def test_a_request_is_not_created_with_a_heartbeat(api: Api, world: World) -> None:
    body = world.request("asker", metadata={"annotations": {BEAT: "1"}})
    refused(await api.post(REQUESTS, body, by=world.tokens["asker"]), "request-attest", "without a heartbeat")


async def test_the_pod_that_it_is_for_says_that_it_still_works(api: Api, world: World, asked: str) -> None:
    await wanted(api, world, asked)
    for word in ("1", "2"):
        answer = await api.patch(asked, beat(word), by=world.tokens["asker"])
        assert accepted(answer)["metadata"]["annotations"] == {BEAT: word}
    accepted(await api.patch(asked, {"spec": {"outcome": "Failed"}}, by=world.tokens["asker"]))


async def test_a_heartbeat_is_short_comes_alone_and_is_not_taken_back(api: Api, world: World, asked: str) -> None:
    asker = world.tokens["asker"]
    await wanted(api, world, asked)
    accepted(await api.patch(asked, beat("x" * 64), by=asker))
    for change in (beat("x" * 65), beat("2", other="a"), beat(None), {"metadata": {"annotations": None}}):
        refused(await api.patch(asked, change, by=asker), "request-attest")


async def test_nobody_else_says_that_it_still_works(api: Api, world: World, asked: str) -> None:
    await wanted(api, world, asked)
    accepted(await api.patch(asked, beat("1"), by=world.tokens["asker"]))
    for who in ("twin", "stranger", "unbound"):
        refused(await api.patch(asked, beat("2"), by=world.tokens[who]), "request-attest")
    for caller in (ADMIN, world.insider, COLLECTOR):
        refused(await api.patch(asked, beat("2"), by=caller), "request-attest")


async def test_other_ways_to_write_are_the_same(api: Api, world: World, asked: str) -> None:
    asker = world.tokens["asker"]
    json_patch: Any = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    refused(await api.patch(asked, json_patch, by=asker, content="application/json-patch+json"), "request-attest")
    applied = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"labels": {"a": "b"}}}
    refused(
        await api.patch(
            f"{asked}?fieldManager=t&force=true", applied, by=asker, content="application/apply-patch+yaml"
        ),
        "request-attest",
    )
    _, live = await api.get(asked)
    refused(await api.put(asked, merged(live, CHANGES["label"])), "request-attest")
    forbidden(await api.put(asked, merged(live, CHANGES["label"]), by=asker))


async def test_a_controller_changes_owners_and_finalizers_and_nothing_else(api: Api, world: World, asked: str) -> None:
    for change in ("label", "annotation"):
        refused(await api.patch(asked, CHANGES[change], by=COLLECTOR), "request-attest")
    accepted(await api.patch(asked, CHANGES["finalizer"], by=COLLECTOR))
    accepted(await api.patch(asked, {"metadata": {"finalizers": None}}, by=COLLECTOR))
    accepted(await api.patch(asked, CHANGES["no_owner"], by=COLLECTOR))


async def test_only_the_named_controllers_are_excepted(api: Api, world: World, asked: str) -> None:
    for name in ("generic-garbage-collector2", "replicaset-controller", "deployment-controller"):
        by = Caller(user=account("kube-system", name).user, groups=("system:masters",))
        refused(await api.patch(asked, CHANGES["finalizer"], by=by), "request-attest")
    elsewhere = Caller(user=account("agents", "generic-garbage-collector").user, groups=("system:masters",))
    refused(await api.patch(asked, CHANGES["finalizer"], by=elsewhere), "request-attest")


async def test_a_request_is_not_deleted_with_its_dependents_orphaned(api: Api, world: World, asked: str) -> None:
    message = "orphan propagation"
    refused(await api.delete(asked, ORPHAN), "request-attest", message)
    refused(await api.delete(f"{asked}?propagationPolicy=Orphan"), "request-attest", message)
    refused(
        await api.delete(asked, {"apiVersion": "v1", "kind": "DeleteOptions", "orphanDependents": True}),
        "request-attest",
        message,
    )
    refused(await api.delete(f"{REQUESTS}?propagationPolicy=Orphan"), "request-attest", message)
    accepted(await api.delete(asked))


async def test_a_request_goes_with_its_pod(api: Api, world: World) -> None:
    short = await world.pod("agents", "short-lived")
    body = world.request("asker")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "short-lived", "uid": short["metadata"]["uid"]}
    token = await api.token("agents", "fixer", short)
    world.pods["short-lived"], world.tokens["short-lived"] = short, token
    made = await api.made(REQUESTS, world.request("short-lived"), by=token)
    assert made["metadata"]["ownerReferences"] == [owner] != body["metadata"]["ownerReferences"]
    await api.delete(f"{PODS}/short-lived", {"gracePeriodSeconds": 0})

    async def gone() -> bool:
        return (await api.get(f"{REQUESTS}/{made['metadata']['name']}"))[0] == 404

    await until(gone, "the request to be collected")


async def test_foreground_deletion_ends(api: Api, world: World, asked: str) -> None:
    accepted(await api.delete(f"{asked}?propagationPolicy=Foreground"))

    async def gone() -> bool:
        return (await api.get(asked))[0] == 404

    await until(gone, "the request to be collected")
