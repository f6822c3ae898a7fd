"""`valetkey review`: a person says that they have looked at what was granted in an emergency."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from valetkey.cli.approve import approver
from valetkey.cli.kubectl import Json, kubectl, place_of, read, stop
from valetkey.cli.tables import printable
from valetkey.kinds.base import API_VERSION
from valetkey.reasons import Reason

_KIND: Final = "accessrequests.valetkey.dev"


def review(
    request: Annotated[str, typer.Argument(help="The AccessRequest: NAME or NAMESPACE/NAME.")],
    reason: Annotated[str, typer.Option(help="What you found; on record.")],
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Its namespace.")] = None,
    uid: Annotated[str | None, typer.Option(help="Its uid, where the request is gone.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that granted it, where the request is gone.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Say that you have looked at what a break-glass policy granted.

    Where nobody does in time, it grants that account nothing more. It takes the verb approve on the policy. Event,
    webhook, log and denials have the command; the ledger has its parts: kubectl get ledgers -n valetkey-system -o yaml.
    """
    where, name = place_of(request, namespace)
    body = read(_KIND, where, name)
    if body is None or uid not in (None, body["metadata"]["uid"]):
        if uid is None or policy is None:
            raise stop(f"{where}/{name} is gone: name its --uid and --policy, as the Event, the log and the ledger do")
        typer.echo(f"{where}/{name} of uid {uid} is gone: the log has what it was granted (valetkey log --request)")
    else:
        shown = _shown(body, f"{where}/{name}")
        uid, policy = body["metadata"]["uid"], policy or shown
    if not yes and not typer.confirm("Have you looked at it?"):
        raise stop("nothing was said")
    spec: Json = {
        "request": {"name": name, "uid": uid},
        "policy": policy,
        "verdict": "Reviewed",
        "reason": reason,
        "approver": approver(),
    }
    made = {
        "apiVersion": API_VERSION,
        "kind": "AccessApproval",
        "metadata": {"generateName": f"{name[:200]}-", "namespace": where},
        "spec": spec,
    }
    said = kubectl("create", "-f", "-", "-o", "name", given=made).strip()
    typer.echo(f"Reviewed: {where}/{name} ({said}); the log has it once the operator has taken it up")


def _shown(body: Json, where: str) -> str:
    """Shows what a request was granted in an emergency; gives the policy."""
    conditions = {entry["type"]: entry for entry in body.get("status", {}).get("conditions", ())}
    if conditions.get("Approved", {}).get("reason") != Reason.BREAK_GLASS_USED:
        raise stop(f"{where} was granted by no policy for emergencies: nothing is to be reviewed")
    typer.echo(printable(f"{body['status'].get('agent', '')}: {conditions['Approved']['message']}"))
    typer.echo(printable(f"for {body['spec']['task']['purpose']}: {body['spec']['task']['objective']}"))
    return str(body["status"]["decision"]["policy"])
