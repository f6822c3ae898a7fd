"""`valetkey …`: what people type."""

from __future__ import annotations

import typer

from valetkey.cli.approve import approve, deny
from valetkey.cli.ask import can_i, explain, who_can
from valetkey.cli.cases import cases
from valetkey.cli.get import get
from valetkey.cli.lock import lock, unlock
from valetkey.cli.log import log
from valetkey.cli.review import review
from valetkey.cli.revoke import revoke
from valetkey.cli.simulate import simulate
from valetkey.cli.uninstall import uninstall

app = typer.Typer(
    name="valetkey",
    help="Just-in-time access for agents and other workloads on Kubernetes.",
    epilog="In an agent's pod: valetkey run, valetkey sidecar and valetkey mcp, each with --help of its own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(get)
app.command()(approve)
app.command()(deny)
app.command()(review)
app.command()(explain)
app.command()(can_i)
app.command()(who_can)
app.command()(simulate)
app.command("test")(cases)
app.command()(lock)
app.command()(unlock)
app.command()(log)
app.command()(revoke)
app.command(hidden=True)(uninstall)
