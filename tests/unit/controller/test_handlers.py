"""Watches are tried again for ever, and half an operator is none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Set
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import until
from tests.cluster.world import grant
from tests.properties.life import GUARD, pod, policy, request
from tests.properties.world import World
from valetkey.audit import history
from valetkey.controller import surroundings
from valetkey.controller.cache import Cache
from valetkey.controller.handlers import ForEver
from valetkey.controller.intake import Intake
from valetkey.controller.operator import Operator
from valetkey.controller.queue import Key
from valetkey.controller.relist import Relist
from valetkey.kube.api import Json, RewoundError
from valetkey.kube.clock import Clock
from valetkey.kube.leader import TTL, Leadership
from valetkey.settings import Settings


def test_a_watch_is_never_given_up() -> None:
    pauses = list(islice(ForEver(), 1000))
    assert len(pauses) == 1000
    assert max(pauses) <= 5
    assert pauses == sorted(pauses)
    assert list(islice(ForEver(), 3)) == pauses[:3]


def operator_of(
    world: World, directory: Path, *, ttl: timedelta = TTL, identity: str = "valetkey-0_uid", **more: Any
) -> tuple[Operator, Settings]:
    if not world.of("ValidatingAdmissionPolicy"):
        world.add("ValidatingAdmissionPolicy", {**GUARD})
    directory.mkdir(exist_ok=True)
    (directory / "guards.json").write_text(json.dumps([GUARD]))
    settings = Settings(
        agent_namespaces=("shop",),
        log_directory=directory / "log",
        guards=directory / "guards.json",
        run_directory=directory,
        **more,
    )
    leadership = Leadership(
        world, namespace=settings.namespace, name=settings.leader, identity="valetkey-0_uid", ttl=ttl
    )
    operator = Operator(
        world, settings, leadership, Clock(), instance="valetkey-0", server="https://api", certificate_authority="CA"
    )
    return operator, settings


async def test_a_part_that_stops_by_itself_stops_the_operator(tmp_path: Path) -> None:
    operator, settings = operator_of(World(), tmp_path)
    died = asyncio.Event()
    looking = Relist.keep_looking

    async def broken(self: Relist) -> None:
        raise RuntimeError("a bug")

    try:
        Relist.keep_looking = broken  # type: ignore[method-assign]
        await operator.start(died.set)
        await asyncio.wait_for(died.wait(), 5)
    finally:
        Relist.keep_looking = looking  # type: ignore[method-assign]
        await operator.stop()
    assert not (settings.run_directory / "ready").exists()


async def test_a_store_that_went_back_in_time_stops_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Restored(World):
        rewound = False

        async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
            if self.rewound:
                raise RewoundError("the store was restored")
            async for body in super().list(path, metadata_only=metadata_only, selector=selector):
                yield body

    world = Restored()
    operator, settings = operator_of(world, tmp_path)
    monkeypatch.setattr(surroundings, "EVERY", timedelta(milliseconds=10))
    died = asyncio.Event()
    try:
        await operator.start(died.set)
        world.rewound = True
        await asyncio.wait_for(died.wait(), 5)
    finally:
        await operator.stop()
    assert not (settings.run_directory / "ready").exists()


async def test_a_replica_that_does_not_lead_writes_nothing_and_goes_on_from_there_once_it_does(tmp_path: Path) -> None:
    world = World()
    world.now = datetime.now(UTC) - timedelta(minutes=2)
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    lease = {"metadata": {"name": "valetkey", "namespace": "valetkey-system"}}
    world.add("Leader", lease | {"spec": {"holderIdentity": "valetkey-1_uid", "leaseDurationSeconds": 60}})
    operator, _ = operator_of(world, tmp_path, targets=("shop",))
    world.now += timedelta(minutes=1)
    owner = world.add("Pod", pod("one"))
    world.add("AccessRequest", request("r", owner, "2m", "valetkey-one-a", world.now))
    before = set(world.objects)
    try:
        await operator.start(lambda: None)
        await asyncio.sleep(0.3)
        assert set(world.objects) == before
        assert not world.records
        world.change("Leader", "valetkey-system", "valetkey", {"spec": {"holderIdentity": ""}})

        async def granted() -> bool:
            return bool(world.live_tokens())

        await until(granted, "the request to be granted", seconds=5)
        assert {record.get("request") for record in world.records} <= {None, "shop/r"}
    finally:
        await operator.stop()
    (held,) = world.of("Leader")
    assert held["spec"]["holderIdentity"] == "", "it lets another lead"


@pytest.mark.parametrize("leads", [True, False])
def test_a_grant_that_another_replica_let_go_is_no_loss(leads: bool) -> None:
    cache = Cache()
    intake = Intake(cache, lambda _: None, leads=lambda: leads)
    body = grant("r", "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b10")
    stored = {"uid": "u", "resourceVersion": "1", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}
    intake.grant({**body, "metadata": body["metadata"] | stored})
    intake.grant_gone(Key("shop", "r"), "u")
    assert bool(cache.vanished) == leads


async def test_who_leads_goes_on_leading_while_it_reads_a_log_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = history.past

    def slow(directory: Path, uids: Set[str], *, since: datetime) -> history.Past:
        time.sleep(2.6)
        return past(directory, uids, since=since)

    monkeypatch.setattr(history, "past", slow)
    world = World()
    world.now = datetime.now(UTC) - timedelta(minutes=2)
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    operator, _ = operator_of(world, tmp_path, ttl=timedelta(seconds=2), targets=("shop",))
    world.now += timedelta(minutes=1)
    world.add("AccessRequest", request("r", world.add("Pod", pod("one")), "2m", "valetkey-one-a", world.now))
    died: list[str] = []
    try:
        await operator.start(lambda: died.append("it"))

        async def granted() -> bool:
            return bool(world.live_tokens())

        await until(granted, "the request to be granted", seconds=8)
    finally:
        await operator.stop()
    assert not died
