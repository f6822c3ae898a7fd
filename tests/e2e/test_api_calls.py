"""What a grant costs the API server, by its own audit log: the requests that are listed and justified, and no more."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.cluster.api import ROOT
from tests.cluster.audit_log import count
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import Agent

BACKGROUND = ("get clusterroles", "patch agentpolicies/status", "delete accessrequests")
"""What is no part of a grant: roles that may be handed out are read, policies are judged, histories end."""


def listed() -> Counter[str]:
    """The requests of chain.md."""
    rows = re.findall(r"^\| [0-9]+ \| (\w+) \| (\S+) \|", (ROOT / "tests/bench/chain.md").read_text(), re.MULTILINE)
    return Counter(f"{verb} {resource}" for verb, resource in rows)


async def test_a_grant_costs_the_requests_that_are_listed(cluster: Cluster, agent: Agent) -> None:
    if cluster.audit_log is None:
        pytest.skip("the requests are counted in the audit log, which the built cluster alone has")
    await asyncio.sleep(1)
    since = datetime.now(UTC)
    name = await agent.granted()
    await asyncio.sleep(1)  # an agent works for a while; its grant is not renewed yet
    await agent.report(name)
    await agent.finished(name)
    await agent.nothing_left()
    await asyncio.sleep(1)
    counted = count(cluster.audit_log, since, datetime.now(UTC))
    for what in BACKGROUND:
        counted.pop(what, None)
    assert counted == listed()
    assert sum(counted.values()) == 26
