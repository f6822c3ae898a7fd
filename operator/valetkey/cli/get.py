"""`valetkey get`: requests at a glance, and what became of one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

import typer

from valetkey.cli.codes import DENIED, ENDED, WAITING
from valetkey.cli.kubectl import Json, Output, kubectl, place_of, read, stop
from valetkey.cli.tables import printable, show

_KIND: Final = "accessrequests.valetkey.dev"


class _State(NamedTuple):
    """What became of a request, in a word, why, and as an exit code."""

    word: str
    why: str
    code: int


def get(
    request: Annotated[str | None, typer.Argument(help="One AccessRequest: NAME or NAMESPACE/NAME.")] = None,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Those of this namespace.")] = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Those of all namespaces.")] = False,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Show requests, the newest last; of one, what became of it and why.

    Exit code for one: 0 its access is there, 3 it was denied, 4 it waits, 5 its access has ended.
    """
    if request is None:
        return _show_all(namespace, everywhere, output)
    where, name = place_of(request, namespace)
    body = read(_KIND, where, name)
    if body is None:
        raise stop(f"there is no AccessRequest {where}/{name}")
    state = _state(body)
    if output is Output.JSON:
        typer.echo(json.dumps(body))
    else:
        status = body.get("status", {})
        lines = [f"{where}/{name}: {state.word}", state.why, f"asks for {status.get('access', '')}"]
        lines += [f"allowed: {allowed}"] if (allowed := _denial(body).get("allowed")) else []
        lines += [f"ask: {contact}"] if (contact := _denial(body).get("contact")) else []
        lines += [f"until {status['expiresAt']}"] if state.code == 0 and "expiresAt" in status else []
        typer.echo("\n".join(printable(line) for line in lines if line))
    raise typer.Exit(state.code)


def _show_all(namespace: str | None, everywhere: bool, output: Output) -> None:
    place = ("-A",) if everywhere else ("-n", namespace) if namespace else ()
    items = json.loads(kubectl("get", _KIND, *place, "-o", "json", "--sort-by=.metadata.creationTimestamp"))["items"]
    if output is Output.JSON:
        return typer.echo(json.dumps(items))
    if not items:
        return typer.echo("no requests")
    rows = [
        (
            f"{body['metadata']['namespace']}/{body['metadata']['name']}",
            body["spec"]["requester"]["serviceAccount"],
            body["spec"]["task"]["purpose"],
            body.get("status", {}).get("access"),
            _state(body).word,
            body.get("status", {}).get("expiresAt", "")[11:19],
        )
        for body in items
    ]
    return show(("REQUEST", "AGENT", "PURPOSE", "ACCESS", "STATE", "UNTIL"), rows, whole=("UNTIL",))


def _state(body: Json) -> _State:
    conditions = {entry["type"]: entry for entry in body.get("status", {}).get("conditions", ())}
    finished, ready = conditions.get("Finished", {}), conditions.get("Ready", {})
    if finished.get("status") == "True":
        denied = finished["reason"] in ("RequestDenied", "RequestInvalid")
        return _State(finished["reason"], finished["message"], DENIED if denied else ENDED)
    if ready.get("status") == "True":
        dead = body["status"].get("deadAt")
        if dead is not None and datetime.fromisoformat(dead) <= datetime.now(UTC):
            return _State("Lapsed", "its time is over, though nobody has said so yet; is the operator running?", ENDED)
        return _State("Ready", ready["message"], 0)
    waits = [entry for entry in conditions.values() if entry["status"] == "Unknown"]
    word, why = (waits[0]["reason"], waits[0]["message"]) if waits else ("Waiting", "nobody has looked at it yet")
    return _State(word, why, WAITING)


def _denial(body: Json) -> Json:
    return dict(body.get("status", {}).get("decision", {}).get("denial") or {})
