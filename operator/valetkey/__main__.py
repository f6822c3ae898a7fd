"""Composition roots: operator, log-server and serve; run, sidecar and mcp are for agents, the rest for people."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command that the arguments name."""
    if sys.argv[1:2] == ["operator"]:
        operator(sys.argv[2:])
    elif sys.argv[1:2] == ["log-server"]:
        log_server(sys.argv[2:])
    elif sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2:])
    elif sys.argv[1:2] == ["run"]:
        from valetkey.agent import run

        sys.exit(run.main(sys.argv[2:]))
    elif sys.argv[1:2] == ["sidecar"]:
        from valetkey.agent import sidecar

        sys.exit(sidecar.main(sys.argv[2:]))
    elif sys.argv[1:2] == ["mcp"]:
        try:
            from valetkey.agent import mcp
        except ModuleNotFoundError as error:
            sys.exit(f"valetkey: {error.name} is missing: install valetkey[mcp]")

        sys.exit(mcp.main(sys.argv[2:]))
    else:
        try:
            from valetkey.cli.app import app
        except ModuleNotFoundError as error:
            sys.exit(
                f"valetkey: {error.name} is missing: only run and sidecar are here without the extra valetkey[cli]"
            )

        # On PATH as kubectl-valetkey it is a plugin: `kubectl valetkey …`.
        app(prog_name="kubectl valetkey" if Path(sys.argv[0]).name == "kubectl-valetkey" else "valetkey")


def operator(arguments: list[str]) -> None:
    """Runs the operator with `--settings FILE`; its imports stay out of everything else."""
    import argparse
    import gc
    import os

    from valetkey.controller.health import Health
    from valetkey.settings import Settings

    parser = argparse.ArgumentParser(prog="valetkey operator", description="Run the operator.")
    parser.add_argument("--settings", type=Path, required=True, help="the settings that the chart writes")
    settings = Settings.model_validate_json(parser.parse_args(arguments).settings.read_bytes())
    # Before the long imports: what an earlier process has left would pass for this one's.
    Health(settings.run_directory).clear()

    import uvloop

    from valetkey.controller.handlers import run
    from valetkey.output import configure

    configure(settings.log_format)
    # What lives is acyclic and stays; looking through all of it again and again would cost more than it finds.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    # The API server stores 10 000 levels of JSON; what cannot be read would stop its watch and hide what comes next.
    sys.setrecursionlimit(12_000)
    uvloop.run(run(settings, instance=os.environ["POD_NAME"], uid=os.environ["POD_UID"]))


def log_server(arguments: list[str]) -> None:
    """Serves the operator's log to auditors, with `--settings FILE`."""
    import argparse
    import asyncio

    from valetkey.kube import session
    from valetkey.kube.client import Client
    from valetkey.kube.clock import Clock
    from valetkey.output import configure
    from valetkey.serve import log
    from valetkey.serve.auditors import auditors
    from valetkey.settings import Settings

    parser = argparse.ArgumentParser(prog="valetkey log-server", description="Serve the log to be read.")
    parser.add_argument("--settings", type=Path, required=True, help="the settings that the chart writes")
    settings = Settings.model_validate_json(parser.parse_args(arguments).settings.read_bytes())
    configure(settings.log_format)

    async def run() -> None:
        async with session.open_session(settings.account_directory) as opened:
            client = Client(opened, session.server(), clock=Clock())
            files = log.LogFiles(settings.log_directory, auditors(client, settings.namespace))
            where = settings.log_server_host, settings.log_server_port
            await log.serve(files, *where, Path("/etc/valetkey-log"))

    asyncio.run(run())


def serve(arguments: list[str]) -> None:
    """Serves agents at the door, with `--settings FILE`."""
    import argparse
    import asyncio
    import signal
    from contextlib import suppress

    from valetkey.kube import session
    from valetkey.kube.client import Client
    from valetkey.kube.clock import Clock
    from valetkey.output import configure
    from valetkey.serve import agents
    from valetkey.serve.pods import pods
    from valetkey.serve.requests import Requests
    from valetkey.settings import DoorSettings

    parser = argparse.ArgumentParser(prog="valetkey serve", description="Serve agents over HTTPS.")
    parser.add_argument("--settings", type=Path, required=True, help="the settings that the chart writes")
    settings = DoorSettings.model_validate_json(parser.parse_args(arguments).settings.read_bytes())
    configure(settings.log_format)

    async def run() -> None:
        serving = asyncio.current_task()
        assert serving is not None
        # The first process of a container hears of no signal that it has not asked for.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        # A call that waits has a watch of its own.
        connections = 2 * agents.CONNECTIONS
        async with session.open_session(settings.account_directory, connections=connections) as opened:
            client = Client(opened, session.server(), clock=Clock())
            door = agents.Agents(pods(client), Requests(client), settings.agent_namespaces)
            tls, alive = settings.certificate_directory, settings.run_directory
            await agents.serve(door, settings.host, settings.port, tls=tls, run=alive)

    with suppress(asyncio.CancelledError):
        asyncio.run(run())


if __name__ == "__main__":
    main()
