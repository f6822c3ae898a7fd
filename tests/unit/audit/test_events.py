"""Events: a flood of them holds nobody up, fills no memory, and takes nothing from the log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from tests.cluster.api import until
from tests.properties.world import World
from valetkey.audit import history
from valetkey.audit.events import Events
from valetkey.audit.record import Log
from valetkey.kinds.base import Metadata
from valetkey.kube.api import Json

BOUND = 2000
AT = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = Metadata(name="r", namespace="shop", uid="u", resource_version="1", creation_timestamp=AT)


class Slow(World):
    """An API server that takes an Event when it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []
        self.takes = asyncio.Event()

    async def create(self, path: str, body: Json) -> Json:
        await self.takes.wait()
        self.taken.append(body["reason"])
        return body


async def test_a_flood_of_events_is_bounded_waits_for_nobody_and_leaves_the_log_its_record(tmp_path: Path) -> None:
    world, log = Slow(), Log(tmp_path, writer="valetkey-0", cluster="", clock=lambda: AT)
    events = Events(world, instance="valetkey-0", clock=lambda: AT)
    posting = asyncio.create_task(events.run())
    for number in range(BOUND + 1):
        events.post("AccessRequest", REQUEST, f"Reason{number}", "x" * 1024)
    await log.write("PolicyDenied", request="shop/r")
    await log.close()
    assert [record["reason"] for record in history.read(tmp_path)[0]] == ["PolicyDenied"]
    assert world.taken == []
    world.takes.set()

    async def all_taken() -> bool:
        return len(world.taken) >= BOUND

    await until(all_taken, "what was kept to be posted", seconds=10, pause=0.01)
    posting.cancel()
    await asyncio.gather(posting, return_exceptions=True)
    assert world.taken == [f"Reason{number}" for number in range(BOUND)], "the newest are dropped, for the log has them"
