"""`valetkey lock` and `unlock`: a Deny that everybody on call can set, with who and why on it."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from valetkey.cli.kubectl import Json, Output, kubectl, read, stop, whoami
from valetkey.cli.tables import show
from valetkey.kinds.base import API_VERSION, LOCK_LABEL, LOCKED_BECAUSE, LOCKED_BY, format_time, parse_duration

_KIND: Final = "agentpolicies.valetkey.dev"


def lock(
    because: Annotated[str, typer.Option(help="Why; agents read it in their denials, and it goes on record.")],
    subject: Annotated[str | None, typer.Option(help="Only agents of this ServiceAccount: NAMESPACE/NAME.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only agents of this namespace.")] = None,
    purpose: Annotated[str | None, typer.Option(help="Only what is asked for this purpose.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, for everybody.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Until then: a time such as 2026-12-31T18:00:00Z, or from now on, such as 2h.")
    ] = None,
) -> None:
    """Deny access at once and end what is granted; it takes the right to create AgentPolicies, and no right to allow.

    What --subject, --namespace and --purpose say holds together. Lift it with `unlock`, which takes the verb allow.
    """
    if everything == any((subject, namespace, purpose)):
        raise typer.BadParameter("name what to lock: --subject, --namespace, --purpose, or --all alone")
    if subject and namespace:
        raise typer.BadParameter("--subject has a namespace of its own: leave --namespace out")
    if not because.strip():
        raise typer.BadParameter("say why: whoever is locked out reads it", param_hint="--because")
    user = whoami()["username"]
    spec: Json = {"effect": "Deny", "contact": f"{user}: {because.strip()}"[:256]}
    if subject or namespace:
        where, _, account = (subject or str(namespace)).partition("/")
        if subject and not account:
            raise typer.BadParameter("name it as NAMESPACE/NAME", param_hint="--subject")
        spec["subjects"] = [{"name": "locked", "namespace": where} | ({"serviceAccount": account} if account else {})]
    if purpose:
        spec["purposes"] = [{"name": purpose}]
    if until:
        spec["until"] = format_time(_time(until))
    what = subject or " ".join(filter(None, (namespace, purpose))) or "all"
    name = f"lock-{re.sub('[^a-z0-9]+', '-', what.lower()).strip('-')[:200]}-{secrets.token_hex(3)}"
    annotations = {LOCKED_BY: user, LOCKED_BECAUSE: because.strip()}
    metadata = {"name": name, "labels": {LOCK_LABEL: "true"}, "annotations": annotations}
    kubectl(
        "create",
        "-f",
        "-",
        given={"apiVersion": API_VERSION, "kind": "AgentPolicy", "metadata": metadata, "spec": spec},
    )
    typer.echo(f"{name} is set; lift it with: kubectl valetkey unlock {name}")


def unlock(
    names: Annotated[list[str] | None, typer.Argument(help="The locks to lift; none: show which there are.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json, of the locks.")] = Output.TABLE,
) -> None:
    """Lift locks; it takes the verb allow on each."""
    if not names:
        return _show(output)
    for name in names:
        body = read(_KIND, None, name)
        if body is None:
            raise stop(f"there is no lock {name}; without a name, `unlock` shows which there are")
        if body["metadata"].get("labels", {}).get(LOCK_LABEL) != "true":
            raise stop(f"{name} is no lock but a policy: change or delete it with kubectl")
        kubectl("delete", _KIND, name)
        typer.echo(f"{name} is lifted")
    return None


def _show(output: Output) -> None:
    locks = json.loads(kubectl("get", _KIND, "-l", f"{LOCK_LABEL}=true", "-o", "json"))["items"]
    if output is Output.JSON:
        return typer.echo(json.dumps(locks))
    if not locks:
        return typer.echo("nothing is locked")
    rows = [(body["metadata"]["name"], *_said(body)) for body in locks]
    return show(("LOCK", "WHAT", "UNTIL", "BY", "BECAUSE"), rows, whole=("UNTIL",))


def _said(body: Json) -> tuple[Any, ...]:
    spec, annotations = body["spec"], body["metadata"].get("annotations", {})
    subjects = [f"{one.get('namespace')}/{one.get('serviceAccount', '*')}" for one in spec.get("subjects", ())]
    purposes = [one["name"] for one in spec.get("purposes", ())]
    what = " ".join([*subjects, *purposes]) or "all"
    return what, spec.get("until", "")[:19], annotations.get(LOCKED_BY), annotations.get(LOCKED_BECAUSE)


def _time(text: str) -> datetime:
    try:
        at = datetime.now(UTC) + parse_duration(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter("write a time such as 2026-12-31T18:00:00Z, or 2h", param_hint="--until") from None
    if at.tzinfo is None:
        raise typer.BadParameter("the time needs a zone, as in 2026-12-31T18:00:00Z", param_hint="--until")
    if at - datetime.now(UTC) < timedelta(seconds=1):
        raise typer.BadParameter("that is over already", param_hint="--until")
    return at
