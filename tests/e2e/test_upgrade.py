"""From an earlier version to this one with a hundred grants alive: none is lost, none is left behind."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.api import SYSTEM, Caller, Json
from tests.cluster.conftest import Helm
from tests.cluster.local import images
from tests.cluster.local.cluster import Cluster
from tests.cluster.local.places import ROOT
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from tests.e2e.conftest import OPERATED

EARLIER = "1d2a6c3"
"""Before the hook that revokes, `limits.requests`, and all that is said of a restored store."""
NUMBER = 100
_AT_A_TIME = 10


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The source of the earlier version."""
    packed = subprocess.run(["git", "archive", EARLIER], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        advice = f"this clone has no {EARLIER} to upgrade from: git fetch --unshallow"
        if os.environ.get("CI"):
            pytest.fail(advice)
        pytest.skip(advice)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


async def test_an_upgrade_loses_no_grant_and_leaves_none_behind(
    operated: World, cluster: Cluster, helm: Helm, install: Callable[[Json], None], earlier: Path
) -> None:
    uninstalled = await asyncio.to_thread(helm, "uninstall", "valetkey", "--namespace", SYSTEM, "--wait")
    assert uninstalled.returncode == 0, uninstalled.stderr
    live: list[tuple[Agent, str, Caller]] = []
    try:
        await asyncio.to_thread(_install_earlier, earlier, helm)
        await asyncio.sleep(4)  # a request is granted only if the guards stood three seconds before it
        agents = [Agent(operated, f"upgraded-{number}-{os.getpid()}") for number in range(NUMBER)]
        for first in range(0, NUMBER, _AT_A_TIME):
            live += await asyncio.gather(*(_begun(agent) for agent in agents[first : first + _AT_A_TIME]))
    finally:
        await asyncio.to_thread(images.load, cluster, lambda _: None)
        await asyncio.to_thread(install, OPERATED)
    await asyncio.sleep(10)  # it has read all, swept twice, and judged every policy again
    _, listed = await operated.api.get(f"{OURS}/namespaces/agents/taskgrants")
    assert {name for _, name, _ in live} <= {body["metadata"]["name"] for body in listed["items"]}, "a grant was lost"
    for agent, name, credential in live:
        assert await agent.may(credential), f"{name} was ended by the upgrade"
    await asyncio.gather(*(_ended(agent, name, credential) for agent, name, credential in live))
    await asyncio.gather(*(agent.leave() for agent in agents))


async def _begun(agent: Agent) -> tuple[Agent, str, Caller]:
    await agent.begin()
    name = await agent.granted(spec={"ttl": "9m"})  # less than a token lives, so that none is renewed
    return agent, name, await agent.credential()


async def _ended(agent: Agent, name: str, credential: Caller) -> None:
    await agent.report(name)
    await agent.dead(credential, seconds=60)
    assert (await agent.finished(name))["reason"] == "TaskReleased"
    await agent.nothing_left()
    assert await agent.traces(credential) == []


def _install_earlier(earlier: Path, helm: Helm) -> None:
    environment = os.environ | {"PYTHONPATH": str(earlier)}
    command = [sys.executable, "-m", "tests.cluster.local", "images"]
    made = subprocess.run(command, cwd=earlier, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    chart = ("upgrade", "--install", "valetkey", str(earlier / "charts" / "valetkey"), "--namespace", SYSTEM)
    done = helm(*chart, "--create-namespace", "--wait", "--timeout", "120s", values=OPERATED)
    assert done.returncode == 0, done.stderr
