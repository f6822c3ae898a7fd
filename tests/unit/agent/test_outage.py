"""The API server is away for half a minute: whoever asks waits, whoever holds access keeps it and hears what comes."""

from __future__ import annotations

import threading
import time

from tests.unit.agent.agents import access, entries, soon
from tests.unit.agent.apiserver import Apiserver

AWAY = 30.0


def test_thirty_seconds_without_an_api_server_end_nothing_and_lose_nothing(server: Apiserver) -> None:
    asked: list[str] = []
    with access(server, timeout=60, task="holds") as held:
        server.away()

        def asks() -> None:
            with access(server, timeout=90, task="asks") as grant:
                asked.append(grant.token())

        asking = threading.Thread(target=asks)
        asking.start()
        time.sleep(AWAY)
        assert held.token() == "granted-1"
        assert asked == []
        server.back()
        server.grant(held.name, token="granted-2", sequence=2)
        soon(lambda: held.token() == "granted-2", "the renewal that came meanwhile", seconds=15)
        asking.join(30)
        assert asked == ["granted-1"]
    assert {server.outcome(name) for name in server.names} == {"Succeeded"}
    assert entries() == []
