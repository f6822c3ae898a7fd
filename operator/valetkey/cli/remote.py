"""The log of an installation: every replica's files, fetched with the caller's own rights.

Whoever serves them is believed nothing: chains are checked here, no redirect is followed, and no more is written down
than was announced.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import typer
from pydantic import Field, TypeAdapter, ValidationError

from valetkey.audit import history
from valetkey.audit.file import began
from valetkey.cli.kubectl import Json, kubectl, stop
from valetkey.cli.tables import printable
from valetkey.kinds.base import Model, format_duration, parse_duration
from valetkey.serve.auditors import AUDIENCE, AUDITOR, HEADER

WEEK: Final = "168h"
_IN_THE_POD: Final = Path("/var/log/valetkey")
_LIVES: Final = timedelta(minutes=10)
"""Of the token that is minted for reading: the shortest that there is."""
_A_FILES: Final = timedelta(hours=25)
"""How long a file is written to: it is of one day and one start, which its name tells."""
_LIST: Final = 4 << 20
"""Bytes of a list of files that are read."""
_TRIES: Final = 5
_PATIENCE: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)

Directory = Annotated[Path | None, typer.Option("--dir", help="A directory that holds the log.")]
Url = Annotated[
    list[str] | None,
    typer.Option("--log-url", help="Where a replica serves its log; left out: each, through the API server."),
]
Authority = Annotated[Path | None, typer.Option("--log-ca", help="The CA of --log-url, PEM; left out: the system's.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="The operator's namespace.")]
Since = Annotated[str, typer.Option(help="Fetch files with records of so long ago or less, such as 24h.")]


@dataclass(frozen=True)
class Fetched:
    """Files of a log that are here."""

    directory: Path
    elsewhere: frozenset[str] = field(default_factory=frozenset)
    """Files that were left where they are, for they are older."""
    missing: tuple[str, ...] = ()
    """Who serves a part of it and could not be read, and why."""


@dataclass(frozen=True)
class Read:
    """What a log has, as far as it was read."""

    records: list[history.Record]
    broken: list[history.Broken]
    left: int
    """Files that were not fetched, for they are older."""
    whole: bool
    """Whether everybody who serves a part of it could be read; who could not was told of."""


class _File(Model):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,250}\.jsonl$")
    bytes: int = Field(ge=0)


_FILES: Final = TypeAdapter(list[_File])


def read(directory: Path | None, urls: list[str] | None, authority: Path | None, namespace: str, since: str) -> Read:
    """Reads the log, wherever it is, and says what of it is missing; ends the command where nothing can be read."""
    with _found(directory, urls, authority, namespace, since) as log:
        try:
            records, broken = history.read(log.directory, elsewhere=log.elsewhere)
        except OSError as error:
            raise stop(f"{error}; name the log's directory with --dir", 2) from error
    for whose in log.missing:
        typer.echo(f"valetkey: a part of the log is missing here: {whose}", err=True)
    return Read(records, broken, len(log.elsewhere), not log.missing)


@contextmanager
def _found(
    directory: Path | None, urls: list[str] | None, authority: Path | None, namespace: str, since: str
) -> Iterator[Fetched]:
    """The log where it was named; in the operator's pod, its own; anywhere else, what the installation serves."""
    if directory is not None and urls:
        raise typer.BadParameter("--dir and --log-url are two places: name one of them")
    if authority is not None and not urls:
        raise typer.BadParameter("--log-ca belongs to --log-url")
    if directory is not None or (not urls and _IN_THE_POD.is_dir()):
        yield Fetched(directory or _IN_THE_POD)
        return
    try:
        earliest = datetime.now(UTC) - parse_duration(since)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"--since {since}: write it as 24h or 168h") from None
    with tempfile.TemporaryDirectory(prefix="valetkey-log-") as there:
        yield asyncio.run(_fetch(Path(there), urls or [], authority, namespace, earliest))


async def _fetch(to: Path, urls: list[str], authority: Path | None, namespace: str, earliest: datetime) -> Fetched:
    if any(not url.startswith("https://") for url in urls):
        raise typer.BadParameter("--log-url begins with https://, for a token is sent there")
    if urls:
        context = _trusting(authority)
        async with _session(aiohttp.TCPConnector(ssl=context), _minted(namespace)) as session:
            return await fetch_each(session, [url.rstrip("/") for url in urls], to, earliest)
    services = json.loads(kubectl("get", "services", "-n", namespace, "-l", "valetkey.dev/log=true", "-o", "json"))
    if not services["items"]:
        raise stop(
            f"no log is served in namespace {namespace}: name the operator's with --namespace, or let it be served "
            "(the chart's log.server.tlsSecret), or give its directory with --dir",
            2,
        )
    headers = _minted(namespace)
    with proxy() as socket:
        async with _session(aiohttp.UnixConnector(path=str(socket)), headers) as session:
            return await fetch_each(session, [proxied(service) for service in services["items"]], to, earliest)


def _trusting(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError):
        raise typer.BadParameter(f"--log-ca {authority}: not a file of certificates in PEM") from None


def _minted(namespace: str) -> dict[str, str]:
    """The header with a token that was made for this reading."""
    named = ("--audience", AUDIENCE, "--duration", format_duration(_LIVES))
    return {HEADER: kubectl("create", "token", AUDITOR, "-n", namespace, *named).strip()}


def _session(connector: aiohttp.BaseConnector, headers: dict[str, str]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers | {"Accept-Encoding": "identity"},
        timeout=_PATIENCE,
        auto_decompress=False,
    )


def proxied(service: Json) -> str:
    """A service as the API server is a proxy for it; kubectl's own proxy takes no host but this."""
    metadata = service["metadata"]
    return f"http://localhost/api/v1/namespaces/{metadata['namespace']}/services/https:{metadata['name']}:log/proxy"


async def fetch_each(session: aiohttp.ClientSession, urls: list[str], to: Path, earliest: datetime) -> Fetched:
    """Every file of everyone that may have records since then; whoever cannot be read is named, and the others are."""
    elsewhere: set[str] = set()
    missing = []
    for url in urls:
        try:
            for file in await _listed(session, url):
                if (to / file.name).exists():
                    typer.echo(f"valetkey: {file.name} is served twice; it was read once", err=True)
                elif _ended_before(file.name, earliest):
                    elsewhere.add(file.name)
                else:
                    typer.echo(f"valetkey: reading {file.name}, {file.bytes >> 10} KiB", err=True)
                    await _download(session, f"{url}/files/{file.name}", to / file.name, file.bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, _AnswerError) as error:
            missing.append(f"{printable(url)}: {printable(str(error) or type(error).__name__)}")
    return Fetched(to, frozenset(elsewhere), tuple(missing))


def _ended_before(name: str, earliest: datetime) -> bool:
    """By its name, and not by what whoever serves it says of its age."""
    at = began(name)
    return at is not None and at + _A_FILES < earliest


class _AnswerError(Exception):
    """What came is no answer of a log."""


async def _listed(session: aiohttp.ClientSession, url: str) -> list[_File]:
    async with await _get(session, f"{url}/files") as answer:
        body = await answer.content.read(_LIST)
        while len(body) < _LIST and (more := await answer.content.read(_LIST - len(body))):
            body += more
    try:
        return _FILES.validate_json(body)
    except ValidationError:
        raise _AnswerError("what it answers is no list of a log's files") from None


async def _download(session: aiohttp.ClientSession, url: str, to: Path, left: int) -> None:
    async with await _get(session, url) as answer:
        with to.open("wb") as file:
            while left > 0 and (part := await answer.content.read(min(left, 1 << 16))):
                file.write(part)
                left -= len(part)


async def _get(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    for tries_left in reversed(range(_TRIES)):
        answer = await session.get(url, allow_redirects=False)
        if answer.status == 200:
            return answer
        text = (await answer.content.read(500)).decode(errors="replace")
        answer.release()
        if answer.status not in (429, 503) or not tries_left:
            raise _AnswerError(f"{answer.status} {text}")
        await asyncio.sleep(1)
    raise AssertionError("the last try returns or raises")


@contextmanager
def proxy() -> Iterator[Path]:
    """A proxy of kubectl's on a socket that nobody else can open; it brings the caller's kubeconfig along."""
    with tempfile.TemporaryDirectory(prefix="valetkey-") as private:
        socket = Path(private) / "kubectl"
        command = ["kubectl", "proxy", f"--unix-socket={socket}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - no shell, and nothing of others
            try:
                for _ in range(100):
                    if socket.exists() or process.poll() is not None:
                        break
                    time.sleep(0.1)
                if not socket.exists():
                    process.terminate()
                    raise stop(f"kubectl proxy: {process.communicate()[1].strip() or 'it does not begin'}", 2)
                yield socket
            finally:
                process.terminate()
