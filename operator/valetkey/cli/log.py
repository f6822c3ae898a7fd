"""`valetkey log`: the story of one task or one request, from the operator's log."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from valetkey.audit import history

DIRECTORY = Path("/var/log/valetkey")


class Output(StrEnum):
    """How the records are shown."""

    TABLE = "table"
    JSON = "json"


def log(
    task: Annotated[str | None, typer.Option(help="The task's id.")] = None,
    request: Annotated[str | None, typer.Option(help="The request: namespace/name, or its uid.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where the log is.")] = DIRECTORY,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Show what was asked, decided, issued and taken away, and why."""
    if task is None and request is None:
        raise typer.BadParameter("name a task with --task or a request with --request")
    try:
        records, broken = history.read(directory)
    except OSError as error:
        typer.echo(f"valetkey: {error}; name the log's directory with --dir", err=True)
        raise typer.Exit(2) from error
    found = history.select(records, task=task, request=request)
    if output is Output.JSON:
        for record in found:
            typer.echo(json.dumps(record))
    else:
        _table(found)
    for place in broken:
        where = f" line {place.line}" if place.line else ""
        typer.echo(f"valetkey: {place.file}{where}: the chain does not hold: {place.why}", err=True)
    if broken:
        raise typer.Exit(1)
    if not found:
        typer.echo("valetkey: no record of it", err=True)
        raise typer.Exit(1)


def _table(records: list[history.Record]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "REQUEST", "REASON", "POLICY", "CREDENTIAL", "MESSAGE"):
        # A narrow terminal folds what is long, so that nothing is cut off.
        table.add_column(column, no_wrap=column in ("TIME", "REASON"), overflow="fold")
    for record in records:
        # Words that agents chose are shown as they are, never as markup or control codes.
        cells = [record.get(name) or "" for name in ("at", "request", "reason", "policy", "credential_id", "message")]
        cells[0] = f"{str(cells[0])[:19]}Z"
        table.add_row(*(_printable(str(cell)) for cell in cells))
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=200)
    console.print(table)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)
