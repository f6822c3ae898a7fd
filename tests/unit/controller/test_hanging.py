"""A backend that hangs keeps no revocation waiting, is given up in time, and makes no end late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cluster.api import until
from tests.properties.life import Process, a_world, pod, request
from tests.properties.world import World
from valetkey.audit import history
from valetkey.audit.record import Log
from valetkey.controller import backends
from valetkey.controller.queue import Key, Queue
from valetkey.errors import UnavailableError
from valetkey.issuers.base import Proof
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.credential import Credential
from valetkey.kinds.taskgrant import MadeObject, Order, Plan
from valetkey.reasons import Reason


@pytest.fixture
def world() -> World:
    return a_world()


def ask(world: World, name: str, ttl: str = "15m") -> Key:
    owner = world.add("Pod", pod(name))
    world.add("AccessRequest", request(name, owner, ttl, f"valetkey-{name}-a", world.now))
    return Key("shop", name)


def conditions(world: World, kind: str, name: str) -> dict[str, str]:
    (body,) = (body for body in world.of(kind) if body["metadata"]["name"] == name)
    return {entry["type"]: f"{entry['reason']}: {entry['message']}" for entry in body["status"]["conditions"]}


async def hang(self: KubernetesIssuer, order: Order, plan: Plan) -> Credential:
    await asyncio.Event().wait()
    raise AssertionError


async def test_workers_for_endings_take_up_no_issue_that_is_tried_again_nor_a_renewal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    key = ask(world, "one")
    await process.watch()
    await process.worker.run(key)
    assert conditions(world, "TaskGrant", "one")["Delivered"].startswith("CredentialDelivered")
    issued: list[str] = []

    async def issue(self: KubernetesIssuer, order: Order, plan: Plan) -> Credential:
        issued.append(order.request_uid)
        raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "it is away")

    monkeypatch.setattr(KubernetesIssuer, "issue", issue)
    monkeypatch.setattr(KubernetesIssuer, "renew", issue)
    world.now += timedelta(minutes=7)
    await process.watch()
    await process.worker.run(key, endings_alone=True)
    assert not issued
    assert await asyncio.wait_for(queue.get(), 1) == key
    await process.worker.run(key)
    assert issued, "and the others do"


async def test_a_revocation_goes_on_while_every_other_worker_waits_for_a_backend_that_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    lives = ask(world, "lives")
    await process.watch()
    await process.worker.run(lives)
    monkeypatch.setattr(KubernetesIssuer, "issue", hang)
    hanging = [ask(world, f"hangs-{index}") for index in range(4)]
    await process.watch()
    workers = [asyncio.create_task(process.worker.work(endings_alone=index == 0)) for index in range(3)]
    for key in hanging:
        queue.add(key, ending=False)
        queue.add(key, ending=True)  # as its grant's own watch does
    world.change("AccessRequest", "shop", "lives", {"spec": {"outcome": "Succeeded"}})
    await process.watch()
    queue.add(lives, ending=True)

    async def gone() -> bool:
        return all(body["metadata"]["name"] != "lives" for body in world.of("TaskGrant"))

    await until(gone, "the one that lives to be revoked", seconds=5)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_a_backend_that_does_not_answer_is_given_up_and_the_grant_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ANSWERS_WITHIN", timedelta(milliseconds=20))
    monkeypatch.setattr(KubernetesIssuer, "issue", hang)
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    key = ask(world, "one")
    await process.watch()
    await asyncio.wait_for(process.worker.run(key), 5)
    assert "did not answer within" in conditions(world, "TaskGrant", "one")["Issued"]
    assert queue.failures(key) == 1


async def test_a_revocation_whose_backend_does_not_answer_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ANSWERS_WITHIN", timedelta(milliseconds=20))
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    key = ask(world, "one")
    await process.watch()
    await process.worker.run(key)

    async def never(self: KubernetesIssuer, plan: Plan, made: Sequence[MadeObject]) -> Proof:
        await asyncio.Event().wait()
        raise AssertionError

    with monkeypatch.context() as away:
        away.setattr(KubernetesIssuer, "revoke", never)
        world.change("AccessRequest", "shop", "one", {"spec": {"outcome": "Succeeded"}})
        await process.watch()
        await asyncio.wait_for(process.worker.run(key), 5)
        assert "did not answer within" in conditions(world, "TaskGrant", "one")["Revoked"]
        assert queue.failures(key) == 1
    await process.watch()
    await process.worker.run(key)
    assert not world.of("TaskGrant")
    assert not world.live_tokens()


async def test_a_renewal_that_fails_again_and_again_makes_no_end_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    key = ask(world, "one", "15m")
    await process.watch()
    await process.worker.run(key)

    async def away(self: KubernetesIssuer, order: Order, plan: Plan) -> Credential:
        raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "it is away", after=timedelta(minutes=5))

    monkeypatch.setattr(KubernetesIssuer, "renew", away)
    world.now += timedelta(minutes=15) - timedelta(milliseconds=100)
    await process.watch()
    await process.worker.run(key)
    assert queue.failures(key) == 1
    assert await asyncio.wait_for(queue.get(endings_alone=True), 2) == key


async def test_what_goes_wrong_unexpectedly_with_a_beginning_makes_no_ending_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(world, queue=(queue := Queue(clock=lambda: world.now)))
    key = ask(world, "one")
    await process.watch()

    async def broken(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(process.worker, "run", broken)
    queue.add(key, ending=False)
    worker = asyncio.create_task(process.worker.work())

    async def failed() -> bool:
        return queue.waiting(ending=False).keys == 1 or queue.waiting(ending=True).keys == 1

    worker_done = until(failed, "it to be tried again", seconds=2)
    await asyncio.sleep(0.02)
    worker.cancel()
    await worker_done
    assert (queue.waiting(ending=True).keys, queue.waiting(ending=False).keys) == (0, 1)


async def test_a_number_beyond_64_bits_is_decided_and_on_record(world: World, tmp_path: Path) -> None:
    log = Log(tmp_path, writer="w", cluster="", clock=lambda: world.now)
    world.write = log.write  # type: ignore[method-assign]
    process = Process(world)
    owner = world.add("Pod", pod("one"))
    body = request("one", owner, "2m", "valetkey-one-a", world.now)
    body["spec"]["task"]["parameters"] = {"n": json.loads("100000000000000000000")}
    world.add("AccessRequest", body)
    await process.watch()
    await process.worker.run(Key("shop", "one"))
    await log.close()
    records, broken = history.read(tmp_path)
    assert broken == []
    assert [record["reason"] for record in records] == ["ParametersInvalid"]
    assert "ParametersInvalid" in conditions(world, "AccessRequest", "one")["Approved"]
