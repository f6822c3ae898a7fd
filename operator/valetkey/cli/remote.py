"""The log of an installation: every replica's files, fetched with the caller's own rights."""

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

from valetkey.cli.kubectl import Json, kubectl, stop
from valetkey.kinds.base import format_duration, parse_duration

AUDITOR: Final = "valetkey-auditor"
_IN_THE_POD: Final = Path("/var/log/valetkey")
_TOKEN: Final = "Valetkey-Token"  # noqa: S105 - a header's name; a proxy of the API server passes it on
_LIVES: Final = timedelta(minutes=10)
"""Of the token that is minted for reading: the shortest that there is."""
_PATIENCE: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)

Directory = Annotated[Path | None, typer.Option("--dir", help="A directory that holds the log.")]
Url = Annotated[
    list[str] | None,
    typer.Option("--log-url", help="Where a replica serves its log; left out: each, through the API server."),
]
Authority = Annotated[Path | None, typer.Option("--log-ca", help="The CA of --log-url, PEM; left out: the system's.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="The operator's namespace.")]
Since = Annotated[str, typer.Option(help="Fetch files with records of so long ago or less, such as 24h.")]
WEEK: Final = "168h"


@dataclass(frozen=True)
class Fetched:
    """Files of a log that are here."""

    directory: Path
    elsewhere: frozenset[str] = field(default_factory=frozenset)
    """Files that were left where they are, for they are older."""


@contextmanager
def found(
    directory: Path | None, urls: list[str] | None, authority: Path | None, namespace: str, since: str
) -> Iterator[Fetched]:
    """The log where it was named; in the operator's pod, its own; anywhere else, what the installation serves."""
    if directory is not None or (not urls and _IN_THE_POD.is_dir()):
        yield Fetched(directory or _IN_THE_POD)
        return
    try:
        earliest = datetime.now(UTC) - parse_duration(since)
    except ValueError as error:
        raise typer.BadParameter(f"--since {since}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="valetkey-log-") as there:
        try:
            elsewhere = asyncio.run(_fetch(Path(there), urls or [], authority, namespace, earliest))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise stop(f"the log could not be fetched: {type(error).__name__}: {error}", 2) from error
        yield Fetched(Path(there), elsewhere)


async def _fetch(
    to: Path, urls: list[str], authority: Path | None, namespace: str, earliest: datetime
) -> frozenset[str]:
    if any(not url.startswith("https://") for url in urls):
        raise typer.BadParameter("--log-url begins with https://, for a token is sent there")
    named = ("--audience", "valetkey-log", "--duration", format_duration(_LIVES))
    minted = kubectl("create", "token", AUDITOR, "-n", namespace, *named)
    headers = {_TOKEN: minted.strip()}
    if urls:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
        verified = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=verified, headers=headers, timeout=_PATIENCE) as session:
            return await _fetch_each(session, [url.rstrip("/") for url in urls], to, earliest)
    services = json.loads(kubectl("get", "services", "-n", namespace, "-l", "valetkey.dev/log=true", "-o", "json"))
    if not services["items"]:
        raise stop(
            f"no log is served in namespace {namespace}: name the operator's with --namespace, or let it be served "
            "(the chart's log.server.tlsSecret), or give its directory with --dir",
            2,
        )
    with _proxy() as socket:
        private = aiohttp.UnixConnector(path=str(socket))
        async with aiohttp.ClientSession(connector=private, headers=headers, timeout=_PATIENCE) as session:
            return await _fetch_each(session, [_proxied(service) for service in services["items"]], to, earliest)


def _proxied(service: Json) -> str:
    metadata = service["metadata"]
    return f"http://kubectl/api/v1/namespaces/{metadata['namespace']}/services/https:{metadata['name']}:log/proxy"


async def _fetch_each(session: aiohttp.ClientSession, urls: list[str], to: Path, earliest: datetime) -> frozenset[str]:
    elsewhere: set[str] = set()
    for url in urls:
        for file in await _listed(session, url):
            name = str(file["name"])
            if Path(name).name != name or not name.endswith(".jsonl"):
                raise ValueError(f"{url} names a file {name!r}, which is none of a log")
            if datetime.fromisoformat(str(file["modified"])) < earliest:
                elsewhere.add(name)
                continue
            typer.echo(f"valetkey: reading {name}, {int(file['bytes']) >> 10} KiB", err=True)
            await _download(session, f"{url}/files/{name}", to / name)
    return frozenset(elsewhere)


async def _listed(session: aiohttp.ClientSession, url: str) -> list[Json]:
    async with session.get(f"{url}/files") as answer:
        await _demand(answer)
        return list(await answer.json())


async def _download(session: aiohttp.ClientSession, url: str, to: Path) -> None:
    async with session.get(url) as answer:
        await _demand(answer)
        with to.open("wb") as file:
            async for part in answer.content.iter_chunked(1 << 16):
                file.write(part)


async def _demand(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise stop(f"{answer.url.host} answered {answer.status}: {(await answer.text())[:500]}", 2)


@contextmanager
def _proxy() -> Iterator[Path]:
    """A proxy of kubectl's on a socket that nobody else can open; it brings the caller's kubeconfig along."""
    with tempfile.TemporaryDirectory(prefix="valetkey-") as private:
        socket = Path(private) / "kubectl"
        command = ["kubectl", "proxy", f"--unix-socket={socket}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
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
