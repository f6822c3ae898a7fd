"""kubectl, as whoever runs a command has it: their kubeconfig and their rights, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from enum import StrEnum
from typing import Any, Final

import typer

from valetkey.cli.tables import printable

Json = dict[str, Any]
_TARGET: Final = re.compile(r"(?:(?P<namespace>[a-z0-9][a-z0-9-]*)/)?(?P<name>[a-z0-9][a-z0-9.-]*)")


class Output(StrEnum):
    """How things are shown."""

    TABLE = "table"
    JSON = "json"


def kubectl(*arguments: str, given: Json | None = None) -> str:
    """What kubectl says, `given` on its standard input; ends the command where it refuses."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and names begin with a letter or digit
            ["kubectl", *arguments],  # noqa: S607 - the caller's own
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError as error:
        raise stop("kubectl is not on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise stop(f"kubectl {arguments[0]} did not answer for a minute") from error
    if done.returncode != 0:
        raise stop(done.stderr.strip())
    return done.stdout


def read(kind: str, namespace: str | None, name: str) -> Json | None:
    """An object; None where there is none."""
    place = ("-n", namespace) if namespace else ()
    found = kubectl("get", kind, name, *place, "-o", "json", "--ignore-not-found")
    return dict(json.loads(found)) if found.strip() else None


def whoami() -> Json:
    """Who the API server takes the caller for: username, groups, extra."""
    return dict(json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"])


def place_of(target: str, namespace: str | None) -> tuple[str, str]:
    """The namespace and name that `NAME` or `NAMESPACE/NAME` stands for; by default, the kubeconfig's namespace."""
    found = _TARGET.fullmatch(target)
    if found is None:
        raise typer.BadParameter(f"{target!r} is neither NAME nor NAMESPACE/NAME")
    where = found["namespace"] or namespace
    if where is None:
        where = kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip() or "default"
    return where, found["name"]


def stop(text: str, code: int = 1) -> typer.Exit:
    """Says why a command ends here."""
    # What kubectl says may hold words of others.
    typer.echo("valetkey: " + "\n".join(printable(line) for line in text.splitlines()), err=True)
    return typer.Exit(code)
