"""The metrics of the operator that runs: what Prometheus would read there."""

from __future__ import annotations

import asyncio
import re

from tests.cluster.api import SYSTEM, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.replicas import leader
from tests.e2e.agent import OURS, Agent

# Asked for in the pod itself: the tests' values bind the port to the node's own 127.0.0.1.
_ASKS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics', timeout=5).read().decode())"


async def scraped(cluster: Cluster, pod: str) -> dict[str, float]:
    """What a replica shows, by name and labels."""
    process = await asyncio.create_subprocess_exec(
        *("kubectl", "exec", "-n", SYSTEM, pod, "--", "python3", "-c", _ASKS),
        env=cluster.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    page, _ = await process.communicate()
    assert process.returncode == 0, page
    return {name: float(value) for name, value in re.findall(r"^(valetkey\S+) (\S+)$", page.decode(), re.M)}


async def test_the_operator_shows_that_it_leads_that_the_guards_are_in_force_and_what_is_granted(
    cluster: Cluster, agent: Agent
) -> None:
    pod, _ = await leader(agent.api)
    before = await scraped(cluster, pod)
    assert (before["valetkey_leader"], before["valetkey_guards_in_force"]) == (1, 1)
    name = await agent.granted(spec={"ttl": "5m"})
    _, there = await agent.api.get(f"{OURS}/taskgrants")
    live = 'valetkey_grants{state="Live"}'

    async def shows_all() -> bool:
        return (await scraped(cluster, pod))[live] == len(there["items"])

    async def shows_one_less() -> bool:
        return (await scraped(cluster, pod))[live] == len(there["items"]) - 1

    assert name in [body["metadata"]["name"] for body in there["items"]]
    await until(shows_all, "the page, which is made once a second, to show every grant", seconds=10)
    await agent.report(name)
    await until(shows_one_less, "the page to show that it is over", seconds=10)
    ended = 'valetkey_grants_ended_total{reason="TaskReleased"}'
    assert (await scraped(cluster, pod))[ended] > before[ended]
