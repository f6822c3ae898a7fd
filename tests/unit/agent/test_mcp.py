"""`valetkey mcp` as its host treats it: told to terminate, closed, asked for more than it keeps."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent.agents import ACCESS, entries
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent import life, mcp


class Host:
    """Whoever runs the server for a model."""

    def __init__(self, server: Apiserver) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "valetkey", "mcp", "--account-directory", str(server.account)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "host", "version": "1"}}
        self.call(1, "initialize", about)
        self._send({"method": "notifications/initialized"})

    def call(self, number: int, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer."""
        self._send({"id": number, "method": method, "params": parameters})
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "closed"])
def test_when_its_host_ends_it_nothing_of_what_the_model_had_stays(server: Apiserver, how: str) -> None:
    host = Host(server)
    asks = {"purpose": "remediation", "objective": "restart checkout", "access": ACCESS}
    answer = host.call(2, "tools/call", {"name": "request_access", "arguments": asks})
    assert answer["result"]["structuredContent"]["state"] == "granted"
    assert host.process.stdin is not None
    if how == "closed":
        host.process.stdin.close()
    else:
        host.process.send_signal(signal.Signals[how])
    code = host.process.wait(30)
    assert code == (0 if how == "closed" else 128 + signal.Signals[how])
    assert server.outcome() == "Cancelled"
    assert entries() == []
    for pipe in (host.process.stdin, host.process.stdout, host.process.stderr):
        if pipe is not None:
            pipe.close()


async def test_what_is_over_makes_room_and_leaves_nothing_behind(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "_MOST", 1)
    accesses = mcp.Accesses(server.account)
    asks = {"purpose": "remediation", "objective": "restart checkout", "access": ACCESS}
    first = await accesses.request(**asks)
    assert (await accesses.request(**asks, task="another"))["state"] == "failed", "one is open, and no more are kept"
    server.delete(first["request"])
    grant = await accesses._held["access-1"].begin
    await grant.wait_ended()
    assert (await accesses.request(**asks, task="another"))["state"] == "granted"
    assert len(entries()) == 1
    await accesses.release_all()
    assert entries() == []


async def test_a_model_may_pass_what_a_denial_allows_as_text_or_as_an_object(server: Apiserver) -> None:
    allowed = {"kubernetes": {"scopes": [{"namespace": "shop", "clusterRole": "log-reader"}]}}
    host = await asyncio.to_thread(Host, server)
    try:
        for number, given in enumerate((allowed, f"access: {json.dumps(allowed)}"), start=2):
            asks = {"purpose": "remediation", "objective": "read", "access": given}
            call = {"name": "request_access", "arguments": asks}
            said = (await asyncio.to_thread(host.call, number, "tools/call", call))["result"]["structuredContent"]
            assert server.requests[said["request"]]["spec"]["access"] == allowed
    finally:
        host.process.terminate()
        host.process.communicate()


async def test_an_end_that_is_not_heard_is_said_so_in_time_and_is_said_on(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "_ANSWER_WITHIN", 0.5)
    accesses = mcp.Accesses(server.account)
    granted = await accesses.request(purpose="remediation", objective="restart checkout", access=ACCESS)
    server.away()
    began = time.monotonic()
    released = await accesses.release(granted["access"], "Succeeded")
    assert time.monotonic() - began < 2
    assert (released["state"], released["heard"]) == ("released", False)
    assert "has not heard yet" in released["message"]
    assert not await asyncio.to_thread(Path(granted["directory"]).exists)
    server.back()
    await accesses.release_all()
    assert server.outcome() == "Succeeded"
    assert "heard" not in await accesses.release(granted["access"], "Succeeded")
    assert entries() == []


async def test_an_end_that_nobody_hears_stays_unheard(server: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_REPORT_FOR", 0.2)
    accesses = mcp.Accesses(server.account)
    granted = await accesses.request(purpose="remediation", objective="restart checkout", access=ACCESS)
    server.away()
    assert (await accesses.release(granted["access"], "Succeeded"))["heard"] is False
    assert (await accesses.status(granted["access"]))["heard"] is False
