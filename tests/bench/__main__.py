"""`python -m tests.bench [--quick]`: the figures of valetkey beside a bare client's in the same run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from tests.bench import (
    containers,
    crowd,
    decide,
    door,
    ends,
    failover,
    flood,
    imports,
    many,
    one,
    outage,
    policy,
    rows,
    sdk,
)
from tests.bench.rig import Rig
from tests.bench.table import Row, save, show
from tests.cluster.audit_log import count
from tests.cluster.local import images
from tests.cluster.local.cluster import Cluster, up
from tests.cluster.local.places import AUDIT_LOG, ROOT, LocalClusterError

ROUNDS = 5
PARTS = (
    "decide",
    "imports",
    "crowd",
    "thousand",
    "one",
    "sdk",
    "burst",
    "ends",
    "flood",
    "policy",
    "failover",
    "containers",
    "outage",
)
"""Those that measure memory first, for it is to be that of live grants, not of the history that the others leave."""


def main() -> int:
    """Measures, shows and saves; 1 where a goal is not met."""
    arguments = argparse.ArgumentParser(prog="python -m tests.bench")
    arguments.add_argument("--quick", action="store_true", help="few samples, to try it out: no figure to quote")
    arguments.add_argument("--only", choices=PARTS, action="append")
    chosen = arguments.parse_args()
    parts = chosen.only or PARTS
    measured: list[Row] = [decide.measure()] if "decide" in parts else []  # by itself, while nothing else runs
    measured += imports.measure() if "imports" in parts else []
    if set(parts) <= {"decide", "imports"}:
        return _conclude(measured)
    try:
        cluster = up(say)
        if cluster.node is None or cluster.source != "built":
            say("the bench needs the local cluster with its node, for it reads the audit log: run it as root")
            return 1
        images.load(cluster, say)
    except LocalClusterError as error:
        say(f"no cluster, so no figures: {error}")
        return 1
    try:
        asyncio.run(measure(cluster, measured, quick=chosen.quick, only=parts))
    finally:
        code = _conclude(measured)
    return code


def _conclude(measured: list[Row]) -> int:
    """Shows and saves; 1 where a goal is not met."""
    show(measured)
    save(measured, ROOT / "build" / "bench.json")
    return 0 if all(row.met for row in measured) else 1


async def measure(cluster: Cluster, measured: list[Row], *, quick: bool, only: Collection[str]) -> None:
    """Adds the rows that are asked for, as they are measured."""
    async with Rig(cluster, say) as rig:
        died: list[float] = []
        if "crowd" in only:
            measured += rows.of_crowd(await crowd.measure(rig, 1000 if quick else 10_000))
        if "thousand" in only:
            measured += rows.of_thousand(await many.thousand(rig, 100 if quick else 1000))
        if {"one", "containers"} & set(only):
            times = await one.measure(rig, 20 if quick else 300)
            died = times["dead"]
            measured += rows.of_one(times)
        if "sdk" in only:
            with sdk.inside(rig):
                measured += rows.of_sdk(
                    await sdk.measure(rig, 20 if quick else 500), await sdk.calls(rig, 5 if quick else 50)
                )
                number, tasks = (5, 4) if quick else (50, 20)
                async with door.opened(rig):
                    measured += rows.of_door(await door.measure(rig, 20 if quick else 500))
                measured += rows.of_agents(await sdk.many(rig, number, tasks), await sdk.restarted(rig, number))
        if "burst" in only:
            measured += await _burst(rig, 60 if quick else 300)
        if "ends" in only:
            for number, rounds in ((20, 1),) if quick else ((100, 3), (1000, 1)):
                agents = await many.agents(rig, number, f"ends-{number}")
                measured += rows.of_ends(number, [await ends.measure(rig, agents, round_) for round_ in range(rounds)])
        if "flood" in only:
            measured += rows.of_flood(*await flood.measure(rig, 1000 if quick else 10_000, 20 if quick else 200))
        if "policy" in only:
            measured += rows.of_policy(
                await policy.changed(rig, 100 if quick else 1000),
                await policy.denied(rig, 20 if quick else 500),
                await policy.approved(rig, 20 if quick else 300),
            )
        if "failover" in only:
            measured += rows.of_failover(
                *await failover.measure(rig, 2 if quick else 10), await failover.lag(rig, 2 if quick else 20)
            )
        if "containers" in only:
            measured += rows.of_containers(await containers.measure(rig, 5 if quick else 30), died)
        if "outage" in only:
            away = timedelta(minutes=6 if quick else 14)
            measured += rows.of_outage(await outage.measure(rig, 100 if quick else 1000, away))


async def _burst(rig: Rig, number: int) -> list[Row]:
    """Rounds of both, each first in turn, for the machine's pace changes by the minute."""
    rounds = []
    agents = await many.agents(rig, number)
    for round_ in range(ROUNDS):
        if round_ % 2:
            bare = await many.bare_burst(rig, agents, round_)
        since = datetime.now(UTC)
        ours = await many.burst(rig, agents, round_)
        until = datetime.now(UTC)
        if not round_ % 2:
            bare = await many.bare_burst(rig, agents, round_)
        rounds.append((ours / bare, ours, bare))
    counted = count(AUDIT_LOG, since, until)
    for name, times in sorted(counted.items()):
        say(f"  {times:6} {name}")
    return rows.of_burst(number, rounds, sum(counted.values()) / number)


def say(text: str) -> None:
    """Shows progress."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


sys.exit(main())
