"""Guard fence: of the operator's replicas, the one that leads writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.api import OPERATOR, SYSTEM, Api, Caller, Json, unique, until
from tests.cluster.guards.attack import (
    ACCOUNTS,
    LEDGERS,
    PODS,
    SECRETS,
    TASK_GRANTS,
    TIMERS,
    accepted,
    delivered,
    ledger,
    refused,
    timer,
)
from tests.cluster.replicas import replica
from tests.cluster.world import World, grant

LEADERS = f"/apis/valetkey.dev/v1alpha1/namespaces/{SYSTEM}/leaders"
LEADER: Json = {"apiVersion": "valetkey.dev/v1alpha1", "kind": "Leader"}
UID = "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b10"


@pytest.fixture
async def leads(api: Api, world: World) -> AsyncIterator[Json]:
    """The Leader, which names the first replica."""
    assert world
    at = "2026-01-01T00:00:00.000000Z"
    spec = {"leaseDurationSeconds": 5, "acquireTime": at, "renewTime": at, "leaseTransitions": 0}
    body = LEADER | {"metadata": {"name": "valetkey"}, "spec": spec | {"holderIdentity": "valetkey-0_uid-0"}}
    yield await api.made(LEADERS, body, by=replica(0))
    await api.gone(f"{LEADERS}/valetkey")
    await allowed(api, replica(1), "the fence to be open again")


async def allowed(api: Api, caller: Caller, what: str) -> None:
    async def writes() -> bool:
        return (await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=caller))[0] == 201

    await until(writes, what, seconds=5)


async def fenced(api: Api, caller: Caller) -> None:
    async def refused() -> bool:
        return (await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=caller))[0] == 403

    await until(refused, "the fence to be closed", seconds=5)


def account() -> Json:
    return {"metadata": {"name": f"valetkey-{UID}", "labels": {"valetkey.dev/request": UID}}}


async def test_whoever_does_not_lead_writes_nothing_of_a_grant(api: Api, world: World, leads: Json) -> None:
    assert leads
    await fenced(api, replica(1))
    pod, secret = world.pods["asker"]["metadata"]["name"], delivered(UID, unique("valetkey-f"))
    for caller in (replica(1), Caller(user=OPERATOR, groups=("system:masters",)), await api_token(api)):
        for answer in (
            await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=caller),
            await api.post(f"{TIMERS}?dryRun=All", timer(UID), by=caller),
            await api.post(f"{TASK_GRANTS}?dryRun=All", grant(unique("f"), UID), by=caller),
            await api.post(f"{SECRETS}?dryRun=All", secret, by=caller),
            await api.post(f"{LEDGERS}?dryRun=All", ledger(UID), by=caller),
            await api.patch(
                f"{PODS}/{pod}?dryRun=All", {"metadata": {"annotations": {"valetkey.dev/grant": "x"}}}, by=caller
            ),
        ):
            refused(answer, "fence", "and this one does not")
    accepted(await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=replica(0)))


async def api_token(api: Api) -> Caller:
    """The operator's account with a token of no pod."""
    return await api.token(SYSTEM, "valetkey")


async def test_who_may_write_changes_with_the_leader(api: Api, leads: Json) -> None:
    await fenced(api, replica(1))
    change = {"spec": {"holderIdentity": "valetkey-1_uid-1"}}
    accepted(await api.patch(f"{LEADERS}/valetkey", change, by=replica(0)))
    await allowed(api, replica(1), "the next leader to be let in")
    refused(await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=replica(0)), "fence")
    accepted(await api.patch(f"{LEADERS}/valetkey", {"spec": {"holderIdentity": ""}}, by=replica(0)))
    await fenced(api, replica(1))
    assert leads


async def test_whoever_leads_leaves_room_for_others_to_follow(api: Api, leads: Json) -> None:
    change = {"spec": {"leaseTransitions": 2**63 - 1}}
    status, answer = await api.patch(f"{LEADERS}/valetkey", change, by=replica(0))
    assert status == 422, answer
    assert "less than or equal to 2147483647" in answer["message"]
    assert leads


async def test_a_fence_that_was_taken_down_and_put_up_again_knows_who_leads_now(api: Api, leads: Json) -> None:
    """An uninstalled and installed chart; of a built-in kind the API server would go by what it read before."""
    await fenced(api, replica(1))
    admission = "/apis/admissionregistration.k8s.io/v1"
    paths = [f"{admission}/{kind}" for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")]
    guards = [(await api.get(f"{path}/fence.valetkey.dev"))[1] for path in paths]
    for path in reversed(paths):
        await api.gone(f"{path}/fence.valetkey.dev")
    await allowed(api, replica(1), "the fence to be down")
    accepted(await api.patch(f"{LEADERS}/valetkey", {"spec": {"holderIdentity": "valetkey-1_uid-1"}}, by=replica(1)))
    for path, guard in zip(paths, guards, strict=True):
        metadata = {key: guard["metadata"][key] for key in ("name", "labels", "annotations")}
        await api.made(
            path,
            {"apiVersion": guard["apiVersion"], "kind": guard["kind"], "metadata": metadata, "spec": guard["spec"]},
        )
    await fenced(api, replica(0))
    await allowed(api, replica(1), "the leader of today to be let in")
    assert leads


async def test_a_pod_of_the_leaders_name_is_not_the_leader(api: Api, leads: Json) -> None:
    assert leads
    await fenced(api, replica(1))
    key = "authentication.kubernetes.io/pod-"
    for extra in (
        {f"{key}name": ("valetkey-0",), f"{key}uid": ("uid-1",)},
        {f"{key}name": ("valetkey-0",)},
        {f"{key}name": ("valetkey-0", "uid-0")},
        {f"{key}name": ("valetkey-0_uid-0",)},
    ):
        caller = Caller(user=OPERATOR, groups=("system:masters",), extra=extra)
        refused(await api.post(f"{ACCOUNTS}?dryRun=All", account(), by=caller), "fence")


async def test_the_fence_is_nobody_elses_business(api: Api, world: World, leads: Json) -> None:
    assert leads
    await fenced(api, replica(1))
    name = unique("plain")
    accepted(await api.post(SECRETS, {"metadata": {"name": name}, "stringData": {"a": "b"}}, by=world.editor))
    accepted(await api.delete(f"{SECRETS}/{name}", by=world.editor))
    accepted(await api.patch(f"{PODS}/{world.pods['twin']['metadata']['name']}", {"metadata": {"labels": {"a": "b"}}}))


async def test_the_operator_writes_its_own_leader_and_no_other(api: Api, world: World, leads: Json) -> None:
    operator = world.tokens["operator"]
    accepted(await api.put(f"{LEADERS}/valetkey", leads, by=operator))
    assert (await api.delete(f"{LEADERS}/valetkey", by=operator))[0] == 403
    assert (await api.get(LEADERS, by=operator))[0] == 403
    body = LEADER | {"metadata": {"name": unique("other")}, "spec": leads["spec"]}
    refused(await api.post(LEADERS, body, by=replica(0)), "operator-leash")
    refused(await api.post(LEADERS, body), "operator-writes", "leaders are written by the valetkey operator alone")
