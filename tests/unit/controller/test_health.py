"""The files that the kubelet looks at are there exactly while what they say is so."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.api import until
from tests.cluster.local.places import ROOT
from tests.properties.world import World
from tests.unit.controller.test_handlers import operator_of
from valetkey.audit.record import Log
from valetkey.controller import health, relist
from valetkey.controller.health import LATELY, Health
from valetkey.errors import UnavailableError
from valetkey.kube.api import ApiError, Json


class Clock:
    """Seconds, as a test wants them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds to pass."""
    monkeypatch.setattr(health, "BEAT", timedelta(milliseconds=5))
    monkeypatch.setattr(health, "TRY_LOG_EVERY", timedelta(milliseconds=5))
    monkeypatch.setattr(relist, "AGAIN_AFTER", timedelta(milliseconds=5))


def ready(directory: Path) -> bool:
    return (directory / "ready").exists()


async def seen(directory: Path, *, as_ready: bool) -> None:
    async def shown() -> bool:
        return ready(directory) is as_ready

    await until(shown, "the file to be as it should", seconds=5)


def test_a_process_is_ready_once_it_has_read_everything_and_the_log_can_be_written(tmp_path: Path) -> None:
    own = Health(tmp_path)
    own.show()
    assert (tmp_path / "alive").exists()
    assert not ready(tmp_path)
    own.answered()
    own.show()
    assert not ready(tmp_path), "the log is yet to be tried"
    own.recorded()
    own.show()
    assert ready(tmp_path)


@pytest.mark.parametrize("what", ["answered", "recorded"])
def test_one_that_has_not_heard_of_either_lately_is_not_ready_until_it_has(tmp_path: Path, what: str) -> None:
    clock = Clock()
    own = Health(tmp_path, clock=clock)
    own.answered()
    own.recorded()
    clock.now += LATELY.total_seconds()
    {"answered": own.recorded, "recorded": own.answered}[what]()
    own.show()
    assert ready(tmp_path)
    clock.now += 1
    own.show()
    assert not ready(tmp_path)
    {"answered": own.answered, "recorded": own.recorded}[what]()
    own.show()
    assert ready(tmp_path)


def test_what_an_earlier_process_has_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    (tmp_path / "alive").touch()
    Health(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []


async def test_the_log_is_tried_again_and_again_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", writer="valetkey-0", cluster="", clock=lambda: datetime.now(UTC))
    clock = Clock()
    own = Health(tmp_path, clock=clock)
    working = [asyncio.create_task(own.keep_trying(log.check)), asyncio.create_task(own.keep_showing())]
    own.answered()
    await seen(tmp_path, as_ready=True)
    (tmp_path / "log").rename(tmp_path / "away")
    with pytest.raises(UnavailableError, match="the log cannot be written"):
        await log.check()

    async def unready() -> bool:
        clock.now += LATELY.total_seconds() + 1  # again: a try that began before may only now have told of it
        own.answered()
        own.show()
        return not ready(tmp_path)

    await until(unready, "the log's failure to show", seconds=5)
    (tmp_path / "log").mkdir()
    own.answered()
    await seen(tmp_path, as_ready=True)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    await log.close()
    assert list((tmp_path / "log").iterdir()) == []


class Away(World):
    """An API server that does not answer, until it does."""

    away = True

    async def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        if self.away:
            raise ApiError(0, "NoAnswer", "away")
        async for body in super().list(path, metadata_only=metadata_only, selector=selector):
            yield body


async def test_an_operator_that_starts_while_the_api_server_is_away_lives_waits_and_is_ready_when_it_answers(
    tmp_path: Path,
) -> None:
    world = Away()
    serving, _ = operator_of(world, tmp_path)
    starting = asyncio.create_task(serving.start(lambda: None))
    try:
        await asyncio.sleep(0.05)
        assert (tmp_path / "alive").exists()
        assert not ready(tmp_path)
        assert not starting.done()
        world.away = False
        await starting
        await seen(tmp_path, as_ready=True)
    finally:
        await serving.stop()
    assert not ready(tmp_path)


async def test_a_replica_that_only_follows_is_ready_too(tmp_path: Path) -> None:
    world = World()
    held = {"metadata": {"name": "valetkey", "namespace": "valetkey-system"}}
    world.add("Leader", held | {"spec": {"holderIdentity": "valetkey-1_uid", "leaseDurationSeconds": 60}})
    serving, _ = operator_of(world, tmp_path)
    try:
        await serving.start(lambda: None)
        await seen(tmp_path, as_ready=True)
        assert not world.records
    finally:
        await serving.stop()


def passes_probe(directory: Path) -> bool:
    """Runs the chart's own liveness probe, here."""
    template = (ROOT / "charts/valetkey/templates/statefulset.yaml").read_text()
    (probe,) = re.findall(r"exec: \{command: \[sh, -c, '(.*)'\]\}", template)
    assert "/run/valetkey/" in probe
    command = ["sh", "-c", probe.replace("/run/valetkey", str(directory))]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(("seconds", "lives"), [(0, True), (1, True), (30, True), (58, True), (62, False)])
def test_the_liveness_probe_ends_what_has_not_moved_for_a_minute(tmp_path: Path, seconds: int, lives: bool) -> None:
    Health(tmp_path).show()
    then = time.time() - seconds
    os.utime(tmp_path / "alive", (then, then))
    assert passes_probe(tmp_path) is lives


def test_the_liveness_probe_ends_what_has_never_moved(tmp_path: Path) -> None:
    assert not passes_probe(tmp_path)
