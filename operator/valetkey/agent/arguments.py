"""What do `valetkey run` and `valetkey sidecar` take, and what do their exit codes mean?"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from valetkey.agent import durations
from valetkey.agent.ask import Ask, ask
from valetkey.agent.errors import (
    AccessError,
    ApprovalPending,
    Denied,
    Ended,
    InvalidAccess,
    NotGranted,
    NotInAPod,
    Refused,
    TimedOut,
    Unreachable,
)

USAGE: Final = 2
FAILED: Final = 70
TRY_LATER: Final = 75
DENIED: Final = 77
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNAL: Final = 128

_CODES: Final[dict[type[AccessError], int]] = {
    Denied: DENIED,
    Refused: DENIED,
    ApprovalPending: TRY_LATER,
    Ended: TRY_LATER,
    NotGranted: TRY_LATER,
    TimedOut: TRY_LATER,
    Unreachable: TRY_LATER,
    InvalidAccess: USAGE,
    NotInAPod: USAGE,
}


def parser(command: str, usage: str, description: str) -> argparse.ArgumentParser:
    """What both take."""
    made = argparse.ArgumentParser(
        prog=f"valetkey {command}",
        usage=f"valetkey {command} {usage}",
        description=description,
        allow_abbrev=False,  # another option one day is not to change what these mean
    )
    made.add_argument("--purpose", required=True, help="a purpose that a policy knows")
    made.add_argument("--objective", help="what the task is to achieve, for people")
    made.add_argument("--task", metavar="ID", help="your own word for the task")
    made.add_argument(
        "--param",
        metavar="NAME=TEXT",
        action="append",
        default=[],
        help="a parameter of the purpose; NAME:=JSON for numbers, booleans and lists",
    )
    made.add_argument("--ttl", help="for how long, such as 5m")
    made.add_argument("--timeout", type=_length, default=timedelta(seconds=60), help="how long to wait, such as 60s")
    made.add_argument(
        "--access",
        required=True,
        action="append",
        help="such as 'shop: get,patch deployments.apps/checkout', or as JSON, as a denial has it",
    )
    add_account_directory(made)
    return made


def add_account_directory(parser: argparse.ArgumentParser) -> None:
    """What `valetkey mcp` takes as well."""
    parser.add_argument(
        "--account-directory",
        type=Path,
        metavar="DIR",
        help="where the ServiceAccount is mounted, if elsewhere than usual",
    )


def ask_of(options: argparse.Namespace, objective: str) -> Ask:
    """What is asked for; raises InvalidAccess."""
    return ask(
        *(options.purpose, options.objective or objective, "; ".join(options.access)),
        parameters=dict(_parameter(text) for text in options.param),
        task=options.task,
        ttl=options.ttl,
    )


def code_of(error: AccessError) -> int:
    """The exit code for why there was no access."""
    return _CODES.get(type(error), FAILED)


def say(text: str) -> None:
    """Tells people; standard output is the program's."""
    print(f"valetkey: {text}", file=sys.stderr, flush=True)


def configure_output() -> None:
    """What is logged is told in the same way."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="valetkey: %(message)s")


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.rstrip(":"):
        raise InvalidAccess(f"--param {text!r} does not read as NAME=TEXT or NAME:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        raise InvalidAccess(f"--param {name} is no JSON: {error}") from error


def _length(text: str) -> timedelta:
    try:
        return durations.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
