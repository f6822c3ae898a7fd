"""The client against a server that refuses, stalls, breaks off and pages."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from valetkey.kube import client as client_module
from valetkey.kube.api import ApiError, Json, RewoundError
from valetkey.kube.client import Client
from valetkey.kube.clock import Clock
from valetkey.kube.session import TokenFile

PATH = "/api/v1/namespaces/shop/pods"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An API server that answers as a test says; it keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[tuple[web.Request, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request, await request.read()))
        return await self._answer(request)


@asynccontextmanager
async def serving(answer: Answer, *middlewares: aiohttp.ClientMiddlewareType) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        yield server, Client(session, f"http://{host}:{port}/", clock=Clock())
    await runner.cleanup()


def refusing(status: int, body: Any, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(status=status, body=content, headers=headers)

    return answer


def a_status(reason: str, message: str = "") -> Json:
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": message}


async def ok(_: web.Request) -> web.Response:
    return web.Response(body=b'{"kind":"Pod"}')


BY_POLICY = "ValidatingAdmissionPolicy 'operator-leash' with binding 'operator-leash' denied request"
REFUSALS: dict[str, tuple[int, str, str, set[str]]] = {
    "not found": (404, "NotFound", "", {"not_found"}),
    "already exists": (409, "AlreadyExists", "", {"already_exists"}),
    "conflict": (409, "Conflict", "", {"conflict"}),
    "forbidden": (403, "Forbidden", "RBAC says no", {"refused"}),
    "denied by an admission policy": (403, "Forbidden", BY_POLICY, {"refused", "denied_by_policy"}),
    "invalid by an admission policy": (422, "Invalid", BY_POLICY, {"refused", "denied_by_policy"}),
    "invalid": (422, "Invalid", "spec is missing", {"refused"}),
    "malformed": (400, "BadRequest", "", {"refused"}),
    "too large": (413, "RequestEntityTooLarge", "", {"refused"}),
    "unauthorized": (401, "Unauthorized", "", set()),
    "too many": (429, "TooManyRequests", "", set()),
    "expired": (410, "Expired", "", set()),
    "failed": (500, "InternalError", "", set()),
    "unavailable": (503, "ServiceUnavailable", "", set()),
}
KINDS = ("not_found", "already_exists", "conflict", "refused", "denied_by_policy")


@pytest.mark.parametrize(("status", "reason", "message", "kinds"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_says_what_kind_it_is(status: int, reason: str, message: str, kinds: set[str]) -> None:
    async with serving(refusing(status, a_status(reason, message))) as (_, client):
        with pytest.raises(ApiError) as refused:
            await client.create(PATH, {})
    error = refused.value
    assert (error.status, error.reason, error.message) == (status, reason, message)
    assert {kind for kind in KINDS if getattr(error, kind)} == kinds


@pytest.mark.parametrize("body", [b"", b"upstream failed", b"[]", b"\xff"])
async def test_a_refusal_that_is_no_status_keeps_its_number(body: bytes) -> None:
    async with serving(refusing(502, body)) as (_, client):
        with pytest.raises(ApiError) as refused:
            await client.get(PATH)
    assert (refused.value.status, refused.value.reason) == (502, "")


@pytest.mark.parametrize(
    ("header", "after"),
    [
        ({"Retry-After": "7"}, timedelta(seconds=7)),
        ({}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
    ],
)
async def test_a_refusal_says_when_to_come_back(header: dict[str, str], after: timedelta | None) -> None:
    async with serving(refusing(429, a_status("TooManyRequests"), **header)) as (_, client):
        with pytest.raises(ApiError) as refused:
            await client.get(PATH)
    assert refused.value.retry_after == after


async def stall(_: web.Request) -> web.Response:
    await asyncio.sleep(5)
    raise AssertionError


async def break_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def break_off_midway(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"kind"')
    return await break_off(request)


@pytest.mark.parametrize("answer", [stall, break_off, break_off_midway, refusing(200, b"<html>")])
async def test_where_there_is_no_answer_the_status_is_0(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    async with serving(answer) as (_, client):
        with pytest.raises(ApiError) as refused:
            await client.create(PATH, {"data": {"token": "c2VjcmV0"}})
    assert (refused.value.status, refused.value.reason) == (0, "NoAnswer")
    assert "c2VjcmV0" not in str(refused.value)


async def test_where_nobody_listens_the_status_is_0() -> None:
    async with serving(ok) as (_, client):
        pass
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ApiError) as refused:
            await Client(session, client._server, clock=Clock()).get(PATH)
    assert refused.value.status == 0


@pytest.mark.parametrize("verb", ["create", "replace", "patch"])
async def test_the_server_gives_up_a_write_before_the_client_does(verb: str) -> None:
    async with serving(ok) as (server, client):
        await getattr(client, verb)(PATH, {"a": 1})
    ((request, content),) = server.asked
    methods = {"create": "POST", "replace": "PUT", "patch": "PATCH"}
    assert (request.method, request.path, content) == (methods[verb], PATH, b'{"a":1}')
    assert float(request.query["timeout"].removesuffix("s")) < (client_module._TIMEOUT.total or 0)
    merge = "application/merge-patch+json"
    assert request.headers["Content-Type"] == (merge if verb == "patch" else "application/json")


async def test_a_deletion_demands_the_uid() -> None:
    async with serving(ok) as (server, client):
        assert await client.delete(f"{PATH}/one", uid="u") == {"kind": "Pod"}
    ((request, content),) = server.asked
    assert request.method == "DELETE"
    assert orjson.loads(content)["preconditions"] == {"uid": "u"}


async def test_the_deletion_of_what_is_gone_is_done() -> None:
    async with serving(refusing(404, a_status("NotFound"))) as (_, client):
        assert (await client.delete(f"{PATH}/one", uid="u"))["kind"] == "Status"


async def test_the_deletion_of_another_object_of_that_name_is_a_conflict() -> None:
    async with serving(refusing(409, a_status("Conflict"))) as (_, client):
        with pytest.raises(ApiError) as refused:
            await client.delete(f"{PATH}/one", uid="u")
    assert refused.value.conflict


async def pages(request: web.Request) -> web.Response:
    number = int(request.query.get("continue", "0"))
    metadata = {"continue": str(number + 1)} if number < 2 else {}
    return web.Response(body=orjson.dumps({"metadata": metadata, "items": [{"n": 2 * number}, {"n": 2 * number + 1}]}))


async def test_a_list_is_read_page_by_page_to_its_end() -> None:
    async with serving(pages) as (server, client):
        found = [body["n"] async for body in client.list(PATH, selector="a=b")]
    assert found == [0, 1, 2, 3, 4, 5]
    asked = [dict(request.query) for request, _ in server.asked]
    first = {"limit": "100", "labelSelector": "a=b"}
    assert asked == [first, first | {"continue": "1"}, first | {"continue": "2"}]


@pytest.mark.parametrize("metadata_only", [True, False])
async def test_a_list_may_be_of_metadata_only(metadata_only: bool) -> None:
    async with serving(pages) as (server, client):
        assert len([body async for body in client.list(PATH, metadata_only=metadata_only)]) == 6
    assert all(("PartialObjectMetadataList" in r.headers["Accept"]) == metadata_only for r, _ in server.asked)


async def test_a_page_of_nothing_is_empty() -> None:
    async def nothing(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"metadata": {}, "items": None}))  # as Kubernetes says it of metadata

    async with serving(nothing) as (_, client):
        assert not [body async for body in client.list(PATH, metadata_only=True)]


async def test_a_store_that_went_back_in_time_is_noticed() -> None:
    versions = iter(["100", "100", "250", "99"])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"metadata": {"resourceVersion": next(versions)}, "items": []}))

    async with serving(answer) as (_, client):
        for _ in range(3):
            assert not [body async for body in client.list(PATH)]
        with pytest.raises(RewoundError, match="is at version 99 and was at 250"):
            [body async for body in client.list(PATH)]


async def test_a_list_that_was_overtaken_by_another_is_no_step_back() -> None:
    versions, asked, late = iter(["100", "250"]), asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        version = next(versions)
        if version == "100":
            asked.set()
            await late.wait()
        return web.Response(body=orjson.dumps({"metadata": {"resourceVersion": version}, "items": []}))

    async def read(client: Client) -> list[Json]:
        return [body async for body in client.list(PATH)]

    async with serving(answer) as (_, client):
        slow = asyncio.create_task(read(client))
        await asked.wait()
        await read(client)
        late.set()
        assert await slow == []


async def test_an_object_as_deep_as_the_api_server_stores_it_is_read() -> None:
    async def deep(_: web.Request) -> web.Response:
        return web.Response(body=b'{"a":' * 9_900 + b"0" + b"}" * 9_900)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(12_000)  # as the operator has it
    try:
        async with serving(deep) as (_, client):
            assert "a" in await client.get(PATH)
    finally:
        sys.setrecursionlimit(limit)


def rotate(path: Path, token: str, second: int) -> None:
    path.write_text(f"{token}\n")
    os.utime(path, (second, second))


def accepting(token: str) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401, body=orjson.dumps(a_status("Unauthorized")))
        return web.Response(body=b"{}")

    return answer


async def test_the_token_of_the_file_is_sent_and_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    rotate(path, "old", 1)
    async with serving(ok, TokenFile(path)) as (server, client):
        await client.get(PATH)
        await client.get(PATH)
        rotate(path, "new", 2)
        await client.get(PATH)
    sent = [request.headers["Authorization"] for request, _ in server.asked]
    assert sent == ["Bearer old", "Bearer old", "Bearer new"]


async def test_a_token_that_was_rotated_while_it_was_refused_is_tried_again_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    rotate(path, "old", 1)
    accepts = accepting("new")

    async def answer(request: web.Request) -> web.StreamResponse:
        rotate(path, "new", 2)
        return await accepts(request)

    async with serving(answer, TokenFile(path)) as (server, client):
        assert await client.create(PATH, {"a": 1}) == {}
    assert [content for _, content in server.asked] == [b'{"a":1}', b'{"a":1}']


async def test_a_token_that_did_not_change_is_refused_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    rotate(path, "old", 1)
    async with serving(accepting("new"), TokenFile(path)) as (server, client):
        with pytest.raises(ApiError) as refused:
            await client.get(PATH)
    assert refused.value.status == 401
    assert len(server.asked) == 1


async def test_where_the_token_cannot_be_read_there_is_no_answer(tmp_path: Path) -> None:
    async with serving(ok, TokenFile(tmp_path / "nothing")) as (server, client):
        with pytest.raises(ApiError) as refused:
            await client.get(PATH)
    assert refused.value.status == 0
    assert server.asked == []


async def test_who_may_not_write_sends_no_write() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    async with serving(answer) as (server, client):
        leads = [True]
        fenced = Client(client._session, client._server, clock=Clock(), may_write=lambda: leads[0])
        await fenced.create(PATH, {})
        leads[0] = False
        for write in (
            fenced.create(PATH, {}),
            fenced.replace(PATH, {}),
            fenced.patch(PATH, {}),
            fenced.delete(PATH, uid="u"),
        ):
            with pytest.raises(ApiError, match="another replica may lead"):
                await write
        await fenced.get(PATH)
    assert [request.method for request, _ in server.asked] == ["POST", "GET"]


async def test_a_watch_gives_each_event_and_its_error_as_one() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert dict(request.query) == {"watch": "true", "fieldSelector": "metadata.name=a", "timeoutSeconds": "300"}
        added = {"type": "ADDED", "object": {"n": 1}}
        error = {"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}
        return web.Response(body=orjson.dumps(added) + b"\n" + orjson.dumps(error))

    async with serving(answer) as (_, client):
        events = client.watch(PATH, name="a")
        assert (await anext(events))["object"] == {"n": 1}
        with pytest.raises(ApiError) as caught:
            await anext(events)
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


async def test_a_watch_goes_on_from_a_version_where_one_is_given() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.query["resourceVersion"] == "7"
        return web.Response(body=orjson.dumps({"type": "MODIFIED", "object": {"n": 2}}) + b"\n")

    async with serving(answer) as (_, client):
        assert [event["object"] async for event in client.watch(PATH, name="a", version="7")] == [{"n": 2}]


@pytest.mark.parametrize(("status", "body"), [(403, b'{"reason": "Forbidden"}'), (200, b"no json")])
async def test_a_watch_that_cannot_be_had_is_an_error_like_any_other(status: int, body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with serving(answer) as (_, client):
        with pytest.raises(ApiError):
            [event async for event in client.watch(PATH, name="a")]


async def test_an_answer_that_is_too_large_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_LARGEST", 1000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"[" + b" " * 1000 + b"]")

    async with serving(answer) as (_, client):
        with pytest.raises(ApiError, match="larger than 1000 bytes"):
            await client.get(PATH)


async def test_a_page_that_is_too_large_is_read_one_by_one_and_the_next_one_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "_LARGEST", 1000)
    there = [{"name": str(number), "large": "x" * 900 if number == 1 else ""} for number in range(4)]

    async def answer(request: web.Request) -> web.Response:
        begin = int(request.query.get("continue", "0"))
        end = begin + min(2, int(request.query["limit"]))
        metadata = {"resourceVersion": "5"} | ({"continue": str(end)} if end < len(there) else {})
        return web.Response(body=orjson.dumps({"metadata": metadata, "items": there[begin:end]}))

    async with serving(answer) as (server, client):
        found = [body["name"] async for body in client.list(PATH)]
    assert found == ["0", "1", "2", "3"]
    assert [request.query["limit"] for request, _ in server.asked] == ["100", "1", "100", "1", "100"]
