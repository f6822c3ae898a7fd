"""The certificate that the log is served with: it may come late, be renewed, and be wrong for a while."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cluster.api import until
from tests.cluster.local import pki
from tests.unit.controller.test_listener import free
from tests.unit.serve.test_log import Reviewer, reviews
from valetkey import door
from valetkey.serve import certificate, log


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A CA and two certificates of it."""
    folder = tmp_path / "ca"
    folder.mkdir()
    pki.authority(folder)
    for name in ("one", "two"):
        pki.certificate(folder, name, f"/CN={name}")
    return folder


@asynccontextmanager
async def served(tls: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(certificate, "LOOKS_EVERY", timedelta(milliseconds=20))
    files = log.LogFiles(tls, reviews(Reviewer({})))
    serving = asyncio.create_task(log.serve(files, "127.0.0.1", port, tls))
    yield
    assert not serving.done()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def put(authority: Path, tls: Path, certificate: str, key: str) -> None:
    """As the kubelet does: each file changes at once, one after the other."""
    for name, source in (("tls.crt", f"{certificate}.crt"), ("tls.key", f"{key}.key")):
        draft = tls / f"{name}.draft"
        draft.write_bytes((authority / source).read_bytes())
        os.replace(draft, tls / name)


async def met(authority: Path, port: int) -> str | None:
    """The common name of the certificate that a connection is met with; None where there is none."""
    context = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    with suppress(OSError, ssl.SSLError):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found = writer.get_extra_info("peercert")
        writer.close()
        return str(dict(entry[0] for entry in found["subject"])["commonName"])
    return None


async def test_it_may_come_later_and_be_renewed_and_a_wrong_one_leaves_the_one_before_it(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tls, port = tmp_path / "tls", free()
    tls.mkdir()

    async def meets(name: str | None) -> bool:
        return await met(authority, port) == name

    async with served(tls, port, monkeypatch):
        await asyncio.sleep(0.2)
        assert await meets(None)
        assert "log.server.tlsSecret" in caplog.text
        put(authority, tls, "one", "one")
        await until(lambda: meets("one"), "the log to be served", seconds=5)
        put(authority, tls, "two", "one")
        await asyncio.sleep(0.3)
        assert await meets("one"), "a key of another certificate changes nothing"
        put(authority, tls, "two", "two")
        await until(lambda: meets("two"), "the new certificate to be met with", seconds=5)
        (tls / "tls.crt").unlink()
        await asyncio.sleep(0.2)
        assert await meets("two")


async def test_a_port_that_is_taken_is_said_to_be_and_tried_again(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "AGAIN", timedelta(milliseconds=20))
    tls, port = tmp_path / "tls", free()
    tls.mkdir()
    put(authority, tls, "one", "one")
    held = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with served(tls, port, monkeypatch):
        await asyncio.sleep(0.2)
        assert "free it or set log.server.port" in caplog.text
        held.close()
        await held.wait_closed()

        async def there() -> bool:
            return await met(authority, port) == "one"

        await until(there, "the log to be served", seconds=5)
