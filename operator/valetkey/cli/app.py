"""`valetkey …`: what people type."""

from __future__ import annotations

import typer

from valetkey.cli.log import log

app = typer.Typer(
    name="valetkey",
    help="Just-in-time access for agents and other workloads on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(log)


@app.callback()
def _root() -> None:
    """Keeps `log` a subcommand while it is the only one."""
