"""Watches are tried again for ever, and half an operator is none."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

from tests.properties.life import GUARD
from tests.properties.world import World
from valetkey.controller.handlers import ForEver
from valetkey.controller.operator import Operator
from valetkey.controller.relist import Relist
from valetkey.settings import Settings


def test_a_watch_is_never_given_up() -> None:
    pauses = list(islice(ForEver(), 1000))
    assert len(pauses) == 1000
    assert max(pauses) <= 5
    assert pauses == sorted(pauses)
    assert list(islice(ForEver(), 3)) == pauses[:3]


async def test_a_part_that_stops_by_itself_stops_the_operator(tmp_path: Path) -> None:
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    (tmp_path / "guards.json").write_text("[]")
    settings = Settings(
        agent_namespaces=("shop",),
        log_directory=tmp_path / "log",
        guards=tmp_path / "guards.json",
        ready_file=tmp_path / "ready",
    )
    died = asyncio.Event()
    operator = Operator(world, settings, instance="valetkey-0", server="https://api", certificate_authority="CA")
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
