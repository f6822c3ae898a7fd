"""The local cluster ends what it started and nothing else, and its images are what they say."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local import archive, debian, pki, ports, processes
from tests.cluster.local.places import LocalClusterError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]


@pytest.fixture(autouse=True)
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test's own; gives where its pid files are."""
    monkeypatch.setattr(processes, "LOGS", tmp_path / "log")
    monkeypatch.setattr(processes, "_PIDS", tmp_path / "pid")
    return tmp_path / "pid"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that the local cluster did not start."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_a_started_process_runs_until_it_is_stopped() -> None:
    processes.start("sleeper", SLEEP)
    pid = processes.running("sleeper")
    assert pid is not None
    assert processes.started_at(pid) is not None
    processes.stop("sleeper")
    assert processes.running("sleeper") is None
    assert processes.started_at(pid) is None


def test_starting_again_leaves_the_first_process_alone() -> None:
    processes.start("sleeper", SLEEP)
    first = processes.running("sleeper")
    processes.start("sleeper", SLEEP)
    assert processes.running("sleeper") == first
    processes.stop("sleeper")


def test_a_killed_process_does_not_run_and_is_started_anew() -> None:
    processes.start("sleeper", SLEEP)
    first = processes.running("sleeper")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert processes.wait(lambda: processes.running("sleeper") is None, 5)
    processes.start("sleeper", SLEEP)
    assert processes.running("sleeper") not in (None, first)
    processes.stop("sleeper")


def test_a_reused_pid_is_neither_taken_for_ours_nor_ended(pids: Path, stranger: subprocess.Popen[bytes]) -> None:
    pids.mkdir()
    (pids / "sleeper").write_text(f"{stranger.pid} 1")
    assert processes.running("sleeper") is None
    processes.stop("sleeper")
    assert stranger.poll() is None
    assert not (pids / "sleeper").exists()


@pytest.mark.parametrize("content", ["", "12", "no number", "1 2 3", "7 None"])
def test_a_half_written_pid_file_is_no_process(pids: Path, content: str) -> None:
    pids.mkdir()
    (pids / "sleeper").write_text(content)
    assert processes.running("sleeper") is None


def test_a_process_that_ignores_the_polite_signal_is_ended_by_force(tmp_path: Path) -> None:
    processes.start("deaf", DEAF)
    log = tmp_path / "log" / "deaf.log"
    assert processes.wait(lambda: log.read_text() == "deaf\n", 10)
    processes.stop("deaf", patience=0.2)
    assert processes.running("deaf") is None


def test_a_process_that_ends_early_is_reported_with_the_end_of_its_log() -> None:
    processes.start("brief", [sys.executable, "-c", "print('line 1'); print('no such flag')"])
    with pytest.raises(LocalClusterError, match=r"(?s)brief ended.*no such flag"):
        processes.until("brief", lambda: False, seconds=10)


def test_a_process_that_never_serves_is_reported_after_the_time_out() -> None:
    processes.start("sleeper", SLEEP)
    with pytest.raises(LocalClusterError, match="was not ready after 0 s"):
        processes.until("sleeper", lambda: False, seconds=0.3)
    processes.stop("sleeper")


def test_the_holder_of_an_address_is_named() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.77", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert (
            ports.holder("127.0.0.77", port) == f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        )
        assert ports.holder("127.0.0.78", port) is None
    assert ports.holder("127.0.0.77", port) is None


def test_data_older_than_the_keys_is_stale_and_younger_data_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, data = tmp_path / "pki", tmp_path / "etcd"
    monkeypatch.setattr(pki, "PKI", keys)
    data.mkdir()
    assert pki.newer_than(data)
    keys.mkdir()
    (keys / "ca.crt").touch()
    os.utime(data, (1, 1))
    assert pki.newer_than(data)
    os.utime(keys / "ca.crt", (0, 0))
    assert not pki.newer_than(data)


def test_equal_folders_make_equal_layers_whatever_their_times(tmp_path: Path) -> None:
    for name, time in (("one", 1), ("two", 2)):
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "tool").write_text("#!/bin/sh\n")
        (root / "bin" / "tool").chmod(0o755)
        (root / "bin" / "sh").symlink_to("tool")
        os.utime(root / "bin" / "tool", (time, time))
        archive.layer(root, tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        tool = tar.getmember("bin/tool")
        assert (tool.uid, tool.gid, tool.mode, tool.mtime) == (0, 0, 0o755, 0)
        assert tar.getmember("bin/sh").linkname == "tool"


def test_an_image_names_its_layers_by_their_digests_and_in_order(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "project"):
        root = tmp_path / name
        root.mkdir()
        (root / name).write_text(name)
        layers.append(tmp_path / f"{name}.tar")
        archive.layer(root, layers[-1])
    out = tmp_path / "image.tar"
    archive.write(out, ["docker.io/library/thing:dev"], layers, {"User": "65532:65532"})
    digests = [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]
    with tarfile.open(out) as tar:
        (manifest,) = json.loads(_member(tar, "manifest.json"))
        config = json.loads(_member(tar, manifest["Config"]))
        assert manifest["RepoTags"] == ["docker.io/library/thing:dev"]
        assert config["config"] == {"User": "65532:65532"}
        assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in digests]
        assert [hashlib.sha256(_member(tar, name)).hexdigest() for name in manifest["Layers"]] == digests


def test_the_mirror_is_this_machines_own(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    (lists / "debian.sources").write_text("Types: deb\nURIs: https://m.example/debian/\nSuites: bookworm\n")
    assert debian.mirror(tmp_path) == "https://m.example/debian"
    (lists / "debian.sources").unlink()
    (tmp_path / "sources.list").write_text("deb [arch=amd64] http://n.example/debian bookworm main\n")
    assert debian.mirror(tmp_path) == "http://n.example/debian"
    (tmp_path / "sources.list").write_text("deb http://n.example/debian-security bookworm-security main\n")
    with pytest.raises(LocalClusterError, match="no Debian mirror"):
        debian.mirror(tmp_path)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    content = tar.extractfile(name)
    assert content is not None
    return content.read()
