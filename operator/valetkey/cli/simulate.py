"""`valetkey simulate`: what a policy would have changed, had it been there when the log was written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from valetkey.cli import remote
from valetkey.cli.cases import load_policies
from valetkey.cli.cluster import policies as of_cluster
from valetkey.cli.kubectl import Output
from valetkey.cli.tables import show
from valetkey.policy.compile import Policies
from valetkey.policy.replay import Replayed, replay


def simulate(
    file: Annotated[
        Path, typer.Option("-f", "--filename", help="AgentPolicies, in YAML; one of a known name replaces it.")
    ],
    directory: remote.Directory = None,
    url: remote.Url = None,
    authority: remote.Authority = None,
    namespace: remote.Namespace = "valetkey-system",
    since: remote.Since = remote.WEEK,
    beside: Annotated[
        Path | None,
        typer.Option("--policies", help="A directory of AgentPolicies that are there; else, the cluster's."),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Take this policy away as well.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Decide the recorded requests again by the policies as they are and as they would be, and show what differs.

    Exit code 0 whatever differs; 2 where something cannot be read. Limits are those of the time of the record.
    """
    changed = load_policies(file)
    there = load_policies(beside) if beside is not None else of_cluster()
    names = {one.policy.metadata.name for one in changed.all} | set(without or ())
    after = Policies.of([*(one for one in there.all if one.policy.metadata.name not in names), *changed.all])
    log = remote.read(directory, url, authority, namespace, since)
    replayed = list(replay(log.records, there, after))
    told = [one for one in replayed if one is not None and one.differs]
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(one) for one in told]))
    else:
        _table(told, replayed)
    if not log.whole:
        raise typer.Exit(2)


def _table(told: list[Replayed], replayed: list[Replayed | None]) -> None:
    if told:
        rows = [(f"{one.at[:19]}Z", one.request, one.before, one.after, one.message) for one in told]
        show(("TIME", "REQUEST", "BY POLICIES AS THEY ARE", "AS THEY WOULD BE", "WHY"), rows, whole=("TIME",))
    unread = replayed.count(None)
    typer.echo(f"{len(told)} of {len(replayed)} decisions differ" + (f", {unread} could not be read" if unread else ""))
