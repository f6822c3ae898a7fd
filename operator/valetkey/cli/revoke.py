"""`valetkey revoke`: ends one grant; by force, where what should revoke it is gone for good."""

from __future__ import annotations

import json
import re
from time import monotonic, sleep
from typing import Annotated, Any, Final

import typer

from valetkey.cli.kubectl import kubectl, read, stop, whoami
from valetkey.cli.taskgrant import expiry, held_up
from valetkey.kinds.base import FORCED_BECAUSE, FORCED_BY, REVOKE_FINALIZER

_KIND: Final = "taskgrants.valetkey.dev"
_GRANT: Final = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.-]*")


def revoke(
    grant: Annotated[str, typer.Argument(help="The TaskGrant: NAMESPACE/NAME.")],
    force: Annotated[bool, typer.Option("--force", help="Let it go although its revocation is not proved.")] = False,
    because: Annotated[str, typer.Option(help="Why by force; it goes on record.")] = "",
    within: Annotated[float, typer.Option(help="Seconds to wait for the revocation.")] = 30,
) -> None:
    """End a grant, with the rights and the kubeconfig of whoever runs this (kubectl does the asking).

    Without --force it waits for the revocation, and says what holds it up. By force the TaskGrant goes at once, with a
    record of who and why; what it had made may still be there, and is shown.
    """
    if not _GRANT.fullmatch(grant):
        raise typer.BadParameter("name the grant as NAMESPACE/NAME", param_hint="GRANT")
    namespace, name = grant.split("/")
    if force and not because.strip():
        raise typer.BadParameter("say why with --because: it is all that the record will have", param_hint="--force")
    body = read(_KIND, namespace, name)
    if body is None:
        raise stop(f"there is no TaskGrant {grant}")
    kubectl("delete", _KIND, name, "-n", namespace, "--wait=false")
    if force:
        _let_go(namespace, name, body, because.strip())
    else:
        _await(namespace, name, body["metadata"]["uid"], within)


def _await(namespace: str, name: str, uid: str, within: float) -> None:
    began, shown = monotonic(), ""
    while True:
        body = read(_KIND, namespace, name)
        if body is None or body["metadata"]["uid"] != uid:
            typer.echo(f"{namespace}/{name} is revoked")
            return
        says = held_up(body)
        if says and says != shown:
            typer.echo(f"waiting: {says}", err=True)
            shown = says
        if monotonic() - began > within:
            raise stop(
                f"{namespace}/{name} is not revoked yet: {says or 'nobody has begun to; is the operator running?'}\n"
                "It is tried for as long as the operator runs. If that can never succeed: --force --because …"
            )
        sleep(0.2)


def _let_go(namespace: str, name: str, body: dict[str, Any], because: str) -> None:
    user = whoami()["username"]
    left = [entry for entry in body["metadata"].get("finalizers", ()) if entry != REVOKE_FINALIZER]
    # Who and why first: what goes together with the finalizer nobody sees.
    changes: tuple[dict[str, Any], ...] = (
        {"annotations": {FORCED_BY: user, FORCED_BECAUSE: because}},
        {"finalizers": left or None},
    )
    try:
        for change in changes:
            patch = json.dumps({"metadata": change | {"uid": body["metadata"]["uid"]}})
            kubectl("patch", _KIND, name, "-n", namespace, "--type=merge", "-p", patch)
    except typer.Exit:
        if read(_KIND, namespace, name) is not None:
            raise
        typer.echo(f"{namespace}/{name} was revoked meanwhile")
        return
    typer.echo(f"{namespace}/{name} was let go by force, by {user}: {because}")
    kubernetes = body["spec"]["plan"].get("kubernetes") or {}
    planned = [kubernetes["account"], *kubernetes["objects"]] if kubernetes else []
    planned += [kubernetes["timer"]] if "timer" in kubernetes else []
    if planned:
        typer.echo("What it had made, if it is still there; the operator's sweep removes it, or you do:")
    for entry in planned:
        where = f" -n {entry['namespace']}" if entry.get("namespace") else ""
        typer.echo(f"  kubectl delete {entry['kind'].lower()} {entry['name']}{where}")
    if (expires := expiry(body)) is not None:
        typer.echo(f"Its last token expires by itself at {expires}.")
