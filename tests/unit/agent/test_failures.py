"""The network, the API server and the clock fail as they do; the access is neither lost nor forgotten."""

from __future__ import annotations

import errno
import functools
import itertools
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

import valetkey
from tests.unit.agent.agents import access, entries, soon
from tests.unit.agent.apiserver import Apiserver, serving
from valetkey.agent import life, upkeep
from valetkey.agent.volume import Volume


def test_an_api_server_that_is_away_is_waited_for(server: Apiserver) -> None:
    server.away()
    threading.Timer(0.5, server.back).start()
    with access(server) as grant:
        assert grant.token()
    assert server.outcome() == "Succeeded"


def test_an_api_server_that_stays_away_is_unreachable(server: Apiserver) -> None:
    server.away()
    with (
        pytest.raises(valetkey.Unreachable, match=r"no answer within 0.5 s: POST .*[Cc]onnect"),
        access(server, timeout=0.5),
    ):
        pass


def test_a_server_that_the_pods_authority_does_not_vouch_for_hears_no_token(
    server: Apiserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    with serving(folder) as stranger:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(stranger.port))
        with pytest.raises(valetkey.Unreachable, match="certificate"), access(server, timeout=0.5):
            pass
        assert stranger.calls == []


def test_a_server_of_another_name_hears_no_token(server: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    with pytest.raises(valetkey.Unreachable, match="certificate"), access(server, timeout=0.5):
        pass
    assert server.calls == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_api_server_is_asked_again(server: Apiserver, status: int) -> None:
    server.faults["POST"] += [status, status]
    with access(server) as grant:
        assert grant.token()
    assert len(server.made("POST")) == 3


def test_the_api_server_says_when_to_come_back(server: Apiserver) -> None:
    server.faults["POST"].append(web.Response(status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    with access(server):
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_what_the_api_server_refuses_is_not_asked_again(server: Apiserver, status: int) -> None:
    server.faults["POST"].append(status)
    with pytest.raises(valetkey.Refused, match=f"the server says {status}") as caught, access(server):
        pass
    assert caught.value.status == status
    assert [method for method, _, _ in server.calls] == ["POST"]
    assert entries() == []


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (403, 'cannot create resource "accessrequests" in API group', "bind the ClusterRole valetkey-requester"),
        (403, 'admission webhook "x" denied the request', None),
        (404, "the server could not find the requested resource", "is valetkey installed here?"),
    ],
)
def test_what_the_cluster_lacks_is_said(server: Apiserver, status: int, message: str, advice: str | None) -> None:
    reason = {403: "Forbidden", 404: "NotFound"}[status]
    body = {"kind": "Status", "code": status, "reason": reason, "message": message}
    server.faults["POST"].append(web.json_response(body, status=status))
    with pytest.raises(valetkey.Refused) as caught, access(server):
        pass
    assert message in str(caught.value)
    assert (advice in str(caught.value)) if advice is not None else str(caught.value).endswith(message)


def test_an_answer_that_was_lost_makes_no_second_request(server: Apiserver) -> None:
    server.faults["POST"].append("lost")
    with access(server) as grant:
        assert grant.name == server.only()["metadata"]["name"]
        assert len(server.made("POST")) == 2
    assert server.outcome() == "Succeeded"


def test_a_token_that_was_rotated_is_read_again(server: Apiserver) -> None:
    with access(server):
        server.put_token("t-2")
        server.tokens = {"t-2"}
    assert server.outcome() == "Succeeded"
    with access(server, objective="another") as grant:
        assert server.requests[grant.name]["spec"]["requester"]["credentialID"] == "JTI=t-2"


def test_a_token_that_is_rotated_on_the_way_is_read_once_more(server: Apiserver) -> None:
    server.faults["POST"].append(401)
    with access(server) as grant:
        assert grant.token()
    server.faults["POST"] += [401, 401]
    with pytest.raises(valetkey.Refused, match="401"), access(server):
        pass


def test_a_watch_that_breaks_is_taken_up_where_it_was(server: Apiserver) -> None:
    server.decides = server.nothing

    def happen() -> None:
        soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a watch")
        server.cut_watches()
        server.grant(server.names[0])

    threading.Thread(target=happen).start()
    with access(server) as grant:
        assert grant.token() == "granted-1"
        assert not any(m == "GET" for m, _, _ in server.calls)


def test_what_the_api_server_has_forgotten_is_read_anew(server: Apiserver) -> None:
    with access(server) as grant:
        soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a watch")
        server.cut_watches(forget=True)
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")
        assert any(m == "GET" for m, _, _ in server.calls)


def test_a_request_that_went_while_nobody_looked_has_ended(server: Apiserver) -> None:
    with access(server) as grant:
        soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a watch")
        server.faults["WATCH"] += [503] * 3
        server.cut_watches(forget=True)
        server.delete(grant.name)
        soon(lambda: grant.ended, "the end")
        assert grant.ended is not None
        assert grant.ended.reason == "RequestDeleted"


def test_another_request_of_the_same_name_is_not_this_one(server: Apiserver) -> None:
    with access(server) as grant:
        server.change(grant.name, lambda request: request["metadata"].update(uid=str(uuid.uuid4())))
        soon(lambda: grant.ended, "the end")
        assert grant.ended is not None
        assert grant.ended.reason == "RequestDeleted"
    assert server.outcome() is None


def test_an_older_renewal_that_found_no_room_is_not_put_over_the_newest(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_FIRST_PAUSE", 0.05)
    written: list[str] = []
    tried: list[str] = []
    full = threading.Event()

    def write(volume: Volume, files: dict[str, str]) -> None:
        tried.append(files["token"])
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(files["token"])

    monkeypatch.setattr(Volume, "write", write)
    with access(server) as grant:
        full.set()
        for number in (2, 3):
            server.grant(grant.name, token=f"granted-{number}", sequence=number)
            soon(functools.partial(lambda token: token in tried, f"granted-{number}"), "the renewal")
        full.clear()
        soon(lambda: "granted-3" in written, "the newest")
        time.sleep(0.5)
    assert written == ["granted-1", "granted-3"]


def test_an_api_server_that_is_away_for_a_while_costs_a_live_access_nothing(server: Apiserver) -> None:
    with access(server) as grant:
        server.away()
        assert grant.token() == "granted-1"
        server.back()
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")
    assert server.outcome() == "Succeeded"


def test_a_watch_that_is_refused_while_the_access_lives_is_tried_again(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_LOOK_AGAIN", 0.1)
    with access(server) as grant:
        soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a watch")
        server.faults["WATCH"].append(403)
        server.cut_watches()
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")


def test_the_end_is_said_again_until_it_is_heard(server: Apiserver) -> None:
    server.faults["PATCH"] += [500, 503, "lost"]
    with access(server):
        pass
    assert len(server.made("PATCH")) == 4
    assert server.outcome() == "Succeeded"
    assert entries() == []


def test_an_end_that_nobody_hears_does_not_hold_up_the_program_and_is_left_for_the_next(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(life, "_REPORT_FOR", 0.5)
    with access(server) as grant:
        server.away()
    assert f"{grant.name}: for 0.5 s the API server has not heard" in caplog.text
    (entry,) = entries()
    assert not (entry / "key").exists()
    assert not (entry / "files").exists()
    server.back()
    with access(server) as second:
        assert second.name != grant.name
    assert server.outcome(grant.name) == "Succeeded"


def test_the_end_is_said_where_the_watch_has_failed(server: Apiserver) -> None:
    server.faults["WATCH"] += [403]
    server.decides = server.nothing
    with pytest.raises(valetkey.Refused, match="403"), access(server):
        pass
    assert server.outcome() == "Cancelled"


def test_clocks_that_differ_do_not_matter(server: Apiserver) -> None:
    server.stamps_are_late_by = timedelta(minutes=7)
    with access(server) as grant:
        assert grant.token()
        assert grant.expires_at is not None
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")
    assert server.outcome() == "Succeeded"


def test_a_clock_of_the_pod_that_jumps_does_not_matter(server: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 120)
    with access(server, timeout=5) as grant:
        monkeypatch.setattr(time, "time", lambda: right() - 120)
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")
    assert server.outcome() == "Succeeded"


def test_a_policy_that_wants_to_hear_a_heart_hears_it(server: Apiserver) -> None:
    def decides(name: str) -> None:
        server.change(name, lambda r: r.setdefault("status", {}).update(heartbeat={"within": "300ms"}))
        server.grant(name)

    server.decides = decides
    with access(server) as grant:
        beats: list[int] = []

        def grows() -> bool:
            said = server.requests[grant.name]["metadata"].get("annotations", {}).get("valetkey.dev/heartbeat")
            beats.extend([int(said)] if said and int(said) not in beats else [])
            return len(beats) >= 3

        soon(grows, "three beats")
        assert beats == sorted(beats)
        server.say(grant.name, "Finished", "True", "PolicyChanged")
        soon(lambda: grant.ended, "the end")
        count = len(server.made("PATCH"))
        time.sleep(0.3)
        assert len(server.made("PATCH")) == count


def test_a_beat_that_is_not_heard_is_said_again_in_time(server: Apiserver) -> None:
    def decides(name: str) -> None:
        server.change(name, lambda r: r.setdefault("status", {}).update(heartbeat={"within": "1500ms"}))
        server.grant(name)

    server.decides = decides
    heard: list[float] = []

    def beat(name: str) -> bool:
        said = server.requests[name]["metadata"].get("annotations", {}).get("valetkey.dev/heartbeat")
        if said is not None and int(said) > len(heard):
            heard.append(time.monotonic())
        return len(heard) >= 3

    with access(server) as grant:
        soon(lambda: beat(grant.name) or len(heard) >= 1, "the first beat")
        server.faults["PATCH"] += [503, 503]
        soon(lambda: beat(grant.name), "two more")
    assert max(later - sooner for sooner, later in itertools.pairwise(heard)) < 1.5


def test_beats_come_after_a_third_of_what_the_policy_allows(server: Apiserver) -> None:
    def decides(name: str) -> None:
        server.change(name, lambda r: r.setdefault("status", {}).update(heartbeat={"within": "3s"}))
        server.grant(name)

    server.decides = decides
    with access(server):
        heard = [time.monotonic()]
        for number in (1, 2):
            soon(functools.partial(lambda count: len(server.made("PATCH")) >= count, number), f"beat {number}")
            heard.append(time.monotonic())
    assert all(0.5 < later - sooner < 2 for sooner, later in itertools.pairwise(heard)), heard


def test_without_such_a_policy_nothing_beats(server: Apiserver) -> None:
    with access(server):
        time.sleep(0.3)
        assert server.made("PATCH") == []
