"""Watches are tried again for ever, and half an operator is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

from tests.properties.life import GUARD
from tests.properties.world import World
from valetkey.controller import surroundings
from valetkey.controller.handlers import ForEver
from valetkey.controller.operator import Operator
from valetkey.controller.relist import Relist
from valetkey.kube.client import Json, RewoundError
from valetkey.settings import Settings


def test_a_watch_is_never_given_up() -> None:
    pauses = list(islice(ForEver(), 1000))
    assert len(pauses) == 1000
    assert max(pauses) <= 5
    assert pauses == sorted(pauses)
    assert list(islice(ForEver(), 3)) == pauses[:3]


def operator_of(world: World, directory: Path) -> tuple[Operator, Settings]:
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    (directory / "guards.json").write_text("[]")
    settings = Settings(
        agent_namespaces=("shop",),
        log_directory=directory / "log",
        guards=directory / "guards.json",
        ready_file=directory / "ready",
    )
    return Operator(world, settings, instance="valetkey-0", server="https://api", certificate_authority="CA"), settings


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
    assert not settings.ready_file.exists()


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
    assert not settings.ready_file.exists()
