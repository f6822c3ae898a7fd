"""An agent gets access for one task, and it is over when the task is."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading

import pytest

import valetkey
from tests.unit.agent.agents import access, entries, shown, soon
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent.blocking import Loop


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


def test_with_its_loop_its_connections_are_closed(server: Apiserver) -> None:
    gc.disable()  # which would close them, too, some day
    try:
        with access(server):
            assert server.connected() > 0
        soon(lambda: server.connected() == 0, "every connection to be closed", 2)
    finally:
        gc.enable()


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
