"""Tables for people: as wide as their terminal, 100 columns elsewhere, and nothing of it is markup or control code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

WIDTH: Final = 100
"""Columns where there is no terminal."""


def show(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Iterable[str] = (), width: int = WIDTH
) -> None:
    """Prints a table; the columns that are `whole` are never folded, the others are rather than cut off."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*(printable(str(cell if cell is not None else "")) for cell in row))
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=width)
    console.print(table)


def printable(text: str) -> str:
    """Words that agents chose, as they are and without what a terminal obeys."""
    return "".join(c if c.isprintable() else "�" for c in text)
