"""Each figure is what happened, or what is so at the moment of the scrape."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.properties.life import GUARD, Process, policy
from tests.unit.controller.test_faults import Faulty, Life
from tests.unit.controller.test_held_up import Down, begun, turn
from valetkey.audit.record import Log
from valetkey.controller.endings import TRIES
from valetkey.controller.metrics import UNEXPECTED, Metrics, Now
from valetkey.controller.queue import Key
from valetkey.errors import UnavailableError
from valetkey.kube.clock import Clock
from valetkey.reasons import CONDITIONS, Reason

ISSUE, REVOCATION = "valetkey_issue_duration_seconds", "valetkey_revocation_duration_seconds"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def growing(metrics: Metrics, name: str) -> dict[str, float]:
    """What is not zero of a counter with one label or two, by their values."""
    samples = (s for family in metrics.registry.collect() for s in family.samples if s.name == name)
    return {"/".join(sample.labels.values()): sample.value for sample in samples if sample.value}


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path / "log", writer="valetkey-0", cluster="", clock=Clock())
    yield log
    await log.close()


def watched(process: Process, log: Log, *, leads: bool = True) -> Metrics:
    """The metrics of a process, with what is so now."""
    process.metrics.registry.register(
        Now(
            cache=process.cache,
            queue=process.queue,
            surroundings=process.surroundings,
            log=log,
            ledgers=process.ledgers,
            leads=lambda: leads,
            clock=lambda: process.world.now,
        )
    )
    return process.metrics


async def test_a_whole_life_counts_once_each() -> None:
    life = Life(Faulty())
    await life.all_of_it()
    metrics = life.process.metrics
    assert growing(metrics, "valetkey_decisions_total") == {"Approved/PolicyMatched": 1}
    assert growing(metrics, "valetkey_grants_ended_total") == {"TaskReleased": 1}
    assert growing(metrics, "valetkey_failures_total") == {}
    assert value(metrics, f"{ISSUE}_count") == 1, "a renewal is no issue"
    assert value(metrics, f"{REVOCATION}_count", reason="TaskReleased", proof="Absent") == 1


async def test_an_issue_is_counted_from_its_requests_creation() -> None:
    world, process = await begun()
    world.now += timedelta(seconds=31)
    await turn(process)
    # The API server says to the second when that was.
    assert value(process.metrics, f"{ISSUE}_sum") == pytest.approx(30, abs=0.5)


async def test_an_issue_within_a_second_is_counted_from_when_its_request_was_seen() -> None:
    _, process = await begun()
    await process.watch()
    await asyncio.sleep(0.05)
    await process.work()
    assert 0.05 <= (value(process.metrics, f"{ISSUE}_sum") or 0) < 5


async def test_a_revocation_is_counted_from_when_its_end_was_written_and_only_once_it_is_proved() -> None:
    world, process = await begun()
    await turn(process)
    world.failing = "delete"
    world.now += timedelta(minutes=2)
    await turn(process, 3)
    assert growing(process.metrics, "valetkey_grants_ended_total") == {"TTLReached": 1}
    assert growing(process.metrics, f"{REVOCATION}_count") == {}
    world.failing = ""
    world.now += timedelta(seconds=45)
    await turn(process)
    assert value(process.metrics, f"{REVOCATION}_sum", reason="TTLReached", proof="Absent") == 45


async def test_a_grant_that_went_by_force_is_counted_too() -> None:
    world, process = await begun()
    await turn(process)
    world.change("TaskGrant", "shop", "r", {"metadata": {"finalizers": []}})
    world.remove("TaskGrant", "shop", "r")
    await turn(process, 2)
    assert growing(process.metrics, "valetkey_grants_ended_total") == {"GrantDeleted": 1}
    assert growing(process.metrics, f"{REVOCATION}_count") == {"GrantDeleted/Absent": 1}


async def test_a_grant_that_is_gone_when_it_is_let_go_is_counted_and_forgotten() -> None:
    class Quick(Down):
        """Somebody takes a grant away by force in the moment in which it is let go."""

        async def patch(self, path: str, body: dict[str, object]) -> dict[str, object]:
            if "finalizers" in str(body.get("metadata")):
                self.objects.pop(("TaskGrant", "shop", "r"), None)
            return await super().patch(path, body)

    world, process = await begun(Quick())
    await turn(process)
    world.now += timedelta(minutes=2)
    await turn(process, 2)
    assert growing(process.metrics, f"{REVOCATION}_count") == {"TTLReached/Absent": 1}
    assert not list(process.cache.grants)
    assert not process.cache.vanished


async def test_a_denial_is_counted_by_its_reason() -> None:
    world, process = await begun()
    world.change("AgentPolicy", "", "fix", {"spec": policy(1)["spec"], "metadata": {"generation": 2}})
    await turn(process)
    assert growing(process.metrics, "valetkey_decisions_total") == {"Denied/TTLTooLong": 1}


async def test_what_is_put_off_and_what_is_refused_is_counted_by_its_reason() -> None:
    world, process = await begun()
    world.failing = "create"
    await turn(process)
    world.failing = ""
    world.remove("ValidatingAdmissionPolicy", "", GUARD["metadata"]["name"])
    await turn(process)
    assert growing(process.metrics, "valetkey_failures_total") == {"BackendUnavailable": 1, "GuardsMissing": 1}
    world, process = await begun()
    world.change("Pod", "shop", "one", {"spec": {"volumes": []}})
    await turn(process)
    assert growing(process.metrics, "valetkey_failures_total") == {"VolumeMissing": 1}


async def test_a_bug_is_counted_as_unexpected(monkeypatch: pytest.MonkeyPatch) -> None:
    _, process = await begun()
    await process.watch()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("valetkey.controller.worker.next_step", broken)
    process.queue.add(Key("shop", "r"), ending=False)
    working = asyncio.create_task(process.worker.work())
    for _ in range(10):
        await asyncio.sleep(0)
    working.cancel()
    assert growing(process.metrics, "valetkey_failures_total") == {UNEXPECTED: 1}


async def test_live_and_ending_grants_and_failed_revocations_are_those_that_are_there_now(log: Log) -> None:
    world, process = await begun()
    metrics = watched(process, log)
    assert value(metrics, "valetkey_grants", state="Live") == 0
    await turn(process)
    assert value(metrics, "valetkey_grants", state="Live") == 1
    world.failing = "delete"
    world.now += timedelta(minutes=2)
    await turn(process, TRIES + 1)
    assert value(metrics, "valetkey_grants", state="Live") == 0
    assert value(metrics, "valetkey_grants", state="Ending") == 1
    assert value(metrics, "valetkey_revocations_failed") == 1
    world.failing = ""
    await turn(process)
    assert value(metrics, "valetkey_grants", state="Ending") == 0
    assert value(metrics, "valetkey_revocations_failed") == 0


async def test_a_grant_is_overdue_from_the_time_that_was_granted_from_its_end_or_from_its_deletion(log: Log) -> None:
    world, process = await begun()
    metrics = watched(process, log)
    await turn(process)
    assert value(metrics, "valetkey_revocation_overdue_seconds") == 0
    (grant,) = world.of("TaskGrant")
    not_after = datetime.fromisoformat(grant["spec"]["order"]["notAfter"])
    world.now = not_after + timedelta(seconds=7)
    assert value(metrics, "valetkey_revocation_overdue_seconds") == 7, "nobody has begun"
    world.now = not_after - timedelta(seconds=60)
    world.failing = "delete"
    world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
    await turn(process)
    world.now += timedelta(seconds=20)
    assert value(metrics, "valetkey_revocation_overdue_seconds") == 20, "its end is written"
    world.failing = ""
    await turn(process)
    assert value(metrics, "valetkey_revocation_overdue_seconds") == 0


async def test_a_grant_that_somebody_deleted_is_overdue_from_then(log: Log) -> None:
    world, process = await begun()
    metrics = watched(process, log)
    await turn(process)
    world.remove("TaskGrant", "shop", "r")
    await process.watch()
    world.now += timedelta(seconds=9)
    assert value(metrics, "valetkey_revocation_overdue_seconds") == 9
    assert value(metrics, "valetkey_grants", state="Ending") == 1


async def test_keys_that_wait_and_the_first_of_them_are_counted_in_their_lane(log: Log) -> None:
    _, process = await begun()
    metrics = watched(process, log)
    assert value(metrics, "valetkey_queue_keys", lane="endings") == 0
    assert value(metrics, "valetkey_queue_oldest_seconds", lane="endings") == 0
    queue = process.queue
    queue.add(Key("shop", "a"), ending=False)
    queue.add(Key("shop", "b"), ending=False)
    queue.add(Key("shop", "c"), ending=True)
    await asyncio.sleep(0.02)
    queue.add(Key("shop", "a"), ending=True)  # it goes over to the endings, and has waited as long as it has
    assert value(metrics, "valetkey_queue_keys", lane="endings") == 2
    assert value(metrics, "valetkey_queue_keys", lane="beginnings") == 1
    assert (value(metrics, "valetkey_queue_oldest_seconds", lane="endings") or 0) >= 0.02
    queue.done(await queue.get())
    queue.done(await queue.get())
    assert value(metrics, "valetkey_queue_keys", lane="endings") == 0


async def test_guards_policies_and_leadership_are_told_as_they_are(log: Log) -> None:
    world, process = await begun()
    metrics = watched(process, log)
    assert value(metrics, "valetkey_guards_in_force") == 0, "they were not read yet"
    assert value(metrics, "valetkey_policies_fresh") == 0
    await process.watch()
    assert value(metrics, "valetkey_guards_in_force") == 1
    assert value(metrics, "valetkey_policies_fresh") == 1
    assert value(metrics, "valetkey_leader") == 1
    world.now += timedelta(seconds=11)
    assert value(metrics, "valetkey_guards_in_force") == 0, "too long ago"
    assert value(metrics, "valetkey_policies_fresh") == 0
    assert value(watched(Process(world), log, leads=False), "valetkey_leader") == 0


async def test_records_are_counted_and_so_are_those_that_could_not_be_written(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, process = await begun()
    metrics = watched(process, log)
    await asyncio.gather(*(log.write("PolicyMatched") for _ in range(3)))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(UnavailableError):
            await log.write("PolicyMatched")
    await log.write("PolicyMatched")
    assert value(metrics, "valetkey_log_records_total") == 4
    assert value(metrics, "valetkey_log_write_failures_total") == 1


def test_what_has_not_happened_yet_is_zero_and_not_missing() -> None:
    metrics = Metrics()
    for reason in (Reason.BACKEND_UNAVAILABLE, Reason.REVOCATION_PENDING, UNEXPECTED):
        assert value(metrics, "valetkey_failures_total", reason=reason) == 0
    for reason in CONDITIONS["AccessRequest", "Approved"]["False"]:
        assert value(metrics, "valetkey_decisions_total", outcome="Denied", reason=reason) == 0
    assert value(metrics, "valetkey_grants_ended_total", reason="TTLReached") == 0
    assert value(metrics, "process_resident_memory_bytes") or not Path("/proc/self/stat").exists()


async def test_no_label_has_a_word_that_an_agent_chose(log: Log) -> None:
    world, process = await begun()
    metrics = watched(process, log)
    await turn(process)
    world.now += timedelta(minutes=2)
    await turn(process, 2)
    words = {
        *Reason,
        UNEXPECTED,
        "Approved",
        "Denied",
        "Pending",
        "Undecided",
        "Absent",
        "Live",
        "Ending",
        "Due",
        "Overdue",
    }
    words |= {"endings", "beginnings"}
    for family in metrics.registry.collect():
        for sample in family.samples:
            assert {word for label, word in sample.labels.items() if label != "le"} <= words, sample
    assert "shop" not in json.dumps([s.labels for family in metrics.registry.collect() for s in family.samples])
