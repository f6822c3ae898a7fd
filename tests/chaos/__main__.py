"""`python -m tests.chaos [--long]`: a thousand grants under faults, and a table of what became of them."""

from __future__ import annotations

import argparse
import asyncio
import sys

from rich.console import Console
from rich.table import Table

from tests.chaos.story import GRANTS, LATE, Outcome, tell
from tests.chaos.world import ChaosWorld
from tests.cluster.local.cluster import up
from tests.cluster.local.places import LocalClusterError

_SHORT, _LONG = 12.0, 900.0
"""Seconds; the longer one is longer than any credential lives."""


def main() -> int:
    """Plays the story and prints the table; 1 where a credential was leaked, or where no watch expired."""
    arguments = argparse.ArgumentParser(prog="python -m tests.chaos")
    arguments.add_argument("--seed", type=int, default=1, help="another seed, other faults")
    arguments.add_argument(
        "--grants", type=int, help=f"how many there are to be at least: {GRANTS}, or with --long any"
    )
    arguments.add_argument(
        "--long", action="store_true", help="each fault once, and the API server away for 15 minutes"
    )
    chosen = arguments.parse_args()
    try:
        cluster = up(say)  # builds what a control plane is made of; the one that runs is left alone
    except LocalClusterError as error:
        say(f"no cluster, so no chaos: {error}")
        return 1
    if cluster.source != "built":
        say("chaos kills its own control plane, built from Go modules: run it on Debian 12 as root, without kind")
        return 1
    grants, outage = (0, _LONG) if chosen.long else (GRANTS, _SHORT)
    outcome = asyncio.run(play(seed=chosen.seed, grants=chosen.grants or grants, outage=outage))
    show(outcome)
    return 1 if outcome.leaked or not outcome.expired else 0


async def play(*, seed: int, grants: int, outage: float) -> Outcome:
    """The whole story, from nothing."""
    async with ChaosWorld(say, seed=seed) as world:
        return await tell(world, grants=grants, outage=outage)


def show(outcome: Outcome) -> None:
    """Prints the table for people."""
    table = Table(
        "fault", "grants due", "leaked", "late", "worst lateness", "API away", "interrupted", title="make chaos"
    )
    for row in outcome.rows:
        table.add_row(
            row.phase,
            str(row.grants),
            "",
            str(row.late),
            f"{row.worst:.1f} s",
            f"{row.away:.1f} s",
            str(row.interrupted),
        )
    worst = max((row.worst for row in outcome.rows), default=0.0)
    table.add_section()
    table.add_row("all", str(outcome.grants), str(len(outcome.leaked)), str(outcome.late), f"{worst:.1f} s", "", "")
    console = Console(width=120)
    console.print(table)
    console.print(
        f"Played in {outcome.seconds:.0f} s: {outcome.kills} kills, {outcome.faults} faults, {outcome.expired} watches "
        f"expired (410), {outcome.ungranted} requests that were never granted. "
        f"Late is what is refused more than {LATE:.0f} s after its end, two takeovers, not counting while the API "
        "server was away. Interrupted is what had no credential right before its end: the operator had died while "
        "delivering it."
    )
    if outcome.alive:
        console.print(
            f"{outcome.alive} credentials worked when the API server had gone for longer than any lives; at the end of "
            f"that {outcome.died} of them were refused, though nobody could revoke them."
        )
    for one in outcome.leaked:
        console.print(f"LEAKED: {one}")


def say(text: str) -> None:
    """Shows progress."""
    sys.stderr.write(f"chaos: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
