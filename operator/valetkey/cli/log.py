"""`valetkey log`: the story of one task or one request, from the operator's log."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from valetkey.audit import history
from valetkey.cli import remote
from valetkey.cli.kubectl import Output
from valetkey.cli.tables import show


def log(
    task: Annotated[str | None, typer.Option(help="The task's id.")] = None,
    request: Annotated[str | None, typer.Option(help="The request: namespace/name, or its uid.")] = None,
    directory: remote.Directory = None,
    url: remote.Url = None,
    authority: remote.Authority = None,
    namespace: remote.Namespace = "valetkey-system",
    since: remote.Since = remote.WEEK,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Show what was asked, decided, issued and taken away, and why.

    Read in the operator's pod, in a directory, or from where the operator serves it: that takes the right to make a
    token of its account valetkey-auditor, and the files come here for as long as the command runs.
    """
    if task is None and request is None:
        raise typer.BadParameter("name a task with --task or a request with --request")
    log = remote.read(directory, url, authority, namespace, since)
    found = history.select(log.records, task=task, request=request)
    if output is Output.JSON:
        for record in found:
            typer.echo(json.dumps(record))
    else:
        _table(found)
    for place in log.broken:
        where = f" line {place.line}" if place.line else ""
        typer.echo(f"valetkey: {place.file}{where}: the chain does not hold: {place.why}", err=True)
    if log.left and not found:
        typer.echo(f"valetkey: {log.left} older files were not fetched; --since 2160h fetches them", err=True)
    if not found:
        typer.echo("valetkey: no record of it", err=True)
    if log.broken or not log.whole or not found:
        raise typer.Exit(1)


def _table(records: list[history.Record]) -> None:
    fields = ("at", "request", "reason", "policy", "credential_id", "message")
    rows = [[record.get(name) for name in fields] for record in records]
    for row in rows:
        row[0] = f"{str(row[0])[:19]}Z"
    columns = ("TIME", "REQUEST", "REASON", "POLICY", "CREDENTIAL", "MESSAGE")
    show(columns, rows, whole=("TIME", "REASON"), width=200)
