"""An agent gets access for one task, and it is over when the task is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import valetkey
from tests.unit.agent.agents import access, entries, shown, soon
from tests.unit.agent.apiserver import POD, Apiserver
from valetkey.agent import entries as entries_module
from valetkey.agent import leftovers, pod
from valetkey.agent.blocking import Loop
from valetkey.kinds.access import Access
from valetkey.policy import allowances


async def test_the_access_is_there_while_the_block_lasts_and_not_after_it(server: Apiserver) -> None:
    async with access(server, parameters={"deployment": "checkout"}, ttl="5m") as grant:
        assert grant.token() == "granted-1"
        assert shown(grant.files) == {"token", "ca.crt", "namespace", "kubeconfig"}
        assert server.outcome() is None
        files = grant.files
    assert server.outcome() == "Succeeded"
    assert not files.exists()
    assert entries() == []
    with pytest.raises(valetkey.Ended, match="TaskReleased"):
        grant.token()
    with pytest.raises(valetkey.Ended):
        grant.environ()


def test_the_same_holds_where_nothing_is_awaited(server: Apiserver) -> None:
    with access(server) as grant:
        assert grant.token() == "granted-1"
    assert server.outcome() == "Succeeded"
    assert entries() == []


async def test_nothing_has_to_be_awaited_within_a_loop_that_runs_either(server: Apiserver) -> None:
    with access(server) as grant:
        assert grant.token() == "granted-1"
    assert server.outcome() == "Succeeded"
    server.decides = server.deny
    with pytest.raises(valetkey.Denied), access(server):
        pass
    assert entries() == []
    assert [thread for thread in threading.enumerate() if thread.name == "valetkey"] == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("granted", [True, False])
def test_sigterm_is_what_it_was_even_where_a_loop_does_not_close(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch, granted: bool
) -> None:
    close = Loop.close

    def closed_badly(loop: Loop) -> None:
        close(loop)
        raise ZeroDivisionError

    monkeypatch.setattr(Loop, "close", closed_badly)
    server.decides = server.grant if granted else server.deny
    with pytest.raises(ZeroDivisionError), access(server):
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_request_says_what_the_agent_said_and_who_it_is(server: Apiserver) -> None:
    with access(server, parameters={"deployment": "checkout"}, ttl="90s", objective="restart\n  checkout") as grant:
        spec = server.only()["spec"]
    assert spec["task"] | {"id": ""} == {
        "id": "",
        "objective": "restart checkout",
        "purpose": "remediation",
        "parameters": {"deployment": "checkout"},
    }
    assert spec["task"]["id"].startswith("remediation-")
    assert spec["ttl"] == "1m30s"
    rule = {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "resourceNames": ["checkout"],
        "verbs": ["get", "patch"],
    }
    assert spec["access"] == {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}}
    assert spec["requester"]["credentialID"] == "JTI=t-1"
    assert grant.name.startswith("remediation-")
    uid = server.only()["metadata"]["uid"]
    assert grant.parent == {"namespace": "shop-agents", "name": grant.name, "uid": uid}


def test_the_kubeconfig_goes_to_the_pods_own_api_server_with_the_files_beside_it(server: Apiserver) -> None:
    with access(server) as grant:
        config = json.loads((grant.files / "kubeconfig").read_text())
        assert grant.environ()["KUBECONFIG"] == str(grant.files / "kubeconfig")
        assert (grant.files / "ca.crt").read_bytes() == (server.account / "ca.crt").read_bytes()
        modes = [path.stat().st_mode & 0o777 for path in (grant.files, grant.files / "..data", grant.files / "token")]
        assert modes == [0o700, 0o700, 0o600]
    (cluster,) = config["clusters"]
    assert cluster["cluster"] == {
        "server": f"https://127.0.0.1:{server.port}",
        "certificate-authority": "ca.crt",
    }
    assert config["users"][0]["user"] == {"tokenFile": "token"}
    assert config["contexts"][0]["context"]["namespace"] == "shop"


def test_what_is_delivered_for_something_else_is_files_and_nothing_is_added(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "as before")
    delivered = {"username": "v-fixer", "password": "p-1", "ca.crt": "the database's"}
    server.decides = lambda name: server.grant(name, files=delivered)
    with access(server) as grant:
        assert {name: (grant.files / name).read_text() for name in shown(grant.files)} == delivered
        assert grant.kubeconfig is None
        assert grant.environ()["KUBECONFIG"] == "as before"
        for wanted in (grant.token, grant.kubernetes):
            with pytest.raises(valetkey.AccessError, match=r"its files are ca\.crt, password, username"):
                wanted()
        server.grant(grant.name, files=delivered | {"password": "p-2"}, sequence=2)
        soon(lambda: (grant.files / "password").read_text() == "p-2", "the renewal")


def test_whom_to_trust_is_never_what_was_delivered(server: Apiserver) -> None:
    delivered = {"namespace": "shop", "token": "granted", "ca.crt": "a stranger's"}
    server.decides = lambda name: server.grant(name, files=delivered)
    with access(server) as grant:
        assert (grant.files / "ca.crt").read_bytes() == (server.account / "ca.crt").read_bytes()


def test_a_file_that_is_delivered_no_more_is_there_no_more(server: Apiserver) -> None:
    server.decides = lambda name: server.grant(name, files={"username": "one", "old": "file"})
    with access(server) as grant:
        assert shown(grant.files) == {"username", "old"}
        server.grant(grant.name, files={"username": "two"}, sequence=2)
        soon(lambda: (grant.files / "username").read_text() == "two", "the renewal")
        soon(lambda: shown(grant.files) == {"username"}, "the other to go")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("no"), "Failed"),
        (SystemExit(1), "Failed"),
        (SystemExit(0), "Succeeded"),
        (SystemExit(143), "Cancelled"),
        (KeyboardInterrupt(), "Cancelled"),
    ],
    ids=repr,
)
def test_what_leaves_the_block_says_how_the_task_ended(server: Apiserver, error: BaseException, outcome: str) -> None:
    with pytest.raises(type(error)), access(server):
        raise error
    assert server.outcome() == outcome


async def test_a_task_that_is_cancelled_in_the_block_is_reported_so(server: Apiserver) -> None:
    async def work() -> None:
        async with access(server):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.to_thread(soon, lambda: server.requests and "status" in server.only(), "a grant")
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.outcome() == "Cancelled"


async def test_who_is_cancelled_while_it_waits_takes_its_request_back(server: Apiserver) -> None:
    server.decides = server.nothing
    task = asyncio.create_task(access(server).__aenter__())
    await asyncio.to_thread(soon, lambda: server.requests, "a request")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.outcome() == "Cancelled"
    assert entries() == []


def test_a_denial_says_all_that_it_knows(server: Apiserver) -> None:
    said = {"field": "spec.access", "allowed": "shop: get pods", "retryAfter": "1m30s", "contact": "#shop"}
    server.decides = lambda name: server.deny(name, **said)
    with pytest.raises(valetkey.Denied) as caught, access(server):
        pass
    denied = caught.value
    assert (denied.reason, denied.field, denied.allowed) == ("AccessBeyondPolicy", "spec.access", "shop: get pods")
    assert denied.retry_after is not None
    assert denied.retry_after.total_seconds() == 90
    for part in ("restart allows no delete", "spec.access", "shop: get pods", "1m30s", "#shop", "d-17"):
        assert part in str(denied)
    assert server.made("PATCH") == []
    assert entries() == []


def test_what_a_denial_allows_can_be_pasted_and_is_what_is_asked(server: Apiserver) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["web"]}
    allowed = {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}}
    written = allowances.without_risks(Access.model_validate(allowed), (), {})
    assert written is not None
    server.decides = lambda name: server.deny(name, allowed=written)
    with pytest.raises(valetkey.Denied) as caught, access(server):
        pass
    assert f"Allowed there: {written} " in str(caught.value)
    server.decides = server.grant
    assert caught.value.allowed is not None
    for pasted in (caught.value.allowed, caught.value.allowed.removeprefix("access: "), f"\n{written}\n"):
        with access(server, access=pasted) as grant:
            assert server.requests[grant.name]["spec"]["access"] == allowed


def test_a_namespace_may_be_called_access_and_json_that_is_none_is_refused(server: Apiserver) -> None:
    with access(server, access="access: get pods"):
        assert server.only()["spec"]["access"]["kubernetes"]["scopes"][0]["namespace"] == "access"
    for text in ('access: {"kubernetes"', '{"kubernetes": {}}; shop: get pods', "{shop}: get pods"):
        with pytest.raises(valetkey.InvalidAccess, match="read as JSON"):
            access(server, access=text)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("RequestInvalid", valetkey.Denied),
        ("RequestDenied", valetkey.Denied),
        ("RequestExpired", valetkey.NotGranted),
        ("DeliveryFailed", valetkey.NotGranted),
        ("IssueFailed", valetkey.NotGranted),
    ],
)
def test_what_is_over_before_it_was_granted_was_denied_only_where_somebody_refused(
    server: Apiserver, reason: str, error: type[valetkey.AccessError]
) -> None:
    server.decides = lambda name: server.say(name, "Finished", "True", reason, "for a reason")
    with pytest.raises(error, match=f"{reason}: for a reason"), access(server):
        pass
    assert entries() == []


def test_a_request_that_is_deleted_while_it_waits_was_not_granted(server: Apiserver) -> None:
    server.decides = server.delete
    with pytest.raises(valetkey.NotGranted, match="RequestDeleted: the request was deleted before it was granted"):
        access(server).__enter__()
    assert entries() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"purpose": None}, "purpose: it is text, not NoneType"),
        ({"objective": 5}, "objective: it is text, not int"),
        ({"access": ["shop: get pods"]}, "access: it is a mapping, not list"),
        ({"access": {"kubernetes": {1}}}, "access: it is not JSON"),
        ({"access": "{}}"}, "access: what begins with {"),
        ({"parameters": ["deployment"]}, "parameters: it is a mapping, not list"),
        ({"parameters": {"n": float("nan")}}, "parameters: it is not JSON"),
        ({"task": 7}, "task: it is text, not int"),
        ({"ttl": 60}, "ttl: "),
        ({"ttl": "60"}, "ttl: '60' is no length of time"),
        ({"timeout": "60"}, "timeout: '60' is no length of time"),
        ({"parent": "remediation-1"}, "parent: it is a mapping, not str"),
        ({"delegation": "worker"}, "delegation: it is a mapping, not str"),
        ({"delegation": {"access": "shop: get pods"}}, "delegation: its access is a list, not str"),
        ({"delegation": {"access": [1]}}, "delegation: it is a mapping, not int"),
    ],
    ids=str,
)
def test_an_argument_that_is_none_says_which_one_it_is(server: Apiserver, change: dict[str, Any], says: str) -> None:
    with pytest.raises(valetkey.InvalidAccess) as caught:
        access(server, **change)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("kind", "finished", "reason"),
    [("Identified", "RequestInvalid", "PodNotFound"), ("Approved", "RequestDenied", "No")],
)
def test_a_denial_has_the_reason_of_the_condition_that_refused(
    server: Apiserver, kind: str, finished: str, reason: str
) -> None:
    def refuse(name: str) -> None:
        server.say(name, kind, "False", reason, "there is a reason")
        server.say(name, "Finished", "True", finished, "it is over")

    server.decides = refuse
    with pytest.raises(valetkey.Denied, match="there is a reason") as caught, access(server):
        pass
    assert caught.value.reason == reason


def test_a_request_without_an_operator_times_out_and_is_taken_back(server: Apiserver) -> None:
    server.decides = server.nothing
    with pytest.raises(valetkey.TimedOut, match=r"within 0.6 s: nobody has decided"), access(server, timeout=0.6):
        pass
    assert server.outcome() == "Cancelled"
    assert entries() == []


@pytest.mark.parametrize("timeout", ["600ms", timedelta(seconds=0.6), 0.6], ids=repr)
def test_a_timeout_is_written_like_any_other_length_of_time(
    server: Apiserver, timeout: timedelta | str | float
) -> None:
    server.decides = server.nothing
    with pytest.raises(valetkey.TimedOut, match=r"within 0.6 s"), access(server, timeout=timeout):
        pass


@pytest.mark.parametrize("timeout", ["60", "a while", None, [1]], ids=repr)
def test_a_timeout_that_is_none_is_refused_before_anything_is_asked(timeout: Any) -> None:
    with pytest.raises(valetkey.InvalidAccess, match="timeout: "):
        valetkey.access("remediation", "restart", "shop: get pods", timeout=timeout)


def test_a_request_that_nobody_can_deliver_says_so_when_time_is_up(server: Apiserver) -> None:
    server.decides = lambda name: server.say(name, "Ready", "Unknown", "AccessInProgress", "BackendUnavailable: etcd")
    with pytest.raises(valetkey.TimedOut, match="BackendUnavailable: etcd"), access(server, timeout=0.6):
        pass


async def test_an_access_that_ends_by_itself_is_no_more(server: Apiserver) -> None:
    async with access(server) as grant:
        server.say(grant.name, "Finished", "True", "PolicyChanged", "restart was changed")
        ended = await asyncio.wait_for(grant.wait_ended(), 5)
        assert (ended.reason, ended.message) == ("PolicyChanged", "restart was changed")
        assert grant.ended is not None
        with pytest.raises(valetkey.Ended, match="PolicyChanged"):
            grant.token()
    assert server.made("PATCH") == []
    assert entries() == []


async def test_an_access_whose_request_is_deleted_is_no_more(server: Apiserver) -> None:
    async with access(server) as grant:
        server.delete(grant.name)
        assert (await asyncio.wait_for(grant.wait_ended(), 5)).reason == "RequestDeleted"


def test_an_exception_says_that_the_access_had_ended_and_stays_what_it_is(server: Apiserver) -> None:
    def work() -> None:
        with access(server) as grant:
            server.say(grant.name, "Finished", "True", "TTLReached", "5m are over")
            soon(lambda: grant.ended, "the end")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        work()
    assert caught.value.__notes__ == ["the access had ended: TTLReached: 5m are over"]


async def test_the_same_holds_where_it_is_awaited(server: Apiserver) -> None:
    async def work() -> None:
        async with access(server) as grant:
            server.say(grant.name, "Finished", "True", "TTLReached", "5m are over")
            await grant.wait_ended()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await work()
    assert caught.value.__notes__ == ["the access had ended: TTLReached: 5m are over"]


async def test_who_stops_waiting_for_the_end_does_not_bring_it_about(server: Apiserver) -> None:
    async with access(server) as grant:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(grant.wait_ended(), 0.05)
        assert grant.ended is None
        assert grant.token() == "granted-1"


async def test_several_at_once_each_have_a_request_of_their_own(server: Apiserver) -> None:
    async with access(server) as one, access(server) as two, access(server) as three:
        assert len({one.name, two.name, three.name}) == len({one.files, two.files, three.files}) == 3
        assert [p.name[32:] for p in entries()] == ["", "-2", "-3"]
    assert [server.outcome(name) for name in server.names] == ["Succeeded"] * 3


def test_an_access_object_may_be_entered_again_for_another_request(server: Apiserver) -> None:
    asked = access(server)
    with asked as one:
        pass
    with asked as two:
        assert two.token()
    assert one.name != two.name


async def test_people_are_waited_for_longer_than_the_timeout(server: Apiserver) -> None:
    server.decides = server.ask_people
    said: list[str] = []

    async def approve() -> None:
        await asyncio.sleep(1)
        server.grant(server.names[0])

    approving = asyncio.create_task(approve())
    async with access(server, timeout=0.5, on_pending=said.append) as grant:
        assert grant.token()
    await approving
    assert said == ["restart asks 1 of shop-leads until 14:32"]


async def test_time_runs_again_when_people_have_spoken(server: Apiserver) -> None:
    server.decides = server.ask_people

    async def approve() -> None:
        await asyncio.sleep(0.7)
        server.say(server.names[0], "Approved", "True", "PersonApproved")

    approving = asyncio.create_task(approve())
    with pytest.raises(valetkey.TimedOut):
        async with access(server, timeout=0.5):
            pass
    await approving


def test_a_request_that_people_left_lying_is_over_and_says_for_whom_it_waited(server: Apiserver) -> None:
    def expire(_: str) -> None:
        server.say(server.names[0], "Finished", "True", "RequestExpired")

    server.decides = server.ask_people
    with (
        pytest.raises(valetkey.ApprovalPending, match="shop-leads until 14:32") as caught,
        access(server, on_pending=expire),
    ):
        pass
    assert caught.value.over
    assert entries() == []


def test_who_does_not_wait_for_people_finds_the_request_again(server: Apiserver) -> None:
    server.decides = server.ask_people
    with pytest.raises(valetkey.ApprovalPending, match="shop-leads until 14:32") as caught:
        access(server, wait_for_approval=False).__enter__()
    assert not caught.value.over
    assert server.outcome() is None
    server.grant(caught.value.request)
    with access(server, wait_for_approval=False) as grant:
        assert grant.name == caught.value.request
    assert server.outcome() == "Succeeded"


def test_what_waits_for_people_survives_another_task(server: Apiserver) -> None:
    server.decides = server.ask_people
    with pytest.raises(valetkey.ApprovalPending) as caught:
        access(server, wait_for_approval=False).__enter__()
    server.decides = server.grant
    leftovers._looked_at.clear()  # as a process does that has just begun
    with access(server, objective="something else"):
        pass
    assert server.outcome(caught.value.request) is None
    assert len(entries()) == 1


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


async def test_the_next_access_of_the_same_loop_needs_no_new_connection(server: Apiserver) -> None:
    for _ in range(3):
        async with access(server):
            pass
    assert len(server.peers) == 1


def test_an_access_that_is_open_is_not_entered_again(server: Apiserver) -> None:
    opened = access(server)
    with opened as grant:
        with pytest.raises(RuntimeError, match="open already"), opened:
            pass
        assert grant.token()
    assert server.outcome() == "Succeeded"
    assert len(server.names) == 1
