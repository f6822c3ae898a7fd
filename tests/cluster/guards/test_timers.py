"""Guards operator-timers and grants-namespace: Jobs of grants run nothing, and their end takes an account along."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.cluster.api import ADMIN, GRANTS, Api, Caller, Json, merged, until
from tests.cluster.guards.attack import (
    ACCOUNTS,
    COLLECTOR,
    NOBODY,
    ORPHAN,
    TIMERS,
    accepted,
    everything,
    forbidden,
    grant_account,
    refused,
    template,
    timer,
    workload,
)
from tests.cluster.world import World

COLLECTED = "?propagationPolicy=Background"


@pytest.fixture
async def timed(api: Api, world: World) -> AsyncIterator[str]:
    """The path of a timer."""
    made = await api.made(TIMERS, timer(str(uuid.uuid4())), by=world.tokens["operator"])
    path = f"{TIMERS}/{made['metadata']['name']}"
    yield path
    await api.delete(f"{path}{COLLECTED}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"parallelism": 1}}, "parallelism 0"),
        ({"spec": {"parallelism": None}}, "parallelism 0"),
        ({"spec": {"completions": 1}}, "no completions"),
        ({"spec": {"suspend": True}}, "no suspension"),
        ({"spec": {"managedBy": "a.b/c"}}, "that Kubernetes itself carries out"),
        ({"spec": {"activeDeadlineSeconds": None}}, "has activeDeadlineSeconds"),
        ({"spec": {"ttlSecondsAfterFinished": None}}, "ttlSecondsAfterFinished 0"),
        ({"spec": {"ttlSecondsAfterFinished": 60}}, "ttlSecondsAfterFinished 0"),
        ({"metadata": {"labels": None}}, "carries the label"),
        (
            {"metadata": {"labels": {"valetkey.dev/request": NOBODY}}},
            "carries the label valetkey.dev/request with that",
        ),
        ({"metadata": {"labels": {"a": "b"}}}, "no foreign labels"),
        ({"metadata": {"annotations": {"a": "b"}}}, "no foreign labels or annotations"),
        ({"metadata": {"name": "valetkey-x"}}, "named valetkey-<request uid>"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "no finalizers"),
        (
            {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": NOBODY}]}},
            "no owners",
        ),
    ],
)
async def test_the_operator_makes_no_job_but_a_timer(
    api: Api, world: World, loose: Caller, change: Json, message: str
) -> None:
    uid = str(uuid.uuid4())
    refused(await api.post(TIMERS, merged(timer(uid), change), by=loose), "operator-timers", message)
    accepted(await api.post(f"{TIMERS}?dryRun=All", timer(uid), by=loose))


async def test_the_operator_makes_no_timers_elsewhere(api: Api, world: World, loose: Caller) -> None:
    for namespace in ("agents", "shop", "default"):
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        refused(await api.post(path, timer(NOBODY), by=loose), "operator-timers", "in the namespace of grants alone")
        forbidden(await api.post(path, timer(NOBODY), by=world.tokens["operator"]))


async def test_the_operator_changes_no_timer_and_leaves_no_account_without_it(
    api: Api, world: World, loose: Caller, timed: str
) -> None:
    for change in (
        {"spec": {"activeDeadlineSeconds": 9999}},
        {"spec": {"suspend": True}},
        {"spec": {"parallelism": 1}},
    ):
        refused(await api.patch(timed, change, by=loose), "operator-timers", "changes none")
        forbidden(await api.patch(timed, change, by=world.tokens["operator"]))
    refused(await api.patch(f"{timed}/status", {"status": {"active": 0}}, by=loose), "operator-leash")
    for options in (ORPHAN, None):  # of a Job, to say nothing is to orphan
        refused(await api.delete(timed, options, by=loose), "operator-timers", "deleted with what it owns")
    accepted(await api.delete(f"{timed}{COLLECTED}", by=world.tokens["operator"]))


async def test_the_operator_deletes_no_job_of_others(api: Api, world: World, loose: Caller) -> None:
    where, plain = workload("jobs", template())
    name = (await api.made(where, plain, by=world.editor))["metadata"]["name"]
    refused(await api.delete(f"{where}/{name}{COLLECTED}", by=loose), "operator-timers")
    accepted(await api.delete(f"{where}/{name}{COLLECTED}", by=world.editor))


async def test_nobody_else_writes_jobs_where_grants_live(api: Api, world: World, timed: str) -> None:
    message = "the timers of the valetkey operator alone"
    for caller in (
        ADMIN,
        everything("person"),
        everything(COLLECTOR.user),
        everything("system:kube-controller-manager"),
        everything("system:serviceaccount:kube-system:job-controller"),
        everything("system:serviceaccount:kube-system:cronjob-controller"),
    ):
        refused(await api.post(TIMERS, timer(str(uuid.uuid4())), by=caller), "grants-namespace", message)
        for change in (
            {"spec": {"activeDeadlineSeconds": 9999}},
            {"spec": {"suspend": True}},
            {"spec": {"ttlSecondsAfterFinished": 9999}},
            {"metadata": {"labels": {"a": "b"}}},
        ):
            refused(await api.patch(timed, change, by=caller), "grants-namespace", message)
        for options in (ORPHAN, None):
            refused(await api.delete(timed, options, by=caller), "grants-namespace", "with the account that it owns")
    refused(await api.delete(TIMERS, by=ADMIN), "grants-namespace", "with the account that it owns")
    forbidden(await api.post(TIMERS, timer(str(uuid.uuid4())), by=world.insider))
    accepted(await api.delete(f"{timed}{COLLECTED}"))  # ending access is never in the way


async def test_other_namespaces_keep_their_jobs(api: Api, world: World) -> None:
    where, plain = workload("jobs", template())
    path = f"{where}/{(await api.made(where, plain, by=world.editor))['metadata']['name']}"
    accepted(await api.patch(path, {"metadata": {"labels": {"a": "b"}}}, by=world.editor))
    accepted(await api.delete(path, ORPHAN, by=world.editor))
    await api.delete(f"{path}{COLLECTED}")


async def test_a_timer_takes_its_account_along_and_nobody_is_needed_for_it(api: Api, world: World) -> None:
    """Kubernetes' own controllers get through the guards."""
    uid, operator = str(uuid.uuid4()), world.tokens["operator"]
    made = await api.made(TIMERS, timer(uid, seconds=2), by=operator)
    owners = [{"apiVersion": "batch/v1", "kind": "Job", "name": f"valetkey-{uid}", "uid": made["metadata"]["uid"]}]
    account = merged(grant_account(uid), {"metadata": {"ownerReferences": owners}})
    await api.made(ACCOUNTS, account, by=operator)

    async def gone() -> bool:
        paths = (f"{ACCOUNTS}/valetkey-{uid}", f"{TIMERS}/valetkey-{uid}")
        return [(await api.get(path))[0] for path in paths] == [404, 404]

    await until(gone, "the timer to end, and the account with it", seconds=40)
    assert (await api.get(f"/api/v1/namespaces/{GRANTS}/pods"))[1]["items"] == []
