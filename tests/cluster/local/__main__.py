"""`python -m tests.cluster.local up|down [--all]|images|env`: a local cluster, by hand."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from tests.cluster.local import images
from tests.cluster.local.cluster import down, up
from tests.cluster.local.places import LocalClusterError


def main() -> int:
    """Does what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it, or mend it")
    ending = commands.add_parser("down", help="end what up started")
    ending.add_argument("--all", action="store_true", help="remove its state too")
    commands.add_parser("images", help="make the two images and load them")
    commands.add_parser("env", help="print what to export")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "down":
                down(say, everything=arguments.all)
            case "images":
                images.load(up(say), say)
            case "env":
                cluster = up(say)
                path = os.pathsep.join(shlex.quote(str(folder)) for folder in cluster.path)
                sys.stdout.write(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))} PATH={path}:$PATH\n")
            case _:
                up(say)
                say("the cluster is up")
    except LocalClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


def say(text: str) -> None:
    """Shows progress."""
    sys.stderr.write(f"cluster: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
