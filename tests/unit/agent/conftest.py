"""An agent's pod, as far as a process sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.agent.apiserver import Apiserver, serving
from valetkey.agent import connections


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apiserver]:
    """The API server of the pod that this process is in."""
    account = tmp_path / "account"
    account.mkdir()
    with serving(account) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        monkeypatch.setenv("VALETKEY_STATE_DIRECTORY", str(tmp_path / "state"))
        yield server


@pytest.fixture(autouse=True)
async def unconnected(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The tests share an event loop, and what is kept for it would outlive their servers."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server")
    yield
    await connections.close()
