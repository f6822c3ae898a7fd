"""The table: what was measured, beside the bare client and the goal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure."""

    figure: str
    valetkey: str
    bare: str = "–"
    ratio: float | None = None
    goal: str
    met: bool
    samples: dict[str, list[float]] = field(default_factory=dict)
    """What the figure was taken from, in its unit."""


def percentile(values: list[float], part: float) -> float:
    """The nearest-rank percentile: the smallest value that this part of all is no greater than."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * int(part) // 100) - 1)]


def p50(values: list[float]) -> float:
    """The middle."""
    return percentile(values, 50)


def p99(values: list[float]) -> float:
    """What one in a hundred exceeds."""
    return percentile(values, 99)


def beside(figure: str, part: int, ours: list[float], bare: list[float], most: float) -> Row:
    """A percentile of ours that may be so many times the bare client's."""
    mine, theirs = percentile(ours, part), percentile(bare, part)
    return Row(
        figure=f"{figure}, p{part}",
        valetkey=f"{mine:.1f} ms",
        bare=f"{theirs:.1f} ms",
        ratio=mine / theirs,
        goal=f"≤ {most} ×",
        met=mine <= most * theirs,
        samples={"valetkey": ours, "bare": bare},
    )


def show(rows: list[Row]) -> None:
    """Prints the table for people."""
    table = Table("figure", "valetkey", "bare client", "ratio", "goal", "met", title="make bench")
    for row in rows:
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.figure, row.valetkey, row.bare, ratio, row.goal, "yes" if row.met else "NO")
    Console(width=140).print(table)


def save(rows: list[Row], path: Path) -> None:
    """Writes all rows and samples for programs."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
