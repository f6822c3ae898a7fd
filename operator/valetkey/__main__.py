"""Composition roots: `valetkey operator` runs the operator, everything else is a command for people."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command that the arguments name."""
    if sys.argv[1:2] == ["operator"]:
        operator(sys.argv[2:])
    else:
        from valetkey.cli.app import app

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
    from valetkey.controller.output import configure

    configure(settings.log_format)
    # What lives is acyclic and stays; looking through all of it again and again would cost more than it finds.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    # The API server stores 10 000 levels of JSON; what cannot be read would stop its watch and hide what comes next.
    sys.setrecursionlimit(12_000)
    uvloop.run(run(settings, instance=os.environ["POD_NAME"], uid=os.environ["POD_UID"]))


if __name__ == "__main__":
    main()
