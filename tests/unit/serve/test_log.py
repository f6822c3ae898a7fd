"""The log is read by the holder of an auditor's token, as it is, and by nobody else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from valetkey.audit import history
from valetkey.audit.record import Log
from valetkey.cli import remote
from valetkey.kube.api import ApiError, Json
from valetkey.serve.log import TOKEN, application
from valetkey.serve.reviews import AUDIENCE, BusyError, Reviews

AUDITOR = "system:serviceaccount:valetkey-system:valetkey-auditor"
YES: Json = {
    "authenticated": True,
    "audiences": [AUDIENCE],
    "user": {"username": AUDITOR, "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]}},
}
GOOD = {TOKEN: "good"}


class Reviewer:
    """As much of an API server as says whose token it is."""

    def __init__(self, **answers: Json) -> None:
        self.answers, self.asked = answers, 0
        self.away = False

    async def create(self, path: str, body: Json) -> Json:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        assert body["spec"]["audiences"] == [AUDIENCE]
        self.asked += 1
        if self.away:
            raise ApiError(0, "NoAnswer", "connection refused")
        return {"status": self.answers.get(body["spec"]["token"], {"error": "invalid bearer token"})}


def reviews(reviewer: Reviewer, **options: Any) -> Reviews:
    return Reviews(reviewer, username=AUDITOR, **options)  # type: ignore[arg-type] # it asks for nothing else


@asynccontextmanager
async def served(directory: Path, reviewer: Reviewer) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        TestServer(application(directory, reviews(reviewer))) as server,
        aiohttp.ClientSession(server.make_url("/")) as session,
    ):
        yield session


async def a_log(directory: Path) -> Path:
    """A log of two records."""
    log = Log(directory, writer="valetkey-0", cluster="", clock=lambda: datetime.now(UTC))
    await log.write("PolicyMatched", request="agents/fix", task="run-1")
    await log.write("CredentialRevoked", request="agents/fix", task="run-1")
    await log.close()
    return files(directory)[0]


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in files(directory)]


async def test_who_holds_an_auditors_token_reads_the_files_as_they_are(tmp_path: Path) -> None:
    file = await a_log(tmp_path)
    async with served(tmp_path, Reviewer(good=YES)) as session:
        async with session.get("/files", headers=GOOD) as answer:
            (described,) = await answer.json()
        assert (described["name"], described["bytes"]) == (file.name, file.stat().st_size)
        for headers in (GOOD, {"Authorization": "Bearer good"}):
            async with session.get(f"/files/{file.name}", headers=headers) as answer:
                assert await answer.read() == file.read_bytes()


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False},
        {},
        {**YES, "authenticated": "true"},
        {**YES, "audiences": ["https://kubernetes.default.svc"]},
        {**YES, "audiences": None},
        {**YES, "user": {"username": "system:serviceaccount:valetkey-system:valetkey"}},
        {**YES, "user": {"username": "system:serviceaccount:agents:valetkey-auditor"}},
        {**YES, "user": None},
    ],
    ids=str,
)
async def test_nobody_elses_token_reads_anything(tmp_path: Path, status: Json) -> None:
    file = await a_log(tmp_path)
    async with served(tmp_path, Reviewer(bad=status)) as session:
        for path in ("/files", f"/files/{file.name}", "/nowhere"):
            for headers in ({TOKEN: "bad"}, {TOKEN: "unknown"}, {}, {"Authorization": "Basic good"}):
                async with session.get(path, headers=headers) as answer:
                    assert answer.status == 401, (path, headers)
                    assert file.name not in await answer.text()


@pytest.mark.parametrize(
    "name", ["..%2fsecret", "%2e%2e%2fsecret", "secret", "link.jsonl", "folder.jsonl", "none.jsonl", ""]
)
async def test_nothing_but_files_of_the_log_is_read(tmp_path: Path, name: str) -> None:
    secret, log = tmp_path / "secret", tmp_path / "log"
    log.mkdir()
    secret.write_text("s3cret")
    (log / "secret").write_text("s3cret")
    (log / "link.jsonl").symlink_to(secret)
    (log / "folder.jsonl").mkdir()
    async with served(log, Reviewer(good=YES)) as session:
        async with session.get("/files", headers=GOOD) as answer:
            assert await answer.json() == []
        async with session.get(f"/files/{name}", headers=GOOD, allow_redirects=False) as answer:
            assert answer.status == 404
            assert "s3cret" not in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_can_be_written(tmp_path: Path, method: str) -> None:
    file = await a_log(tmp_path)
    before = file.read_bytes()
    async with (
        served(tmp_path, Reviewer(good=YES)) as session,
        session.request(method, f"/files/{file.name}", headers=GOOD, data=b"x") as answer,
    ):
        assert answer.status == 405
    assert contents(tmp_path) == [before]


async def test_where_the_api_server_is_away_nothing_is_read_and_it_says_why(tmp_path: Path) -> None:
    await a_log(tmp_path)
    reviewer = Reviewer(good=YES)
    reviewer.away = True
    async with served(tmp_path, reviewer) as session, session.get("/files", headers=GOOD) as answer:
        assert answer.status == 503
        assert "the API server was not there" in await answer.text()


async def test_a_token_is_reviewed_again_when_it_was_known_for_ten_seconds() -> None:
    now = 100.0
    reviewer = Reviewer(good=YES)
    known = reviews(reviewer, clock=lambda: now)
    for _ in range(20):
        assert await known.credential_id("good") == "JTI=1"
    assert reviewer.asked == 1
    now += 10
    reviewer.answers.clear()
    assert await known.credential_id("good") is None
    assert reviewer.asked == 2


async def test_whoever_knocks_all_day_asks_the_api_server_ten_times_a_second_and_a_known_token_passes() -> None:
    now = 100.0
    reviewer = Reviewer(good=YES)
    known = reviews(reviewer, clock=lambda: now)
    await known.credential_id("good")
    for place in range(9):
        assert await known.credential_id(f"guess-{place}") is None
    with pytest.raises(BusyError):
        await known.credential_id("one-more")
    assert await known.credential_id("good") == "JTI=1"
    assert reviewer.asked == 10
    now += 1
    assert await known.credential_id("one-more") is None


async def test_what_comes_here_is_checked_here_and_older_files_are_not_missed(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    file = await a_log(there)
    old = there / "valetkey-0-old.jsonl"
    old.write_bytes(b"{}\n")
    then = datetime.now(UTC) - timedelta(days=8)
    os.utime(old, (then.timestamp(), then.timestamp()))
    async with TestServer(application(there, reviews(Reviewer(good=YES)))) as server:
        url = str(server.make_url("")).rstrip("/")
        async with aiohttp.ClientSession(headers=GOOD) as session:
            week = datetime.now(UTC) - timedelta(days=7)
            elsewhere = await remote._fetch_each(session, [url], here, week)
    assert elsewhere == {old.name}
    records, broken = history.read(here, elsewhere=elsewhere)
    assert [record["reason"] for record in records] == ["PolicyMatched", "CredentialRevoked"]
    assert broken == []
    assert (here / file.name).read_bytes() == file.read_bytes()


async def test_a_server_that_names_a_file_elsewhere_writes_nothing_here(tmp_path: Path) -> None:
    async def names(_: web.Request) -> web.Response:
        entry = {"name": "../evil.jsonl", "bytes": 1, "modified": datetime.now(UTC).isoformat()}
        return web.json_response([entry])

    app = web.Application()
    app.router.add_get("/files", names)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="none of a log"):
            await remote._fetch_each(session, [str(server.make_url("")).rstrip("/")], tmp_path, datetime.now(UTC))
    assert contents(tmp_path) == []
