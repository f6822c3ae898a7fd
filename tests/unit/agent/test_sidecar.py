"""`valetkey sidecar` keeps the files of an access where another program reads them, all of them or none."""

from __future__ import annotations

import functools
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.unit.agent.agents import command, done, entries, shown, soon
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent.volume import Volume

FILES = {"token", "ca.crt", "namespace", "kubeconfig"}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """What the program mounts too."""
    path = tmp_path / "volume"
    path.mkdir()
    return path


@contextmanager
def sidecar(server: Apiserver, volume: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A sidecar whose files are there."""
    process = command(server, "sidecar", "--directory", str(volume), *arguments)
    try:
        soon(lambda: (volume / "token").exists() or process.poll() is not None, "the files")
        yield process
    finally:
        process.kill()
        process.communicate()


def _shows(volume: Path, token: str) -> bool:
    return (volume / "token").read_text() == token


def test_the_files_are_there_while_it_runs_and_sigterm_ends_it_well(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume) as process:
        assert shown(volume) == FILES
        assert (volume / "token").read_text() == "granted-1"
        assert (volume / "token").readlink() == Path("..data/token")
        assert (volume / "token").stat().st_mode & 0o777 == 0o644
        process.terminate()
        status, _, err = done(process)
    assert status == 0, err
    assert "Traceback" not in err
    assert server.outcome() == "Succeeded"
    assert list(volume.iterdir()) == []
    assert entries() == []


def test_a_renewal_replaces_them_all_at_once(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume):
        before = (volume / "..data").readlink()
        for number in (2, 3):
            server.grant(server.names[0], token=f"granted-{number}", sequence=number)
            soon(functools.partial(_shows, volume, f"granted-{number}"), "the renewal")
            assert (volume / "..data").readlink() != before
        soon(lambda: not (volume / before).exists(), "the set before the last to go")


def test_when_time_is_up_it_asks_again_if_it_was_told_to(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume, "--again") as process:
        first = server.names[0]
        server.decides = lambda name: server.grant(name, token="granted-2")
        server.say(first, "Finished", "True", "TTLReached")
        soon(lambda: (volume / "token").read_text() == "granted-2", "the next access")
        server.say(server.names[1], "Finished", "True", "PolicyChanged", "restart was changed")
        status, _, err = done(process)
    assert status == 75
    assert "PolicyChanged: restart was changed" in err
    assert list(volume.iterdir()) == []


def test_asked_again_and_denied_it_leaves_nothing(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume, "--again") as process:
        server.decides = server.deny
        server.say(server.names[0], "Finished", "True", "TTLReached")
        assert done(process)[0] == 77
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("reason", ["TTLReached", "PolicyChanged"])
def test_otherwise_an_end_takes_the_files_and_the_process_with_it(server: Apiserver, volume: Path, reason: str) -> None:
    with sidecar(server, volume) as process:
        server.say(server.names[0], "Finished", "True", reason)
        status, _, err = done(process)
    assert status == 75
    assert reason in err
    assert list(volume.iterdir()) == []


def test_told_to_terminate_while_it_waits_it_takes_its_request_back(server: Apiserver, volume: Path) -> None:
    server.decides = server.nothing
    process = command(server, "sidecar", "--directory", str(volume))
    soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a request that waits")
    process.terminate()
    assert done(process)[0] == 0
    assert server.outcome() == "Cancelled"


def test_killed_and_started_again_it_goes_on_with_the_same_access(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume) as process:
        process.kill()
        done(process)
    before = (volume / "..data").readlink()
    with sidecar(server, volume) as process:
        soon(lambda: (volume / "token").exists() and (volume / "..data").readlink() != before, "the files again")
        process.send_signal(signal.SIGTERM)
        assert done(process)[0] == 0
    assert len(server.names) == 1
    assert list(volume.iterdir()) == []


def test_a_full_disk_keeps_the_old_files_until_there_is_room(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume) as process:
        before = {name: (volume / name).read_text() for name in FILES}
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        # As much as a few bytes of the first file: what is cut off must not be seen.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4, hard))
        server.grant(server.names[0], token="granted-2", sequence=2)
        assert process.stderr is not None
        assert any("tried again" in line for line in process.stderr)
        for _ in range(20):
            assert {name: (volume / name).read_text() for name in before} == before
        soon(lambda: len([path for path in volume.iterdir() if path.name.startswith("..2")]) == 1, "half a set to go")
        server.grant(server.names[0], token="granted-3", sequence=3)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        soon(lambda: (volume / "token").read_text() == "granted-3", "the newest")
        process.terminate()
        assert done(process)[0] == 0
    assert list(volume.iterdir()) == []


def test_a_full_disk_does_not_hide_that_the_access_is_over(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume) as process:
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4, hard))
        server.grant(server.names[0], token="granted-2", sequence=2)
        assert process.stderr is not None
        assert any("tried again" in line for line in process.stderr)
        server.say(server.names[0], "Finished", "True", "PolicyChanged")
        assert done(process)[0] == 75
    assert list(volume.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_shows_nothing_and_says_why(server: Apiserver, volume: Path) -> None:
    volume.rmdir()
    volume.symlink_to("/proc/self/fdinfo")  # a directory in which nothing can be made
    process = command(server, "sidecar", "--directory", str(volume), "--timeout", "1s")
    status, _, err = done(process)
    assert status == 75
    assert f"{volume} cannot be written" in err
    assert server.outcome() == "Cancelled"


def test_whoever_reads_meanwhile_sees_one_set_and_never_half_of_two(volume: Path) -> None:
    kept, stop = Volume(volume), threading.Event()
    kept.write({"token": "0", "namespace": "0"})
    torn: list[tuple[str, str]] = []

    def read() -> None:
        while not stop.is_set():
            folder = os.open(volume / "..data", os.O_RDONLY | os.O_DIRECTORY)
            # Held open for so long that two more have come, it may be empty by now.
            with suppress(FileNotFoundError):
                one, two = (_read_in(folder, name) for name in ("token", "namespace"))
                torn.extend([(one, two)] if one != two else [])
            os.close(folder)
            if not (volume / "token").exists():
                torn.append(("missing", ""))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        kept.write({"token": str(number), "namespace": str(number)})
        time.sleep(0.01)
    stop.set()
    reader.join()
    assert torn == []


def _read_in(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


def test_who_was_led_to_the_set_before_still_finds_it_and_no_older_one(volume: Path) -> None:
    kept, sets = Volume(volume), []
    for number in "123":
        kept.write({"token": number})
        sets.append(volume / (volume / "..data").readlink())
    assert [path.exists() for path in sets] == [False, True, True]
    assert (sets[1] / "token").read_text() == "2"


def test_what_is_not_there_is_bad_usage(server: Apiserver, volume: Path) -> None:
    volume.rmdir()
    assert done(command(server, "sidecar", "--directory", str(volume)))[0] == 2
    assert server.calls == []


def test_what_a_killed_one_has_left_is_not_there_while_the_next_one_waits(server: Apiserver, volume: Path) -> None:
    with sidecar(server, volume) as process:
        process.kill()
        done(process)
    server.say(server.names[0], "Finished", "True", "TTLReached")
    server.decides = server.nothing
    process = command(server, "sidecar", "--directory", str(volume))
    try:
        soon(lambda: len(server.names) == 2, "the next request")
        assert list(volume.iterdir()) == []
    finally:
        process.terminate()
        done(process)


def test_nothing_is_written_where_somebody_has_put_a_link(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = volume.parent / "own"
    own.mkdir(mode=0o700)
    (own / "token").write_text("ours")
    made = Path.mkdir

    def swapped(self: Path, *arguments: object, **options: object) -> None:
        """Whoever shares the volume is quick."""
        made(self)
        self.rename(self.with_name("theirs"))
        self.symlink_to(own)

    monkeypatch.setattr(Path, "mkdir", swapped)
    with pytest.raises(OSError, match=r"Too many levels of symbolic links|Not a directory"):
        Volume(volume).write({"token": "granted", "ca.crt": "CA"})
    assert (own / "token").read_text() == "ours"
    assert sorted(path.name for path in own.iterdir()) == ["token"]
