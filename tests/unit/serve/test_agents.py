"""The door: pods ask by their tokens, over HTTP, and are told what becomes of it; nobody else is."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.cluster.api import Json, merged, until
from tests.unit.controller.test_listener import free
from tests.unit.serve.plane import Plane, client_of, user
from valetkey import door as listener
from valetkey.door import Door
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.serve.agents import TERMS, Agents
from valetkey.serve.pace import BURST, WAITING, Pace
from valetkey.serve.pods import LIMITS, pods
from valetkey.serve.requests import Requests
from valetkey.serve.reviews import BusyError, Limits, Reviews

ALL = "/v1/accessrequests"
READY = {"type": "Ready", "status": "True", "reason": "AccessDelivered", "message": "it is there"}
WAITS = {"type": "Approved", "status": "Unknown", "reason": "AwaitingApproval", "message": "people are asked"}
DENIAL = {
    "reason": "TTLTooLong",
    "message": "ask for less",
    "field": "spec.ttl",
    "allowed": "ttl: 15m",
    "retryAfter": "1h",
    "contact": "#shop",
}


def over(reason: str, message: str = "over") -> Json:
    return {"type": "Finished", "status": "True", "reason": reason, "message": message}


def key() -> str:
    return base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()


def asks(**change: Any) -> Json:
    """What an agent sends."""
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}
    spec = {
        "task": {"id": "run-1", "objective": "Restart checkout", "purpose": "remediation"},
        "access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}},
    }
    return merged({"spec": spec}, change)


@dataclass(frozen=True)
class Told:
    """What somebody was answered."""

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return str(self.body["error"]["reason"])

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


@dataclass(frozen=True)
class Served:
    """The door, and the API server behind it."""

    plane: Plane
    port: int
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, *, token: str | None = "one") -> Told:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = body if body is None or not isinstance(body, dict | list) else json.dumps(body)
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return Told(answer.status, await answer.json(), dict(answer.headers))

    async def ask(self, body: Json, *, wait: float = 5, **more: Any) -> Told:
        return await self.call("POST", f"{ALL}?wait={wait}", body, **more)

    async def asked(self, name: str, **more: Any) -> Json:
        """A request of pod one that is there."""
        told = await self.ask(asks(name=name, **more), wait=0)
        assert told.status == 202, told
        return self.plane.objects["agents", name]

    async def is_waited_for(self, calls: int = 1) -> None:
        async def watching() -> bool:
            return self.plane.watching == calls

        await until(watching, f"{calls} calls to wait", seconds=5)


@asynccontextmanager
async def serving(plane: Plane | None = None, pace: Pace | None = None) -> AsyncIterator[Served]:
    """The door, in the clear."""
    plane, port = plane or Plane(), free()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of(plane))
        agents = Agents(pods(client), Requests(client), ("agents", "agents-b"), pace)
        task = asyncio.create_task(Door(agents.answer, TERMS).serve("127.0.0.1", port, setting="door.port"))
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))

        async def open_yet() -> bool:
            with suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return True
            return False

        await until(open_yet, "the door to be open", seconds=5)
        yield Served(plane, port, session)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


# -- what becomes of it ----------------------------------------------------------------------------------------------


async def test_who_asks_is_answered_the_moment_that_it_is_granted_with_what_opens_it(served: Served) -> None:
    sealed = {"ciphertext": "AAAA", "sequence": 1}
    asking = asyncio.create_task(served.ask(asks(name="fix"), wait=30))
    await served.is_waited_for()
    await served.plane.say("fix", conditions=[WAITS])
    await asyncio.sleep(0.05)
    assert not asking.done(), "nothing is decided yet"
    status = {"conditions": [READY], "grant": {"name": "fix", "uid": "g"}, "delivery": {"sealed": sealed}}
    made = await served.plane.say("fix", **status)
    told = await asyncio.wait_for(asking, 5)
    assert told.status == 200
    assert told.body == {
        "name": "fix",
        "uid": made["metadata"]["uid"],
        "version": made["metadata"]["resourceVersion"],
        "subject": {"podUID": "uid-one"},
        "spec": {"delivery": made["spec"]["delivery"]},
        "status": status,
    }
    await served.is_waited_for(0)  # nothing is watched for nobody


async def test_it_asks_for_the_pod_whose_token_it_was_shown_and_for_no_other(served: Served) -> None:
    said: Json = {
        "ttl": "300s",
        "delivery": {"sealed": {"publicKey": key()}},
        "parent": {"namespace": "agents", "name": "plan", "uid": "u-1"},
        "delegation": {"to": [{"namespace": "agents", "serviceAccount": "worker"}], "maxDepth": 1},
    }
    assert (await served.ask(asks(spec=said), wait=0)).status == 202
    (made,) = served.plane.made()
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "one", "uid": "uid-one"}]
    assert made["metadata"].keys() == {"name", "ownerReferences"}
    spec = RequestSpec.model_validate(made["spec"])
    assert spec.requester.model_dump(by_alias=True) == {
        "username": "system:serviceaccount:agents:fixer",
        "serviceAccount": "fixer",
        "podName": "one",
        "podUID": "uid-one",
        "nodeName": "node-1",
        "credentialID": "JTI=one",
        "via": "Door",
    }
    assert not spec.for_another
    assert spec.ttl == timedelta(minutes=5)
    assert {name: made["spec"][name] for name in ("delivery", "parent", "delegation")} == {
        name: value for name, value in said.items() if name != "ttl"
    }


async def test_what_is_not_decided_in_time_has_a_handle_and_is_looked_at_again_there(served: Served) -> None:
    told = await served.ask(asks(name="fix"), wait=0.1)
    assert (told.status, told.headers["Location"], told.headers["Retry-After"]) == (202, f"{ALL}/fix", "1")
    await served.plane.say("fix", conditions=[WAITS])
    looked = await served.call("GET", f"{told.headers['Location']}?wait=0")
    assert (looked.status, looked.body["status"]["conditions"]) == (202, [WAITS])
    looking = asyncio.create_task(served.call("GET", f"{ALL}/fix?wait=30"))
    await served.is_waited_for()
    await served.plane.say("fix", conditions=[READY])
    assert (await asyncio.wait_for(looking, 5)).status == 200


async def test_a_denial_says_what_would_pass(served: Served) -> None:
    asking = asyncio.create_task(served.ask(asks(name="fix")))
    await served.is_waited_for()
    decision = {"id": "1", "outcome": "Denied", "denial": DENIAL}
    await served.plane.say("fix", conditions=[over("RequestDenied")], decision=decision)
    told = await asking
    assert told.status == 403
    assert told.body["error"] == DENIAL
    assert told.body["status"]["decision"] == decision


@pytest.mark.parametrize("ended", [{"type": "Ready", "status": "False", "reason": "AccessEnded", "message": ""}, READY])
async def test_what_has_ended_says_why(served: Served, ended: Json) -> None:
    await served.asked("fix")
    await served.plane.say("fix", conditions=[ended, over("TTLReached", "its time is over")])
    told = await served.call("GET", f"{ALL}/fix")
    assert told.status == 403
    assert told.body["error"] == {"reason": "TTLReached", "message": "its time is over"}


async def test_after_a_version_the_next_one_is_waited_for_be_it_a_renewal_or_the_end(served: Served) -> None:
    await served.asked("fix")
    await served.plane.say("fix", conditions=[READY], delivery={"sealed": {"ciphertext": "A", "sequence": 1}})
    first = await served.call("GET", f"{ALL}/fix")
    same = await served.call("GET", f"{ALL}/fix?wait=0.1&after={first.body['version']}")
    assert (same.status, same.body) == (200, first.body)
    looking = asyncio.create_task(served.call("GET", f"{ALL}/fix?wait=30&after={first.body['version']}"))
    await served.is_waited_for()
    await served.plane.say("fix", delivery={"sealed": {"ciphertext": "B", "sequence": 2}})
    second = await asyncio.wait_for(looking, 5)
    assert (second.status, second.body["status"]["delivery"]["sealed"]["sequence"]) == (200, 2)
    missed = await served.call("GET", f"{ALL}/fix?wait=30&after={first.body['version']}")
    assert missed.body == second.body, "what has changed already is not waited for"
    looking = asyncio.create_task(served.call("GET", f"{ALL}/fix?wait=30&after={second.body['version']}"))
    await served.is_waited_for()
    await served.plane.say("fix", conditions=[over("PolicyChanged")])
    assert (await asyncio.wait_for(looking, 5)).reason == "PolicyChanged"


async def test_a_watch_that_breaks_is_taken_up_again_and_nothing_is_missed(served: Served) -> None:
    asking = asyncio.create_task(served.ask(asks(name="fix"), wait=30))
    await served.is_waited_for()
    assert served.plane.cut() == 1
    await served.is_waited_for()
    served.plane.away = True
    served.plane.cut()
    await served.plane.say("fix", conditions=[READY])  # while nobody could see it
    await asyncio.sleep(0.3)
    served.plane.away = False
    assert (await asyncio.wait_for(asking, 10)).status == 200


async def test_where_the_api_server_goes_away_for_good_the_handle_is_given_all_the_same(served: Served) -> None:
    asking = asyncio.create_task(served.ask(asks(name="fix"), wait=1))
    await served.is_waited_for()
    served.plane.away = True
    served.plane.cut()
    told = await asking
    assert (told.status, told.headers["Location"]) == (202, f"{ALL}/fix")


@pytest.mark.parametrize("again", [False, True])
async def test_a_request_that_goes_while_it_is_waited_for_is_not_there(served: Served, again: bool) -> None:
    asking = asyncio.create_task(served.ask(asks(name="fix"), wait=30))
    await served.is_waited_for()
    was = served.plane.objects["agents", "fix"]
    if again:  # another pod is quicker
        served.plane.away = True
        served.plane.cut()
        await served.plane.delete("fix")
        requester = {"podUID": "uid-two"}
        await served.plane.add(
            "fix", merged(was, {"spec": {"requester": requester}, "status": {"conditions": [READY]}})
        )
        served.plane.away = False
    else:
        await served.plane.delete("fix")
    told = await asyncio.wait_for(asking, 5)
    assert (told.status, told.reason) == (404, "NotFound")


# -- the same again --------------------------------------------------------------------------------------------------


async def test_who_asks_the_same_again_under_its_name_has_asked_once(served: Served) -> None:
    body = asks(name="fix", spec={"ttl": "5m", "delivery": {"sealed": {"publicKey": key()}}})
    first = await served.ask(body, wait=0)
    served.plane.users["renewed"] = user("one", {"credential-id": ["JTI=2"]})
    again = await served.ask(merged(body, {"spec": {"ttl": "300s"}}), wait=0, token="renewed")
    assert (again.status, again.body["uid"]) == (202, first.body["uid"])
    await served.plane.say("fix", conditions=[READY])
    assert (await served.ask(body)).status == 200
    await served.plane.say("fix", conditions=[over("TaskReleased")])
    assert (await served.ask(body)).reason == "TaskReleased"


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"ttl": "6m"}},
        {"spec": {"task": {"objective": "Another"}}},
        {"spec": {"delivery": {"sealed": {"publicKey": key()}}}},
    ],
    ids=str,
)
async def test_a_name_is_taken_where_something_else_is_asked(served: Served, change: Json) -> None:
    asked_before: Json = {"spec": {"ttl": "5m", "delivery": {"sealed": {"publicKey": key()}}}}
    await served.asked("fix", **asked_before)
    body = asks(name="fix", spec=asked_before["spec"])
    told = await served.ask(merged(body, change))
    assert (told.status, told.reason) == (409, "AlreadyExists")


@pytest.mark.parametrize("change", [{"requester": {"podUID": "uid-two"}}, {"requester": {"via": "API"}}], ids=str)
async def test_a_name_is_taken_where_somebody_else_has_asked_the_same(served: Served, change: Json) -> None:
    await served.asked("fix")
    await served.plane.write("fix", {"spec": change, "status": {"conditions": [READY]}})
    told = await served.ask(asks(name="fix"))
    assert (told.status, told.reason, set(told.body)) == (409, "AlreadyExists", {"error"})


# -- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"requester": {"podUID": "uid-two"}}, {"requester": {"via": "API"}}], ids=["another's", "not the door's"]
)
async def test_what_the_door_did_not_make_for_this_pod_is_not_there_for_it(served: Served, change: Json) -> None:
    await served.asked("fix")
    await served.plane.write("fix", {"spec": change, "status": {"conditions": [READY]}})
    before = served.plane.objects["agents", "fix"]
    for method, body in (("GET", None), ("PATCH", {"outcome": "Failed"}), ("PATCH", {"heartbeat": "1"})):
        told = await served.call(method, f"{ALL}/fix", body)
        assert (told.status, set(told.body)) == (404, {"error"})
    assert served.plane.objects["agents", "fix"] == before
    assert (await served.call("GET", f"{ALL}/none")).status == 404


async def test_the_pod_says_how_it_ended_and_that_it_still_works(served: Served) -> None:
    await served.asked("fix")
    beaten = await served.call("PATCH", f"{ALL}/fix", {"heartbeat": "7"})
    now = served.plane.objects["agents", "fix"]
    assert now["metadata"]["annotations"] == {"valetkey.dev/heartbeat": "7"}
    assert (beaten.status, beaten.body["version"]) == (200, now["metadata"]["resourceVersion"])
    assert (await served.call("PATCH", f"{ALL}/fix", {"outcome": "Succeeded"})).status == 200
    assert served.plane.objects["agents", "fix"]["spec"]["outcome"] == "Succeeded"


async def test_what_was_made_anew_under_the_name_meanwhile_is_not_changed(served: Served) -> None:
    await served.asked("fix")
    patches = [body for method, _, body in served.plane.asked if method == "PATCH"]
    assert patches == []
    await served.call("PATCH", f"{ALL}/fix", {"outcome": "Failed"})
    (patch,) = [body for method, _, body in served.plane.asked if method == "PATCH"]
    assert patch == {
        "metadata": {"uid": served.plane.objects["agents", "fix"]["metadata"]["uid"]},
        "spec": {"outcome": "Failed"},
    }


UNKNOWN: dict[str, Json | None] = {
    "nobody": None,
    "no pod's": user("one", {"pod-name": None, "pod-uid": None, "node-name": None}),
    "of two pods": user("one", {"pod-uid": ["a", "b"]}),
    "without its id": user("one", {"credential-id": None}),
    "on no node": user("one", {"node-name": []}),
    "a person's": user("one") | {"username": "ann"},
    "of no account": user("one") | {"username": "system:serviceaccount:agents:"},
    "without proofs": {"username": "system:serviceaccount:agents:fixer"},
}


@pytest.mark.parametrize("whose", UNKNOWN)
async def test_a_token_that_is_no_pods_asks_nothing(served: Served, whose: str) -> None:
    told_of = UNKNOWN[whose]
    if told_of is not None:
        served.plane.users["other"] = told_of
    for method, path, body in (("POST", ALL, asks()), ("GET", f"{ALL}/fix", None), ("GET", "/", None)):
        told = await served.call(method, path, body, token="other")
        assert (told.status, told.reason, told.headers["Connection"]) == (401, "Unauthorized", "close")
        assert "audience valetkey" in told.message
    assert served.plane.made() == []


async def test_a_token_for_another_audience_asks_nothing(served: Served) -> None:
    served.plane.audience = "https://kubernetes.default.svc"
    assert (await served.ask(asks())).status == 401
    for header in ("", "Bearer ", "Bearer", "Basic one", "one"):
        async with served.session.post(ALL, data=b"{}", headers={"Authorization": header}) as answer:
            assert answer.status == 401
    assert served.plane.made() == []


async def test_a_pod_of_a_namespace_that_is_not_served_is_told_so(served: Served) -> None:
    served.plane.users["stranger"] = user("s", namespace="elsewhere")
    told = await served.ask(asks(), token="stranger")
    assert (told.status, told.reason) == (403, "NamespaceNotServed")
    assert served.plane.made() == []
    served.plane.users["neighbour"] = user("n", namespace="agents-b")
    await served.ask(asks(name="fix"), wait=0, token="neighbour")
    assert list(served.plane.objects) == [("agents-b", "fix")]


async def test_guesses_leave_room_for_tokens_that_are_known_and_are_seldom_asked_about() -> None:
    now, plane = 100.0, Plane()
    async with client_of(plane) as client:
        known = pods(client, clock=lambda: now)
        assert await known.holder("one") is not None
        for second in range(1, 15):
            now = 100.0 + second
            for place in range(LIMITS.each_second):
                with suppress(BusyError):
                    assert await known.holder(f"guess-{second}-{place}") is None
            assert await known.holder("one") is not None
        reviewed = [body["spec"]["token"] for _, path, body in plane.asked if path.endswith("tokenreviews")]
        assert len(reviewed) <= 15 * LIMITS.each_second
        assert reviewed.count("one") == 2, "once in ten seconds"
        with pytest.raises(BusyError):
            await known.holder("one-more")


async def test_what_only_looks_like_another_token_is_nobodys_and_is_not_asked_about() -> None:
    plane = Plane()
    signed = "e30.e30.c2ln"
    async with client_of(plane) as client:
        known = pods(client)
        for token in ("one 1", "one\t", "one\n1", "e30.e30.c2lh\u00e9", "e30.e30.c2lnQ", f"{signed} 1"):
            assert await known.holder(token) is None
    assert plane.asked == []


async def test_a_token_that_comes_many_times_at_once_is_asked_about_once() -> None:
    plane = Plane()
    async with client_of(plane) as client:
        known = pods(client)
        found = await asyncio.gather(*(known.holder("one") for _ in range(150)))
    assert all(one is not None and one == found[0] for one in found)
    assert len(plane.asked) == 1


async def test_no_more_tokens_are_remembered_than_there_is_room_for() -> None:
    now, plane = 100.0, Plane()
    async with client_of(plane) as client:
        limits = Limits(each_second=100, for_known_ones=0, remembered=3)
        known: Reviews[str] = Reviews(
            client, audience="valetkey", judge=lambda *_: None, limits=limits, clock=lambda: now
        )
        for token in "abcda":
            await known.holder(token)
        asked = [body["spec"]["token"] for _, _, body in plane.asked]
        assert asked == list("abcda"), "the first was forgotten"


# -- what is no request ----------------------------------------------------------------------------------------------

BODIES: dict[str, tuple[Any, str]] = {
    "subject": (asks(spec={"subject": {"podName": "two", "podUID": "uid-two"}}), "spec.subject: it is the pod"),
    "requester": (asks(spec={"requester": {"podName": "two"}}), "spec.requester: it is the pod"),
    "outcome": (asks(spec={"outcome": "Failed"}), "spec.outcome: it is said when the task is over"),
    "metadata": (asks(metadata={"labels": {"a": "b"}}), "metadata: there is no such field"),
    "status": (asks(status={"conditions": [READY]}), "status: there is no such field"),
    "unknown": (asks(spec={"acess": {}}), "spec.acess: there is no such field"),
    "deep inside": (asks(spec={"task": {"objectve": "a"}}), "spec.task.objectve: there is no such field"),
    "no task": (asks(spec={"task": None}), "spec.task: "),
    "no spec": ({}, "spec: Field required"),
    "ttl": (asks(spec={"ttl": "soon"}), "spec.ttl: "),
    "key": (asks(spec={"delivery": {"sealed": {"publicKey": "short"}}}), "spec.delivery.sealed.publicKey: "),
    "name": (asks(name="../secrets"), "name: "),
    "a list": ([], "the body is a JSON object"),
    "no JSON": ("{", "the body is not JSON"),
    "no text": (b"\xff\xfe", "the body is not JSON"),
    "nothing": ("", "the body is not JSON"),
    "too deep": ('{"spec":' + "[" * 500 + "]" * 500 + "}", "the body is not JSON"),
    "far too deep": ("[" * 30_000, "the body is not JSON"),
    "half a letter": ('{"name": "\\ud800"}', "the body is not JSON"),
}


@pytest.mark.parametrize("body", BODIES)
async def test_what_is_wrong_with_a_body_is_said_and_where(served: Served, body: str) -> None:
    sent, message = BODIES[body]
    told = await served.ask(sent)
    assert told.status == 400, told
    assert message in told.message
    assert served.plane.made() == []


@pytest.mark.parametrize(
    "body",
    [{}, {"outcome": "Succeeded", "heartbeat": "1"}, {"outcome": "Done"}, {"heartbeat": ""}, {"spec": {}}],
    ids=str,
)
async def test_a_change_is_an_outcome_or_a_heartbeat_and_nothing_else(served: Served, body: Json) -> None:
    await served.asked("fix")
    before = served.plane.objects["agents", "fix"]
    assert (await served.call("PATCH", f"{ALL}/fix", body)).status == 400
    assert (await served.call("PATCH", f"{ALL}/fix", {"heartbeat": "x" * 65})).status == 400
    assert served.plane.objects["agents", "fix"] == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", f"{ALL}/", 404),
        ("GET", f"{ALL}/a/b", 404),
        ("GET", f"{ALL}/..", 404),
        ("GET", f"{ALL}/%2e%2e", 404),
        ("GET", f"{ALL}/A", 404),
        ("GET", f"{ALL}/{'a' * 254}", 404),
        ("GET", ALL, 405),
        ("POST", f"{ALL}/fix", 405),
        ("PUT", ALL, 405),
        ("DELETE", f"{ALL}/fix", 405),
        ("GET", f"{ALL}/fix?wait=31", 400),
        ("GET", f"{ALL}/fix?wait=-1", 400),
        ("GET", f"{ALL}/fix?wait=nan", 400),
        ("GET", f"{ALL}/fix?wait=soon", 400),
        ("GET", f"{ALL}/fix?wait=1&wait=2", 400),
        ("GET", f"{ALL}/fix?until=1", 400),
        ("GET", f"{ALL}/fix?wait", 400),
        ("POST", f"{ALL}?after=1", 400),
        ("PATCH", f"{ALL}/fix?wait=1", 400),
    ],
)
async def test_there_are_three_calls_and_no_others(served: Served, method: str, path: str, status: int) -> None:
    from yarl import URL

    headers = {"Authorization": "Bearer one"}
    where = URL(f"http://127.0.0.1:{served.port}{path}", encoded=True)
    async with served.session.request(
        method, where, headers=headers, data=b"{}" if method != "GET" else None
    ) as answer:
        told = await answer.json()
        assert (answer.status, set(told), set(told["error"])) == (status, {"error"}, {"reason", "message"})
        assert ("Allow" in answer.headers) == (status == 405)
    assert served.plane.made() == []


async def test_a_body_is_not_too_large_nor_in_chunks_nor_slow(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    large = await served.ask(asks(spec={"task": {"objective": "x" * (64 << 10)}}))
    assert (large.status, large.reason) == (413, "TooLarge")

    async def parts() -> AsyncIterator[bytes]:
        yield json.dumps(asks()).encode()

    chunked = await served.call("POST", ALL, parts())
    assert (chunked.status, chunked.reason) == (411, "LengthRequired")
    monkeypatch.setattr(listener, "PATIENCE", timedelta(seconds=0.3))
    for sent in (b"POST /v1/acc", b"POST /v1/accessrequests HTTP/1.1\r\nAuthorization: Bearer one\r\n"):
        assert b" 408 " in await said(served.port, sent)
    head = b"POST /v1/accessrequests HTTP/1.1\r\nAuthorization: Bearer one\r\nContent-Length: 100\r\n\r\n"
    assert b'"reason":"TooSlow"' in await said(served.port, head + b"{")
    assert served.plane.made() == []


async def said(port: int, sent: bytes) -> bytes:
    """What comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_a_body_is_read_of_nobody_who_may_not_ask(served: Served) -> None:
    head = "POST /v1/accessrequests HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\n"
    assert b" 401 " in await said(served.port, head.format("unknown").encode())
    served.plane.users["stranger"] = user("s", namespace="elsewhere")
    assert b"NamespaceNotServed" in await said(served.port, head.format("stranger").encode())


# -- what the API server says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusing", "status", "message"),
    [
        ((403, "Forbidden", "ValidatingAdmissionPolicy 'x' says no"), 403, "ValidatingAdmissionPolicy 'x' says no"),
        ((422, "Invalid", "spec.ttl: at least 1s"), 400, "spec.ttl: at least 1s"),
        ((413, "RequestEntityTooLarge", "internal"), 413, "too large"),
        ((429, "TooManyRequests", "internal"), 429, "busy"),
        ((500, "InternalError", "etcd is at 10.0.0.1"), 503, "ask again, under the same name"),
        ((401, "Unauthorized", "the door's own token"), 503, "ask again"),
        ((404, "NotFound", "no such kind"), 503, "ask again"),
    ],
    ids=str,
)
async def test_a_refusal_of_the_api_servers_is_passed_on_and_a_failure_may_be_tried_again(
    served: Served, refusing: tuple[int, str, str], status: int, message: str
) -> None:
    served.plane.refusing = refusing
    told = await served.ask(asks(name="fix"))
    assert told.status == status
    assert message in told.message
    assert ("Retry-After" in told.headers) == (status in (429, 503))
    if status not in (400, 403):
        assert refusing[2] not in told.message


async def test_where_the_api_server_is_away_it_is_said_to_be_and_a_known_token_is_still_known(served: Served) -> None:
    served.plane.away = True
    told = await served.ask(asks())
    assert (told.status, told.reason, told.headers["Retry-After"]) == (503, "Unavailable", "1")
    assert "whose token" in told.message
    served.plane.away = False
    await served.asked("fix")
    served.plane.away = True
    for method, path, body in (
        ("POST", ALL, asks()),
        ("GET", f"{ALL}/fix", None),
        ("PATCH", f"{ALL}/fix", {"heartbeat": "1"}),
    ):
        told = await served.call(method, path, body)
        assert (told.status, told.headers["Retry-After"]) == (503, "1")


# -- one pod's share -------------------------------------------------------------------------------------------------


async def test_a_pod_that_calls_without_pause_is_slowed_and_keeps_no_other_from_being_heard() -> None:
    now = 100.0
    async with serving(pace=Pace(clock=lambda: now)) as served:
        for _ in range(int(BURST)):
            assert (await served.call("GET", f"{ALL}/none")).status == 404
        told = await served.call("GET", f"{ALL}/none")
        assert (told.status, told.reason, told.headers["Retry-After"]) == (429, "TooManyRequests", "1")
        assert (await served.call("GET", f"{ALL}/none", token="two")).status == 404
        now += 0.5
        answers = [(await served.call("GET", f"{ALL}/none")).status for _ in range(11)]
        assert answers == [404] * 10 + [429]


def test_pods_that_were_not_heard_of_for_long_are_forgotten() -> None:
    pace = Pace(clock=lambda: 100.0)
    for number in range(10_000):
        pace.call(f"pod-{number}")
        with pace.wait(f"pod-{number}"):
            pass
    assert len(pace._left) <= 4096
    assert not pace._waiting


async def test_a_few_calls_of_a_pod_wait_at_once_and_who_goes_makes_room(served: Served) -> None:
    waiting = [asyncio.create_task(served.ask(asks(name=f"fix-{n}"), wait=30)) for n in range(WAITING)]
    await served.is_waited_for(WAITING)
    made = await served.ask(asks(name="one-more"), wait=30)
    assert made.status == 202, "it is made all the same, and can be looked at"
    told = await served.call("GET", f"{ALL}/one-more?wait=30")
    assert (told.status, told.reason) == (429, "TooManyRequests")
    assert (await served.ask(asks(name="not-waiting"), wait=0)).status == 202
    other = asyncio.create_task(served.ask(asks(name="other"), wait=30, token="two"))
    await served.is_waited_for(WAITING + 1)
    for task in (*waiting, other):
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)


# -- what nobody sees ------------------------------------------------------------------------------------------------


async def test_no_token_is_in_any_line_or_answer(caplog: pytest.LogCaptureFixture) -> None:
    hidden, plane = "correct-horse-battery-staple", Plane()
    caplog.set_level(logging.DEBUG)
    plane.users[hidden] = user("one")
    answers: list[Told] = []
    async with serving(plane) as served:

        async def calls() -> None:
            answers.append(await served.ask(asks(name="fix"), wait=0, token=hidden))
            answers.append(await served.call("GET", f"{ALL}/fix?wait=0", token=hidden))
            answers.append(await served.call("PATCH", f"{ALL}/fix", {"nonsense": hidden}, token=hidden))
            answers.append(await served.call("POST", ALL, f"{{{hidden}", token=hidden))
            answers.append(await served.ask(asks(name=f"a {hidden}"), token=hidden))
            answers.append(await served.ask(asks(), wait=0, token=f"{hidden}-unknown"))

        await calls()
        plane.refusing = (500, "InternalError", hidden)
        await calls()
        plane.away = True
        await calls()
    assert {told.status for told in answers} >= {202, 400, 401, 503}
    assert all(hidden not in f"{told.body}{told.headers}" for told in answers)
    assert hidden not in caplog.text
    assert "agents/one asks: fix" in caplog.text


async def test_a_bug_is_told_to_be_one_and_the_door_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await served.asked("fix")
    broken: Callable[..., Any] = Requests.find
    monkeypatch.setattr(Requests, "find", lambda *_: 1 / 0)
    told = await served.call("GET", f"{ALL}/fix")
    assert (told.status, told.reason) == (500, "Unexpected")
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(Requests, "find", broken)
    assert (await served.call("GET", f"{ALL}/fix?wait=0")).status == 202


def test_it_loads_neither_the_controller_nor_kopf_nor_policy() -> None:
    code = """
import sys
from valetkey import __main__
sys.argv[1:] = ["serve", "--settings", "/dev/null"]
try:
    __main__.main()
except ValueError:  # it has read its settings, after all that it loads
    print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "valetkey.serve.agents" in loaded
    unwanted = (
        "kopf",
        "valetkey.controller",
        "valetkey.policy",
        "valetkey.issuers",
        "typer",
        "celpy",
        "cel_expr_python",
    )
    assert [name for name in loaded if name.startswith(unwanted)] == []
