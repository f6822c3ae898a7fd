"""A process finds its pod and a place of its own, or says what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import valetkey
from tests.unit.agent.agents import access, entries
from tests.unit.agent.apiserver import POD, Apiserver
from valetkey.agent import entries as entries_module
from valetkey.agent import pod


@pytest.mark.parametrize(
    ("missing", "why"),
    [("token", "token cannot be read"), ("ca.crt", "ca.crt")],
)
def test_what_is_missing_of_a_pod_is_said(server: Apiserver, missing: str, why: str) -> None:
    (server.account / missing).unlink()
    with pytest.raises(valetkey.NotInAPod, match=why), access(server):
        pass
    assert entries() == []


def test_outside_a_cluster_it_says_so(server: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(valetkey.NotInAPod, match="KUBERNETES_SERVICE_HOST"), access(server):
        pass


def test_a_token_that_is_bound_to_no_pod_is_no_use(server: Apiserver) -> None:
    (server.account / "token").write_text("e30.eyJzdWIiOiJhIn0.sig")
    with pytest.raises(valetkey.NotInAPod, match="bound to a pod"), access(server):
        pass


def test_a_state_directory_that_others_reach_is_refused(server: Apiserver, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    link = tmp_path / "link"
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link.symlink_to(private)
    for directory in (shared, link):
        with pytest.raises(valetkey.AccessError, match=str(directory)), access(server, state_directory=directory):
            pass
    assert server.calls == []


def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    assert entries_module.state_directory(state) == state
    monkeypatch.setattr("os.getuid", lambda: state.stat().st_uid + 1)
    with pytest.raises(valetkey.AccessError, match="not a directory of this user alone"):
        entries_module.state_directory(state)


def test_an_address_of_version_6_is_in_brackets(server: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert pod.find(server.account).server == f"https://[fd00::1]:{server.port}"


def test_state_is_in_memory_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    disk.mkdir()
    monkeypatch.delenv("VALETKEY_STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(entries_module, "_SHARED_MEMORY", memory)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    assert entries_module.state_directory() == disk / f"valetkey-{os.getuid()}"
    memory.mkdir()
    assert entries_module.state_directory() == memory / f"valetkey-{os.getuid()}"
    monkeypatch.setenv("VALETKEY_STATE_DIRECTORY", str(tmp_path / "said"))
    assert entries_module.state_directory() == tmp_path / "said"
    assert entries_module.state_directory(tmp_path / "a" / "b") == tmp_path / "a" / "b"


def test_what_is_left_is_of_this_user_alone(server: Apiserver) -> None:
    with access(server):
        (entry,) = entries()
        assert entry.parent.name == POD["uid"]
        assert [p.stat().st_mode & 0o777 for p in (entry.parent.parent, entry.parent, entry)] == [0o700] * 3
        assert (entry / "key").stat().st_mode & 0o777 == 0o600
