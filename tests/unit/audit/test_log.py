"""The log: on disk before the caller goes on, whole after a failure, and it shows what was done to it."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from tests.cluster.api import until
from valetkey.audit import history, record
from valetkey.audit.record import GENESIS, Log, digest
from valetkey.cli.app import app
from valetkey.errors import UnavailableError
from valetkey.reasons import Reason


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path, writer="valetkey-0", cluster="west", clock=clock)
    yield log
    await log.close()


def files_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


def file_of(directory: Path) -> Path:
    (path,) = files_of(directory)
    return path


def on_disk(directory: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file_of(directory).read_bytes().splitlines()]


async def write_three(log: Log) -> None:
    for number in range(3):
        await log.write("PolicyMatched", task=f"run-{number}")


async def test_a_record_is_synced_before_the_caller_goes_on(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def watched(file: int) -> None:
        sync(file)
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fdatasync", watched)
    for number in range(3):
        await log.write("PolicyMatched", task=f"run-{number}")
        assert synced[-1] == file_of(tmp_path).stat().st_size
        assert [record["task"] for record in on_disk(tmp_path)] == [f"run-{n}" for n in range(number + 1)]


async def test_records_that_wait_at_the_same_time_share_syncs_and_keep_their_order(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    sync = os.fdatasync

    def counted(file: int) -> None:
        nonlocal syncs
        syncs += 1
        sync(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    await asyncio.gather(*(log.write("PolicyMatched", task=f"run-{n}") for n in range(100)))
    assert syncs <= 2
    assert [record["task"] for record in on_disk(tmp_path)] == [f"run-{n}" for n in range(100)]
    assert history.read(tmp_path)[1] == []


async def test_a_record_says_what_it_is_who_wrote_it_and_what_came_before(log: Log, tmp_path: Path) -> None:
    await log.write(Reason.POLICY_MATCHED, task="run-1", facts={"namespaces": {"shop": {}}}, message="entry read")
    await log.write(Reason.CREDENTIAL_ISSUED)
    first, second = on_disk(tmp_path)
    assert {"seq": 1, "prev": GENESIS, "cluster": "west", "writer": "valetkey-0"}.items() <= first.items()
    assert {"reason": "PolicyMatched", "task": "run-1", "message": "entry read"}.items() <= first.items()
    assert (second["seq"], second["prev"]) == (2, first["hash"])


async def test_the_file_is_closed_to_everybody_else(log: Log, tmp_path: Path) -> None:
    assert file_of(tmp_path).stat().st_mode & 0o007 == 0


async def test_a_caller_that_was_cancelled_does_not_stop_the_others(log: Log, tmp_path: Path) -> None:
    cancelled = asyncio.create_task(log.write("PolicyMatched", task="cancelled"))
    other = asyncio.create_task(log.write("PolicyMatched", task="other"))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    assert [record["task"] for record in on_disk(tmp_path)] == ["cancelled", "other"]


async def test_what_is_under_way_when_the_log_is_closed_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path, writer="w", cluster="", clock=clock)
    writing = asyncio.create_task(log.write("PolicyMatched"))
    await asyncio.sleep(0)
    await log.close()
    await writing
    assert len(on_disk(tmp_path)) == 1


async def test_an_untouched_chain_holds(log: Log, tmp_path: Path) -> None:
    await write_three(log)
    records, broken = history.read(tmp_path)
    assert [record["task"] for record in records] == ["run-0", "run-1", "run-2"]
    assert broken == []


TAMPERING: dict[str, tuple[Callable[[list[bytes]], list[bytes]], set[int]]] = {
    "a record was changed": (lambda lines: [lines[0], lines[1].replace(b"run-1", b"run-9"), lines[2]], {2}),
    "a field was added": (lambda lines: [lines[0].replace(b'{"seq"', b'{"x":1,"seq"'), *lines[1:]], {1}),
    "the first was removed": (lambda lines: lines[1:], {1}),
    "one was removed": (lambda lines: [lines[0], lines[2]], {2}),
    "two changed places": (lambda lines: [lines[0], lines[2], lines[1]], {2, 3}),
    "one was written twice": (lambda lines: [lines[0], lines[0], *lines[1:]], {2}),
    "one was cut short": (lambda lines: [lines[0], lines[1][:20], lines[2]], {2, 3}),
    "one is no object": (lambda lines: [lines[0], b"[]", lines[2]], {2, 3}),
    "one is not UTF-8": (lambda lines: [lines[0], b"\xff", lines[2]], {2, 3}),
}


@pytest.mark.parametrize(("tamper", "lines"), TAMPERING.values(), ids=TAMPERING)
async def test_tampering_is_found(
    log: Log, tmp_path: Path, tamper: Callable[[list[bytes]], list[bytes]], lines: set[int]
) -> None:
    await write_three(log)
    path = file_of(tmp_path)
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")
    _, broken = history.read(tmp_path)
    assert {place.line for place in broken} == lines
    assert {place.file for place in broken} == {path.name}


async def test_a_record_that_was_changed_and_hashed_again_breaks_the_chain_after_it(log: Log, tmp_path: Path) -> None:
    await write_three(log)
    first, *others = on_disk(tmp_path)
    first["task"] = "run-9"
    first["hash"] = digest(first)
    file_of(tmp_path).write_bytes(b"\n".join(orjson.dumps(record) for record in (first, *others)))
    assert [place.line for place in history.read(tmp_path)[1]] == [2]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
async def test_a_full_disk_leaves_a_whole_chain_that_goes_on(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await log.write("PolicyMatched", task="before")
    write, real = os.write, getattr(os, call)

    def full(file: int, *content: bytes) -> int:
        if content:
            write(file, content[0][: len(content[0]) // 2])
        monkeypatch.setattr(os, call, real)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UnavailableError, match="No space left on device") as failed:
        await log.write("PolicyMatched", task="lost")
    assert failed.value.reason == Reason.BACKEND_UNAVAILABLE
    assert [record["task"] for record in on_disk(tmp_path)] == ["before"]
    await log.write("PolicyMatched", task="after")
    records, broken = history.read(tmp_path)
    assert [(record["task"], record["seq"]) for record in records] == [("before", 1), ("after", 2)]
    assert broken == []


def days(*, after: float) -> Callable[[], datetime]:
    """A clock that goes on by so many days after each look at it."""
    now = clock()
    looks = itertools.count()
    return lambda: now + timedelta(days=after) * next(looks)


async def test_each_day_has_a_file_that_tells_how_the_one_before_it_ended(tmp_path: Path) -> None:
    log = Log(tmp_path, writer="valetkey-0", cluster="west", clock=days(after=0.3))
    for number in range(8):
        await log.write("PolicyMatched", task=f"run-{number}")
    await log.close()
    assert len(files_of(tmp_path)) > 2
    records, broken = history.read(tmp_path)
    assert [record["task"] for record in records if "task" in record] == [f"run-{number}" for number in range(8)]
    assert broken == []


async def test_a_tail_that_was_cut_off_shows_once_the_next_file_has_begun(tmp_path: Path) -> None:
    log = Log(tmp_path, writer="valetkey-0", cluster="west", clock=days(after=0.3))
    for _ in range(8):
        await log.write("PolicyMatched")
    await log.close()
    first = files_of(tmp_path)[0]
    first.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:-1]))
    _, broken = history.read(tmp_path)
    assert [(place.file, place.why) for place in broken] == [(first.name, "its last records are missing")]
    shown = CliRunner().invoke(app, ["log", "--task", "none", "--dir", str(tmp_path)])
    assert f"{first.name}: the chain does not hold: its last records are missing" in shown.output


async def days_of(directory: Path, starts: int) -> list[Path]:
    """A log whose writer was started so many times."""
    now = clock()
    for number in range(starts):
        log = Log(directory, writer="valetkey-0", cluster="", clock=lambda day=number: now + timedelta(days=day))  # type: ignore[misc]
        for _ in range(3):
            await log.write("PolicyMatched")
        await log.close()
    return files_of(directory)


async def test_after_a_new_start_the_log_tells_how_the_file_before_ended(tmp_path: Path) -> None:
    first, second, third = await days_of(tmp_path, 3)
    records, broken = history.read(tmp_path)
    assert [record["file"] for record in records if record["reason"] == "LogContinued"] == [first.name, second.name]
    assert broken == []
    assert orjson.loads(third.read_bytes().splitlines()[0])["reason"] == "LogContinued"
    second.write_bytes(b"".join(second.read_bytes().splitlines(keepends=True)[:-1]))
    _, broken = history.read(tmp_path)
    assert [(place.file, place.why) for place in broken] == [(second.name, "its last records are missing")]


async def test_a_file_that_somebody_deleted_shows(tmp_path: Path) -> None:
    _, second, _ = await days_of(tmp_path, 3)
    second.unlink()
    _, broken = history.read(tmp_path)
    assert [place.file for place in broken] == [second.name]
    assert broken[0].why == "it is missing, and no record says that it was too old to be kept"


async def test_a_file_that_was_too_old_to_be_kept_is_not_missing(tmp_path: Path) -> None:
    first, *_ = await days_of(tmp_path, 2)
    os.utime(first, (0, 0))
    log = Log(tmp_path, writer="valetkey-0", cluster="", clock=clock, keep=timedelta(days=90))
    await log.drop_old()
    await log.close()
    assert not first.exists()
    assert history.read(tmp_path)[1] == []


@pytest.mark.parametrize("left", [b"", b"torn", b"null\n", b"{}\n"])
async def test_whatever_an_earlier_start_has_left_the_log_goes_on(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "valetkey-0-20260101T000000000000.jsonl").write_bytes(left)
    log = Log(tmp_path, writer="valetkey-0", cluster="", clock=clock)
    await log.write("PolicyMatched")
    await log.close()
    records, _ = history.read(tmp_path)
    assert records[-1]["reason"] == "PolicyMatched"


async def test_an_old_file_that_cannot_be_read_keeps_no_operator_from_starting(tmp_path: Path) -> None:
    (tmp_path / "valetkey-0-20260101T000000000000.jsonl").mkdir()
    log = Log(tmp_path, writer="valetkey-0", cluster="", clock=clock)
    await log.write("PolicyMatched")
    assert log.written == 1
    await log.close()


async def test_how_the_file_before_ended_is_told_by_the_first_record_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await days_of(tmp_path, 1)
    log = Log(tmp_path, writer="valetkey-0", cluster="", clock=clock)
    with monkeypatch.context() as patched:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(os, "write", full)
        with pytest.raises(UnavailableError):
            await log.write("PolicyMatched")
    await log.write("PolicyMatched")
    await log.close()
    records, broken = history.read(tmp_path)
    assert [record["reason"] for record in records][-2:] == ["LogContinued", "PolicyMatched"]
    assert broken == []


async def test_a_day_whose_file_cannot_be_made_goes_on_in_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, writer="valetkey-0", cluster="west", clock=days(after=0.3))
    with monkeypatch.context() as patched:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(os, "open", full)
        for _ in range(8):
            await log.write("PolicyMatched")
    assert len(on_disk(tmp_path)) == 8
    await log.close()


async def test_what_is_older_than_is_kept_goes_with_a_record_and_others_files_stay(tmp_path: Path) -> None:
    old, young, others = (
        tmp_path / f"{name}.jsonl"
        for name in (
            "valetkey-0-20260101T000000000000",
            "valetkey-0-20260102T000000000000",
            "valetkey-1-20260101T000000000000",
        )
    )
    for path in (old, young, others):
        path.touch()
    for path in (old, others):
        os.utime(path, (0, 0))
    log = Log(tmp_path, writer="valetkey-0", cluster="west", clock=clock, keep=timedelta(days=90))
    assert old.exists(), "the clock is not known to be right yet"
    await log.drop_old()
    await log.close()
    assert not old.exists()
    assert young.exists()
    assert others.exists()
    records, _ = history.read(tmp_path)
    assert [(record["reason"], old.name in record["message"]) for record in records] == [("LogShortened", True)]


async def test_without_a_time_to_keep_it_nothing_is_deleted(tmp_path: Path) -> None:
    old = tmp_path / "valetkey-0-20260101T000000000000.jsonl"
    old.touch()
    os.utime(old, (0, 0))
    await Log(tmp_path, writer="valetkey-0", cluster="west", clock=clock).close()
    assert old.exists()


async def test_the_last_of_a_volume_is_kept_for_endings(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.demand_room()
    volume = os.statvfs(tmp_path)

    def left(free: int) -> Callable[[Path], SimpleNamespace]:
        sizes = {"f_frsize": 4096, "f_blocks": volume.f_blocks, "f_bavail": free // 4096}
        return lambda _: SimpleNamespace(**sizes)

    monkeypatch.setattr(os, "statvfs", left(1 << 20))
    with pytest.raises(UnavailableError, match="nearly full"):
        await log.check()
    with pytest.raises(UnavailableError, match="nearly full"):
        log.demand_room()
    await log.write("CredentialRevoked")
    assert [record["reason"] for record in on_disk(tmp_path)] == ["CredentialRevoked"]
    monkeypatch.setattr(os, "statvfs", left(1 << 30))
    await log.check()
    log.demand_room()


async def test_a_write_that_is_taken_in_parts_is_whole(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:7]))
    await write_three(log)
    records, broken = history.read(tmp_path)
    assert (len(records), broken) == (3, [])


async def test_the_chains_of_all_writers_are_read_in_order_of_time(tmp_path: Path) -> None:
    logs = [Log(tmp_path, writer=f"valetkey-{n}", cluster="", clock=clock) for n in (1, 0)]
    for number in range(4):
        await logs[number % 2].write("PolicyMatched", task=str(number))
    for log in logs:
        await log.close()
    records, broken = history.read(tmp_path)
    assert [record["task"] for record in records] == ["0", "1", "2", "3"]
    assert broken == []


RECORDS = [
    {"task": "run-1", "request": "shop/a", "request_uid": "uid-a"},
    {"task": "run-1", "request": "shop/b", "request_uid": "uid-b"},
    {"task": "run-2", "request": "shop/a", "request_uid": "uid-c"},
    {"reason": "PolicyMatched"},
]


@pytest.mark.parametrize(
    ("task", "request_", "found"),
    [
        ("run-1", None, [0, 1]),
        (None, "shop/a", [0, 2]),
        (None, "uid-c", [2]),
        ("run-1", "shop/a", [0]),
        ("run", None, []),
        (None, "a", []),
    ],
)
def test_the_records_of_a_task_or_a_request_are_found(task: str | None, request_: str | None, found: list[int]) -> None:
    assert history.select(RECORDS, task=task, request=request_) == [RECORDS[n] for n in found]


def test_a_directory_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        history.read(tmp_path / "nothing")


def log_command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["log", *map(str, arguments)])


CREDENTIAL_ID = "JTI=01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
async def told(log: Log, tmp_path: Path) -> Path:
    """The log of a task, and of another whose agent chooses its words badly."""
    await log.write("PolicyMatched", task="run-1", request="shop/a", policy="fix", message="entry read")
    await log.write("CredentialIssued", task="run-1", request="shop/a", credential_id=CREDENTIAL_ID)
    await log.write("PolicyMatched", task="bad", request="shop/b", message="\x1b[31m[red]\r\x9b2J\u202eevil")
    return tmp_path


def test_the_story_of_a_task_is_shown_as_a_table(told: Path) -> None:
    result = log_command("--task", "run-1", "--dir", told)
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["TIME", "REQUEST", "REASON", "POLICY", "CREDENTIAL", "MESSAGE"]
    assert first.split()[1:] == ["shop/a", "PolicyMatched", "fix", "entry", "read"]
    assert second.split()[1:] == ["shop/a", "CredentialIssued", CREDENTIAL_ID]
    times = [datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S%z") for line in (first, second)]
    assert all(timedelta() <= datetime.now(UTC) - time < timedelta(minutes=1) for time in times)
    assert result.exit_code == 0


def test_the_story_of_a_request_is_shown_as_json_as_it_was_written(told: Path) -> None:
    result = log_command("--request", "shop/a", "--dir", told, "-o", "json")
    assert [orjson.loads(line) for line in result.stdout.splitlines()] == on_disk(told)[:2]
    assert result.exit_code == 0


def test_words_that_agents_chose_are_shown_without_control_characters_or_markup(told: Path) -> None:
    result = log_command("--task", "bad", "--dir", told)
    assert "[31m[red]" in result.stdout
    assert all(c.isprintable() for c in result.stdout.replace("\n", ""))


def test_json_holds_no_control_codes_that_a_terminal_obeys(told: Path) -> None:
    assert not {"\x1b", "\r"} & set(log_command("--task", "bad", "--dir", told, "-o", "json").stdout)


def test_without_the_directory_the_command_says_how_to_name_it(tmp_path: Path) -> None:
    result = log_command("--task", "run-1", "--dir", tmp_path / "nothing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name the log's directory with --dir" in result.stderr


def test_what_is_not_on_record_is_said_and_is_a_failure(told: Path) -> None:
    result = log_command("--task", "unknown", "--dir", told)
    assert result.exit_code == 1
    assert "no record of it" in result.stderr


def test_without_a_task_or_a_request_the_command_asks_for_one(told: Path) -> None:
    result = log_command("--dir", told)
    assert result.exit_code == 2
    assert "--task" in result.stderr


def test_a_broken_chain_is_told_beside_the_story_and_is_a_failure(told: Path) -> None:
    path = file_of(told)
    path.write_bytes(path.read_bytes().replace(b"entry read", b"entry rear"))
    result = log_command("--task", "run-1", "--dir", told)
    assert "entry rear" in result.stdout
    assert f"{path.name} line 1: the chain does not hold" in result.stderr
    assert result.exit_code == 1


async def test_a_record_that_was_acknowledged_stays_though_the_disk_fails_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, writer="w", cluster="", clock=clock)
    await log.write("PolicyMatched", task="1")
    write, truncate = os.write, os.ftruncate

    def half(file: int, content: bytes) -> int:
        write(file, content[: len(content) // 2])
        monkeypatch.setattr(os, "write", write)
        raise OSError(errno.EIO, "I/O error")

    def never(file: int, length: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "write", half)
    monkeypatch.setattr(os, "ftruncate", never)
    with pytest.raises(UnavailableError):
        await log.write("PolicyMatched", task="2")
    monkeypatch.setattr(os, "ftruncate", truncate)
    await log.write("PolicyMatched", task="3")
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(UnavailableError):
        await log.write("PolicyMatched", task="4")
    await log.close()
    records, broken = history.read(tmp_path)
    assert [record["task"] for record in records] == ["1", "3"]
    assert broken == []


async def test_a_volume_that_hangs_keeps_nobody_waiting_and_no_record_in_memory(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "STUCK_AFTER", timedelta(milliseconds=50))
    hangs, sync = threading.Event(), os.fdatasync

    def hang(file: int) -> None:
        hangs.wait(10)
        sync(file)

    await log.write("PolicyMatched", task="run-0")
    monkeypatch.setattr(os, "fdatasync", hang)
    with pytest.raises(UnavailableError, match="took no record"):
        await asyncio.wait_for(log.write("PolicyMatched", task="run-1"), 5)
    with pytest.raises(UnavailableError, match="took no record"):
        log.demand_room()
    for _ in range(100):
        with pytest.raises(UnavailableError):
            await log.write("TaskReleased", task="run-2")
    assert not log._waiting
    hangs.set()

    async def moves() -> bool:
        try:
            log.demand_room()
        except UnavailableError:
            return False
        return True

    await until(moves, "the volume to take records again", seconds=5)
    await log.write("TaskReleased", task="run-3")
    assert [record["task"] for record in on_disk(tmp_path)] == ["run-0", "run-1", "run-3"]
    assert history.read(tmp_path)[1] == []


async def test_whatever_goes_wrong_while_records_are_written_the_next_ones_are(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(asyncio, "to_thread", no_thread)
        with pytest.raises(UnavailableError, match="RuntimeError"):
            await asyncio.wait_for(log.write("PolicyMatched", task="run-1"), 2)
    await asyncio.wait_for(log.write("PolicyMatched", task="run-2"), 2)
    assert [record["task"] for record in on_disk(tmp_path)] == ["run-2"]


async def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_words_of_agents_that_look_like_the_end_of_a_grant_are_not_read_as_records(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = {"reason": "CredentialRevoked", "grant": "mine", "end": "TaskReleased"}
    for number in range(20):
        await log.write("PolicyMatched", asked={"task": {"parameters": planted}}, task=f"run-{number}")
    await log.write("CredentialRevoked", grant="mine", request_uid="r", end="TTLReached")
    looked: list[bytes] = []
    read = history._record

    def look(line: bytes) -> history.Record | None:
        looked.append(line)
        return read(line)

    monkeypatch.setattr(history, "_record", look)
    found = history.past(tmp_path, {"mine"}, since=clock())
    assert found.ended == {"mine": "TTLReached"}
    assert len(looked) == 1
