"""The log is read by the holder of an auditor's token, as it is, and by nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from tests.cluster.api import until
from tests.unit.controller.test_listener import free
from valetkey import door
from valetkey.audit import history
from valetkey.audit.record import Log
from valetkey.cli import remote
from valetkey.cli.app import app
from valetkey.door import Door
from valetkey.kube.api import ApiError, Json
from valetkey.messages import Answer, Request
from valetkey.serve import log
from valetkey.serve.auditors import AUDIENCE, HEADER, auditors
from valetkey.serve.reviews import BusyError, Reviews


def token_of(lives: int) -> str:
    """As much of a token as says for how long it lives."""
    claims = base64.urlsafe_b64encode(json.dumps({"iat": 1_000, "exp": 1_000 + lives}).encode()).decode()
    return f"e30.{claims.rstrip('=')}.sig"


AUDITOR = "system:serviceaccount:valetkey-system:valetkey-auditor"
GOOD_TOKEN = token_of(600)
YES: Json = {
    "authenticated": True,
    "audiences": [AUDIENCE],
    "user": {"username": AUDITOR, "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]}},
}
GOOD = {HEADER: GOOD_TOKEN}


class Reviewer:
    """As much of an API server as says whose token it is."""

    def __init__(self, answers: Mapping[str, Json]) -> None:
        self.answers, self.asked = dict(answers), 0
        self.away = False

    async def create(self, path: str, body: Json) -> Json:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        assert body["spec"]["audiences"] == [AUDIENCE]
        self.asked += 1
        if self.away:
            raise ApiError(0, "NoAnswer", "connection refused")
        return {"status": self.answers.get(body["spec"]["token"], {"error": "invalid bearer token"})}


def reviews(reviewer: Reviewer, clock: Callable[[], float] = time.monotonic) -> Reviews[str]:
    return auditors(reviewer, "valetkey-system", clock=clock)  # type: ignore[arg-type] # it asks for nothing else


@asynccontextmanager
async def serving(directory: Path, reviewer: Reviewer) -> AsyncIterator[str]:
    """Where the log is served, in the clear."""
    port = free()
    door = Door(log.LogFiles(directory, reviews(reviewer)).answer)
    task = asyncio.create_task(door.serve("127.0.0.1", port, setting="log.server.port"))

    async def open_yet() -> bool:
        with suppress(OSError):
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return True
        return False

    await until(open_yet, "the log to be served", seconds=5)
    yield f"http://127.0.0.1:{port}"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def served(directory: Path, reviewer: Reviewer) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(directory, reviewer) as url, aiohttp.ClientSession(url) as session:
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
    async with served(tmp_path, Reviewer({GOOD_TOKEN: YES})) as session:
        async with session.get("/files", headers=GOOD) as answer:
            (described,) = await answer.json()
        assert (described["name"], described["bytes"]) == (file.name, file.stat().st_size)
        for headers in (GOOD, {"Authorization": f"Bearer {GOOD_TOKEN}"}):
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
    async with served(tmp_path, Reviewer({GOOD_TOKEN: status})) as session:
        for path in ("/files", f"/files/{file.name}", "/nowhere"):
            for headers in (GOOD, {HEADER: "unknown"}, {}, {"Authorization": f"Basic {GOOD_TOKEN}"}):
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
    async with served(log, Reviewer({GOOD_TOKEN: YES})) as session:
        async with session.get("/files", headers=GOOD) as answer:
            assert await answer.json() == []
        async with session.get(f"/files/{name}", headers=GOOD, allow_redirects=False) as answer:
            assert answer.status == 404
            assert "s3cret" not in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
async def test_nothing_can_be_written(tmp_path: Path, method: str) -> None:
    file = await a_log(tmp_path)
    before = file.read_bytes()
    async with (
        served(tmp_path, Reviewer({GOOD_TOKEN: YES})) as session,
        session.request(method, f"/files/{file.name}", headers=GOOD, data=b"x") as answer,
    ):
        assert answer.status == 405
    assert contents(tmp_path) == [before]


async def test_where_the_api_server_is_away_nothing_is_read_and_it_says_why(tmp_path: Path) -> None:
    await a_log(tmp_path)
    reviewer = Reviewer({GOOD_TOKEN: YES})
    reviewer.away = True
    async with served(tmp_path, reviewer) as session, session.get("/files", headers=GOOD) as answer:
        assert answer.status == 503
        assert "the API server was not there" in await answer.text()


async def test_a_token_is_reviewed_again_when_it_was_known_for_ten_seconds() -> None:
    now = 100.0
    reviewer = Reviewer({GOOD_TOKEN: YES})
    known = reviews(reviewer, clock=lambda: now)
    for _ in range(20):
        assert await known.holder(GOOD_TOKEN) == "JTI=1"
    assert reviewer.asked == 1
    now += 10
    reviewer.answers.clear()
    assert await known.holder(GOOD_TOKEN) is None
    assert reviewer.asked == 2


async def test_whoever_knocks_all_day_is_asked_about_a_few_times_a_second_and_a_known_token_passes() -> None:
    now = 100.0
    reviewer = Reviewer({GOOD_TOKEN: YES})
    known = reviews(reviewer, clock=lambda: now)
    await known.holder(GOOD_TOKEN)
    for _ in range(60):
        now += 1
        for place in range(20):
            with suppress(BusyError):
                assert await known.holder(f"guess-{now}-{place}") is None
        assert await known.holder(GOOD_TOKEN) == "JTI=1"
    assert reviewer.asked <= 60 * 7 + 10
    with pytest.raises(BusyError):
        await known.holder("one-more")
    now += 1
    assert await known.holder("one-more") is None


async def test_a_refused_token_is_not_asked_about_again_and_again() -> None:
    reviewer = Reviewer({})
    known = reviews(reviewer, clock=lambda: 100.0)
    assert [await known.holder("guess") for _ in range(50)] == [None] * 50
    assert reviewer.asked == 1


@pytest.mark.parametrize(
    "token", [token_of(901), token_of(10**12), "no token", "a.b.c", "e30.bnVsbA.sig", "e30.e30.sig"]
)
async def test_a_token_that_lives_for_longer_than_a_quarter_of_an_hour_reads_nothing(token: str) -> None:
    assert await reviews(Reviewer({token: YES})).holder(token) is None
    assert await reviews(Reviewer({GOOD_TOKEN: YES})).holder(GOOD_TOKEN) == "JTI=1"


async def test_bytes_that_are_no_text_are_refused_like_any_other_token(tmp_path: Path) -> None:
    async with serving(tmp_path, Reviewer({})) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /files HTTP/1.1\r\nValetkey-Token: \xff\xfe\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_who_does_not_read_what_they_asked_for_keeps_their_own_places_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.jsonl").write_bytes(b"x" * (64 << 20))
    other = token_of(601)
    reviewer = Reviewer({GOOD_TOKEN: YES, other: YES | {"user": another(YES["user"])}})
    monkeypatch.setattr(door, "OF_A_PART", timedelta(seconds=1))
    async with serving(tmp_path, reviewer) as url:
        port = int(url.rpartition(":")[2])
        held = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET /files/big.jsonl HTTP/1.1\r\n{HEADER}: {GOOD_TOKEN}\r\n\r\n".encode())
            held.append(writer)
        await asyncio.sleep(0.3)
        async with aiohttp.ClientSession(url) as session:
            async with session.get("/files/big.jsonl", headers=GOOD) as answer:
                assert answer.status == 503
            async with session.get("/files/big.jsonl", headers={HEADER: other}) as answer:
                assert answer.status == 200
                assert len(await answer.read()) == 64 << 20
            await asyncio.sleep(1.5)  # who did not read is out
            async with session.get("/files/big.jsonl", headers=GOOD) as answer:
                assert answer.status == 200
        for writer in held:
            writer.close()


def another(user: Json) -> Json:
    return user | {"extra": {"authentication.kubernetes.io/credential-id": ["JTI=2"]}}


# -- fetched ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: Callable[[Request], Answer]) -> AsyncIterator[str]:
    """A server that says what a test wants."""

    async def said(request: Request) -> Answer:
        return answer(request)

    port = free()
    task = asyncio.create_task(Door(said).serve("127.0.0.1", port, setting="none"))
    await asyncio.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def fetched(urls: list[str], to: Path, *, ago: timedelta = timedelta(days=7)) -> remote.Fetched:
    async with aiohttp.ClientSession(headers=GOOD, auto_decompress=False) as session:
        return await remote.fetch_each(session, urls, to, datetime.now(UTC) - ago)


async def test_what_comes_here_is_checked_here_and_older_files_are_not_missed(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    file = await a_log(there)
    os.utime(file, (0, 0))  # whoever can touch a file hides nothing
    then = datetime.now(UTC) - timedelta(days=9)
    old = there / f"valetkey-0-{then:%Y%m%dT%H%M%S%f}.jsonl"
    old.write_bytes(b"{}\n")
    async with serving(there, Reviewer({GOOD_TOKEN: YES})) as url:
        got = await fetched([url], here)
    assert got.elsewhere == {old.name}
    assert got.missing == ()
    records, broken = history.read(here, elsewhere=got.elsewhere)
    assert [record["reason"] for record in records] == ["PolicyMatched", "CredentialRevoked"]
    assert broken == []
    assert (here / file.name).read_bytes() == file.read_bytes()


async def test_a_replica_that_is_away_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    file = await a_log(there)
    gone = f"http://127.0.0.1:{free()}"
    async with serving(there, Reviewer({GOOD_TOKEN: YES})) as url:
        got = await fetched([gone, url], here)
    assert [path.name for path in files(here)] == [file.name]
    (missing,) = got.missing
    assert missing.startswith(f"{gone}: ")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b'[{"name": "../evil.jsonl", "bytes": 1}]'),
        Answer(body=b'[{"name": "a/b.jsonl", "bytes": 1}]'),
        Answer(body=b'[{"name": "\\u001b[2Jx.jsonl", "bytes": 1}]'),
        Answer(body=b'[{"name": "x.jsonl"}]'),
        Answer(body=b'[{"name": "x.jsonl", "bytes": -1}]'),
        Answer(body=b'{"name": "x.jsonl", "bytes": 1}'),
        Answer(body=b"null"),
        Answer(body=b"[" * 100_000),
        Answer(body=b" " * (5 << 20)),
        Answer("302 Found", ("Location: http://127.0.0.1:1/",)),
        Answer("401 Unauthorized", body=b"\x1b[2J"),
        Answer(headers=("Content-Encoding: gzip",), body=b"\x1f\x8b"),
    ],
    ids=str,
)
async def test_a_server_that_lies_harms_nobody(tmp_path: Path, answer: Answer) -> None:
    asked = []

    def says(request: Request) -> Answer:
        asked.append(request.path)
        return answer

    async with answering(says) as url:
        got = await fetched([url], tmp_path)
    assert len(got.missing) == 1
    assert got.missing[0].isprintable()
    assert contents(tmp_path) == []
    assert asked == ["/files"]


async def test_no_more_is_written_down_than_was_announced(tmp_path: Path) -> None:
    listed = Answer(body=b'[{"name": "x.jsonl", "bytes": 10}]')
    async with answering(lambda asked: listed if asked.path == "/files" else Answer(body=b"y" * (1 << 20))) as url:
        await fetched([url], tmp_path)
    assert contents(tmp_path) == [b"y" * 10]


async def test_a_server_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    answers = iter([Answer("429 Too Many Requests"), Answer("503 Service Unavailable"), Answer(body=b"[]")])
    async with answering(lambda _: next(answers)) as url:
        assert (await fetched([url], tmp_path)).missing == ()


KUBECTL = """#!/usr/bin/env python3
import http.server, os, socketserver, sys
said = " ".join(sys.argv[1:])
with open(os.environ["SAID"], "a") as log:
    print(said, file=log)
if said.startswith("get services"):
    print(open(os.environ["SERVICES"]).read())
elif said.startswith("create token"):
    print("a-token")
elif said.startswith("proxy --unix-socket=") and os.environ.get("BROKEN"):
    sys.exit("no kubeconfig")
elif said.startswith("proxy --unix-socket="):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            # As kubectl's own filter: another host is refused.
            allowed = self.headers["Host"] in ("localhost", "127.0.0.1", "[::1]")
            right = self.path == "/api/v1/namespaces/ops/services/https:valetkey-log-0:log/proxy/files"
            good = allowed and right and self.headers["Valetkey-Token"] == "a-token"
            self.send_response(200 if good else 403)
            self.end_headers()
            self.wfile.write(b"[]")
        def address_string(self):
            return ""
    socketserver.UnixStreamServer(sys.argv[2].partition("=")[2], Handler).serve_forever()
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl with the one service of one replica, and what it was told."""
    folder, said = tmp_path / "bin", tmp_path / "said"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    services = {"items": [{"metadata": {"name": "valetkey-log-0", "namespace": "ops"}}]}
    (tmp_path / "services").write_text(json.dumps(services))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(said))
    monkeypatch.setenv("SERVICES", str(tmp_path / "services"))
    return said


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["log", "--task", "run-1", *arguments])


def test_the_log_comes_through_the_api_server_as_kubectl_passes_it_on(kubectl: Path) -> None:
    done = command("--namespace", "ops")
    assert "no record of it" in done.stderr, done.output
    assert "missing" not in done.stderr
    said = kubectl.read_text().splitlines()
    assert said[0].startswith("get services -n ops")
    assert said[1] == "create token valetkey-auditor -n ops --audience valetkey-log --duration 10m"


def test_where_no_log_is_served_no_token_is_made_and_it_says_what_to_do(kubectl: Path, tmp_path: Path) -> None:
    (tmp_path / "services").write_text('{"items": []}')
    done = command("--namespace", "ops")
    assert done.exit_code == 2
    assert "log.server.tlsSecret" in done.stderr
    assert "create token" not in kubectl.read_text()


def test_a_proxy_that_does_not_begin_says_why(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "yes")
    done = command()
    assert done.exit_code == 2
    assert "no kubeconfig" in done.stderr
    assert kubectl.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--log-url", "http://127.0.0.1:1"), "https://"),
        (("--since", "7d"), "write it as 24h"),
        (("--since", "-1h"), "write it as 24h"),
        (("--dir", ".", "--log-url", "https://127.0.0.1:1"), "two places"),
        (("--log-ca", "x.pem"), "belongs to --log-url"),
        (("--log-url", "https://127.0.0.1:1", "--log-ca", "/none.pem"), "not a file of certificates"),
        (("--log-url", "https://127.0.0.1:1", "--log-ca", "/proc/version"), "not a file of certificates"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_before_a_token_is_made(
    kubectl: Path, arguments: tuple[str, ...], why: str
) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert why in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
    assert not kubectl.exists()
