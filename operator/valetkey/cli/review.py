"""`valetkey review`: a person says that they have looked at what was granted in an emergency."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from valetkey.cli.approve import approver
from valetkey.cli.kubectl import Json, kubectl, place_of, read, stop
from valetkey.kinds.base import API_VERSION

_KIND: Final = "accessrequests.valetkey.dev"


def review(
    request: Annotated[str, typer.Argument(help="The AccessRequest: NAME or NAMESPACE/NAME.")],
    reason: Annotated[str, typer.Option(help="What you found; on record.")],
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Its namespace.")] = None,
    uid: Annotated[str | None, typer.Option(help="Its uid, where the request is gone.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that granted it, where the request is gone.")] = None,
) -> None:
    """Say that you have looked at what a break-glass policy granted; until somebody does, it grants no more.

    It takes the verb approve on the policy. The Event, the log and the ledger name uid and policy of what is to be
    reviewed: kubectl get ledgers -n valetkey-system -o yaml.
    """
    where, name = place_of(request, namespace)
    body = read(_KIND, where, name)
    if body is not None:
        if uid is not None and uid != body["metadata"]["uid"]:
            body = None  # another request has the name by now
        else:
            uid, policy = body["metadata"]["uid"], policy or _granted_by(body)
    if uid is None or policy is None:
        gone = "is gone: name its --uid and --policy" if body is None else "was granted by no policy: name its --policy"
        raise stop(f"{where}/{name} {gone}")
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
    typer.echo(f"Reviewed: {where}/{name} ({said}); the operator takes it off its ledger within seconds")


def _granted_by(body: Json) -> str | None:
    decision = body.get("status", {}).get("decision", {})
    return decision.get("policy") if decision.get("outcome") == "Approved" else None
