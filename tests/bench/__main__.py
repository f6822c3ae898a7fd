"""`python -m tests.bench [--quick]`: the figures of valetkey beside a bare client's in the same run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from tests.bench import containers, many, one
from tests.bench.rig import Rig
from tests.bench.table import Row, beside, p50, p99, save, show
from tests.cluster.audit_log import count
from tests.cluster.local import images
from tests.cluster.local.cluster import Cluster, up
from tests.cluster.local.places import AUDIT_LOG, ROOT, LocalClusterError

ROUNDS = 5
CALLS = 26
"""What chain.md lists."""


def main() -> int:
    """Measures, shows and saves; 1 where a goal is not met."""
    arguments = argparse.ArgumentParser(prog="python -m tests.bench")
    arguments.add_argument("--quick", action="store_true", help="few samples, to try it out: no figure to quote")
    arguments.add_argument("--only", choices=["one", "burst", "containers", "thousand"], action="append")
    chosen = arguments.parse_args()
    try:
        cluster = up(say)
        if cluster.node is None or cluster.source != "built":
            say("the bench needs the local cluster with its node, for it reads the audit log: run it as root")
            return 1
        images.load(cluster, say)
    except LocalClusterError as error:
        say(f"no cluster, so no figures: {error}")
        return 1
    rows: list[Row] = []
    try:
        asyncio.run(measure(cluster, rows, quick=chosen.quick, only=chosen.only))
    finally:
        show(rows)
        save(rows, ROOT / "build" / "bench.json")
    return 0 if all(row.met for row in rows) else 1


async def measure(cluster: Cluster, rows: list[Row], *, quick: bool, only: list[str] | None) -> None:
    """Adds all rows, or those that are asked for, as they are measured."""
    async with Rig(cluster, say) as rig:
        died: list[float] = []
        if not only or "thousand" in only:
            # First, for the memory is to be that of live grants, not of the history that the other rows leave.
            rows += _of_thousand(await many.thousand(rig, 100 if quick else 1000))
        if not only or {"one", "containers"} & set(only):
            times = await one.measure(rig, 20 if quick else 300)
            died = times["dead"]
            rows += [
                beside("request → credential readable", 50, times["ready"], times["bare ready"], 1.15),
                beside("request → credential readable", 99, times["ready"], times["bare ready"], 1.5),
                beside("outcome → 403", 50, times["dead"], times["bare dead"], 1.5),
                _p99_of_death(times["dead"], times["bare dead"]),
            ]
        if not only or "burst" in only:
            rows += await _burst(rig, 60 if quick else 300)
        if not only or "containers" in only:
            rows += _of_containers(await containers.measure(rig, 5 if quick else 30), died)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


async def _burst(rig: Rig, number: int) -> list[Row]:
    """Rounds of both, each first in turn, for the machine's pace changes by the minute."""
    rounds = []
    agents = await many.agents(rig, number)
    for round_ in range(ROUNDS):
        if round_ % 2:
            bare = await many.bare_burst(rig, agents, round_)
        since = _now()
        ours = await many.burst(rig, agents, round_)
        until = _now()
        if not round_ % 2:
            bare = await many.bare_burst(rig, agents, round_)
        rounds.append((ours / bare, ours, bare))
    counted = count(AUDIT_LOG, since, until)
    each = sum(counted.values()) / number
    for name, times in sorted(counted.items()):
        say(f"  {times:6} {name}")
    ratio, ours, bare = sorted(rounds)[ROUNDS // 2]
    return [
        Row(
            figure=f"{number} requests at once, none lost, none twice: median of {len(rounds)} rounds",
            valetkey=f"{ours:.1f}/s",
            bare=f"{bare:.1f}/s",
            ratio=ratio,
            goal="≥ 0.9 ×",
            met=ratio >= 0.9,
            samples={"valetkey": [ours for _, ours, _ in rounds], "bare": [bare for *_, bare in rounds]},
        ),
        Row(
            figure="API calls of one grant, from beginning to end",
            valetkey=f"{each:.1f}",
            bare=str(CALLS),
            ratio=each / CALLS,
            goal=f"≤ {CALLS}",
            met=round(each, 1) <= CALLS,  # a few live reads of the relist are among them
        ),
    ]


def _p99_of_death(ours: list[float], bare: list[float]) -> Row:
    row = beside("outcome → 403", 99, ours, bare, 2)
    if p99(bare) >= 50:
        return row
    return Row(**{**vars(row), "goal": "≤ 2 ×, ≤ 100 ms", "met": row.met and p99(ours) <= 100})


def _of_containers(times: containers.Containers, died: list[float]) -> list[Row]:
    return [
        Row(
            figure=f"container exits → 403, max of {len(times.exit)}",
            valetkey=f"{max(times.exit):.0f} ms (p50 {p50(times.exit):.0f})",
            goal="≤ 2000 ms",
            met=max(times.exit) <= 2000,
            samples={"valetkey": times.exit},
        ),
        Row(
            figure="pod status at the API → 403, p50, beside outcome → 403",
            valetkey=f"{p50(times.status):.1f} ms (max {max(times.status):.1f})",
            bare=f"{p50(died):.1f} ms",
            ratio=p50(times.status) / p50(died),
            goal="≤ 1.5 ×",
            met=p50(times.status) <= 1.5 * p50(died),
            samples={"valetkey": times.status},
        ),
        Row(
            figure=f"Secret created → file in the container, p50 of {len(times.file)}",
            valetkey=f"{p50(times.file):.0f} ms (max {max(times.file):.0f})",
            goal="≤ 1000 ms",
            met=p50(times.file) <= 1000,
            samples={"valetkey": times.file},
        ),
    ]


def _of_thousand(live: many.Thousand) -> list[Row]:
    number = len(live.handed)
    most = 20 + p99(live.syncs)
    return [
        Row(
            figure=f"TTL reached → key handed to a worker, {number} live, p99",
            valetkey=f"{p99(live.handed):.1f} ms (p50 {p50(live.handed):.1f})",
            goal="≤ 20 ms",
            met=p99(live.handed) <= 20,
            samples={"valetkey": live.handed},
        ),
        Row(
            figure="TTL reached → first write at the API, p99",
            valetkey=f"{p99(live.written):.1f} ms (p50 {p50(live.written):.1f})",
            bare=f"sync {p99(live.syncs):.1f} ms",
            goal=f"≤ {most:.1f} ms",
            met=p99(live.written) <= most,
            samples={"valetkey": live.written, "bare": live.syncs},
        ),
        Row(
            figure=f"operator memory at {number} live grants",
            valetkey=f"{live.memory:.0f} MB",
            goal="≤ 120 MB",
            met=live.memory <= 120,
        ),
    ]


def say(text: str) -> None:
    """Shows progress."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


sys.exit(main())
