"""The metrics over a real socket; a port that is taken stops nobody."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.api import until
from tests.properties.life import pod, policy, request
from tests.properties.world import World
from tests.unit.controller.test_handlers import operator_of
from valetkey import door
from valetkey.controller import listener

HOST = "127.0.0.1"


def taken() -> tuple[socket.socket, int]:
    """A port that somebody has."""
    held = socket.create_server((HOST, 0))
    return held, held.getsockname()[1]


def free() -> int:
    """A port that nobody has."""
    held, port = taken()
    held.close()
    return port


async def scraped(port: int) -> dict[str, float] | None:
    """What Prometheus would read, by name and labels; None where nobody answers."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{port}/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await response.text()
    except aiohttp.ClientConnectorError:
        return None
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {" ".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


async def test_the_metrics_are_shown_and_nothing_else_is() -> None:
    registry, port = CollectorRegistry(), free()
    Counter("valetkey_tries", "Tries.", registry=registry).inc()
    serving = asyncio.create_task(listener.serve(registry, HOST, port))
    try:

        async def shown() -> bool:
            return await scraped(port) == {"valetkey_tries_total": 1}

        await until(shown, "the metrics", seconds=5)
        async with aiohttp.ClientSession(f"http://{HOST}:{port}") as session:
            for method, path, status in (
                ("GET", "/", 404),
                ("GET", "/metrics/", 404),
                ("POST", "/metrics", 405),
                ("HEAD", "/metrics", 405),
            ):
                async with session.request(method, path) as response:
                    assert response.status == status, (method, path)
        waits, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET")
        await asyncio.sleep(0.1)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert await scraped(port) is None, "it is closed with the operator"
    assert await shown_out(waits, 1), "and so is what was under way"
    writer.close()


async def test_the_page_is_not_made_for_everybody_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        made = 0

        def collect(self) -> list[object]:
            self.made += 1
            return []

    counting, registry, port = Counting(), CollectorRegistry(), free()
    registry.register(counting)  # type: ignore[arg-type]
    monkeypatch.setattr(listener, "KEPT_FOR", timedelta(hours=1))
    serving = asyncio.create_task(listener.serve(registry, HOST, port))
    try:

        async def shown() -> bool:
            return await scraped(port) is not None

        await until(shown, "the metrics", seconds=5)
        await asyncio.gather(*(scraped(port) for _ in range(door.CONNECTIONS)))
        assert counting.made == 1
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


Knock = Callable[[bytes], Awaitable[asyncio.StreamReader]]


@asynccontextmanager
async def showing() -> AsyncIterator[tuple[int, Knock]]:
    """A port at which an empty page is shown, and how to connect to it, say something and hear what comes back."""
    port = free()
    serving = asyncio.create_task(listener.serve(CollectorRegistry(), HOST, port))
    async with AsyncExitStack() as stack:

        async def knock(says: bytes) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(HOST, port)
            stack.callback(writer.close)
            writer.write(says)
            return reader

        async def shown() -> bool:
            return await scraped(port) is not None

        await until(shown, "the metrics", seconds=5)
        yield port, knock
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def shown_out(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Whether the connection ends within that time, with no answer."""
    try:
        return await asyncio.wait_for(reader.read(), seconds) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_connections_that_ask_nothing_are_few_and_end_and_then_the_metrics_are_shown_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=1))
    async with showing() as (port, knock):
        held = [await knock(b"GET /metrics HTTP/1.1\r\nX: ") for _ in range(door.CONNECTIONS)]
        assert await shown_out(await knock(b""), 0.3), "one more is not taken in"
        assert not any(reader.at_eof() for reader in held)
        assert all(await asyncio.gather(*(shown_out(reader, 2) for reader in held)))
        assert await scraped(port) == {}


async def test_a_request_without_end_is_not_read_to_its_end() -> None:
    async with showing() as (port, knock):
        assert await shown_out(await knock(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * door.HEAD), 1)
        assert await scraped(port) == {}


async def test_who_does_not_read_the_answer_keeps_nobody_from_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with showing() as (port, knock):
        monkeypatch.setattr(door, "CONNECTIONS", 2)
        monkeypatch.setattr(door, "PATIENCE", timedelta(seconds=1))
        monkeypatch.setattr(listener, "KEPT_FOR", timedelta(0))
        with monkeypatch.context() as patch:
            patch.setattr(listener, "generate_latest", lambda _: b"#" * (32 << 20))
            for _ in range(door.CONNECTIONS):
                await knock(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert await shown_out(await knock(b""), 0.2), "all places are taken"

        async def shown() -> bool:
            with suppress(aiohttp.ClientError):
                return await scraped(port) == {}
            return False

        await until(shown, "the metrics", seconds=3)


async def test_a_connection_has_one_answer() -> None:
    async with showing() as (_, knock):
        twice = await knock(b"GET / HTTP/1.1\r\n\r\n" * 2)
        assert (await twice.read()).count(b"HTTP/1.1 404 ") == 1


async def test_an_operator_whose_port_is_taken_grants_all_the_same_and_shows_its_metrics_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "AGAIN", timedelta(milliseconds=10))
    world = World()
    world.now = datetime.now(UTC) - timedelta(minutes=2)
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    held, port = taken()
    operator, _ = operator_of(world, tmp_path, targets=("shop",), metrics_port=port, metrics_host=HOST)
    world.now += timedelta(minutes=1)
    owner = world.add("Pod", pod("one"))
    world.add("AccessRequest", request("r", owner, "2m", "valetkey-one-a", world.now))
    died = asyncio.Event()
    try:
        with closing(held), caplog.at_level(logging.ERROR):
            await operator.start(died.set)

            async def granted() -> bool:
                return bool(world.live_tokens())

            await until(granted, "the request to be granted", seconds=5)
            assert "set metrics.port" in caplog.text

        async def shown() -> bool:
            figures = await scraped(port) or {}
            return figures.get("valetkey_grants Live") == 1

        await until(shown, "the metrics", seconds=5)
        figures = await scraped(port) or {}
        assert figures["valetkey_leader"] == figures["valetkey_guards_in_force"] == 1
        assert figures["valetkey_policies_fresh"] == 1
        assert figures["valetkey_decisions_total Approved PolicyMatched"] == 1
        assert figures["valetkey_log_records_total"] >= 4
        assert not died.is_set()
    finally:
        await operator.stop()


async def test_a_replica_that_follows_shows_its_process_and_that_it_does_not_lead(tmp_path: Path) -> None:
    world, port = World(), free()
    other = {"metadata": {"name": "valetkey", "namespace": "valetkey-system"}}
    world.add("Leader", other | {"spec": {"holderIdentity": "valetkey-1_uid", "leaseDurationSeconds": 60}})
    operator, _ = operator_of(world, tmp_path, metrics_port=port, metrics_host=HOST)
    try:
        await operator.start(lambda: None)

        async def shown() -> bool:
            return await scraped(port) is not None

        await until(shown, "the metrics", seconds=5)
        figures = await scraped(port) or {}
        assert figures["valetkey_leader"] == 0
        assert figures["process_resident_memory_bytes"] > 0
    finally:
        await operator.stop()
