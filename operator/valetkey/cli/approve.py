"""`valetkey approve` and `deny`: a person's word on a request that waits for one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from valetkey.cli.kubectl import Json, kubectl, place_of, read, stop, whoami
from valetkey.cli.tables import printable
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.base import API_VERSION, format_seconds, parse_duration
from valetkey.policy.coverage import LONGEST
from valetkey.policy.notation import accounts, parts

_KIND: Final = "accessrequests.valetkey.dev"
_CREDENTIAL: Final = "authentication.kubernetes.io/credential-id"
_Request = Annotated[str, typer.Argument(help="The AccessRequest: NAME or NAMESPACE/NAME.")]
_Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Its namespace.")]
_Uid = Annotated[str | None, typer.Option(help="Its uid: another request of the name is not meant.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Policy = Annotated[str | None, typer.Option(help="The policy that asks. Left out: whichever does.")]


def approve(
    request: _Request,
    namespace: _Namespace = None,
    policy: _Policy = None,
    reason: Annotated[str | None, typer.Option(help="Why; on record.")] = None,
    uid: _Uid = None,
    yes: _Yes = False,
    for_task: Annotated[
        str | None,
        typer.Option(help="For so long, such as 2h, what else its task asks for too; where the policy lets it."),
    ] = None,
) -> None:
    """Approve a request that waits for people; policy is asked again, and grants with it or waits for more.

    It shows what is asked and asks whether you mean it. It takes the verb approve on the policy. Deleting the
    AccessApproval takes it back, and ends what rests on it. With --for-task it covers what the same pod asks for within
    this request's access, for the same purpose and parameters.
    """
    _say("Approve", request, namespace, policy, reason, uid, yes=yes, for_task=_duration(for_task))


def deny(
    request: _Request,
    reason: Annotated[str, typer.Option(help="Why; on record, and the agent reads it.")],
    namespace: _Namespace = None,
    policy: _Policy = None,
    uid: _Uid = None,
) -> None:
    """Deny a request that waits for people; one is enough, and it ends."""
    _say("Deny", request, namespace, policy, reason, uid, yes=True)


def _say(
    verdict: str,
    request: str,
    namespace: str | None,
    policy: str | None,
    reason: str | None,
    uid: str | None,
    *,
    yes: bool,
    for_task: timedelta | None = None,
) -> None:
    where, name = place_of(request, namespace)
    body = read(_KIND, where, name)
    if body is None:
        raise stop(f"there is no AccessRequest {where}/{name}")
    policy = policy or _asks(body)
    if policy is None:
        raise stop(f"{where}/{name} waits for nobody; `valetkey get {where}/{name}` says what became of it")
    about = {"name": name, "uid": body["metadata"]["uid"]}
    if uid is not None and uid != about["uid"]:
        raise stop(f"{where}/{name} is another request than that of uid {uid}: look at it again")
    task = body["spec"]["task"]
    for told in _asked(body):
        typer.echo(printable(told))
    typer.echo(f"for {printable(task['purpose'])}: {printable(task['objective'])}")
    covers = {} if for_task is None else _task(body, policy, for_task)
    if covers:
        typer.echo(f"and until {covers['until']}, within that, for whatever else its pod asks for with the parameters")
        typer.echo(printable(json.dumps(task.get("parameters", {}), ensure_ascii=False)))
    # A name may be another request's by now than when somebody was told of it.
    if not yes and not typer.confirm(f"{verdict} it?"):
        raise stop("nothing was said")
    given = _approval(where, about, policy, verdict, reason, covers)
    made = kubectl("create", "-f", "-", "-o", "name", given=given).strip()
    typer.echo(f"{verdict}: {where}/{name}; to take it back: kubectl delete -n {where} {made}")


def _asked(body: Json) -> Iterator[str]:
    """All that an approval opens, in full: what is asked for, and each access that is handed on."""
    try:
        spec = RequestSpec.model_validate(body["spec"])
    except ValidationError:
        raise stop(
            "the request is of a later version than this command, which cannot show all of it: upgrade"
        ) from None
    agent = body.get("status", {}).get("agent", "")
    yield from (f"{agent} asks for {part}" for part in parts(spec.access))
    if spec.delegation is not None:
        to = accounts(spec.delegation)
        yield from (f"and hands on to {to}: {part}" for access in spec.handed_on for part in parts(access))
        if spec.delegation.access is None:
            yield f"and hands on to {to}: the same"
    if spec.parent is not None:
        yield f"in the work of {spec.parent}"


def _asks(body: Json) -> str | None:
    """The policy that a request waits for."""
    decision = body.get("status", {}).get("decision", {})
    return decision.get("policy") if decision.get("outcome") == "Pending" else None


def _duration(text: str | None) -> timedelta | None:
    """For how long a word is to cover a task; ends the command where that cannot be."""
    if text is None:
        return None
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--for-task {text}: {error}") from None
    if not timedelta() < duration <= LONGEST:
        raise typer.BadParameter(f"--for-task {text}: more than nothing and at most 24h")
    return duration


def _task(body: Json, policy: str, duration: timedelta) -> Json:
    """What a word says that covers a task, by the policy as it is shown to whoever approves."""
    decision = body.get("status", {}).get("decision", {})
    if _asks(body) != policy:
        raise stop(f"--for-task is for the policy that the request waits for, and it does not wait for {policy}")
    if decision.get("covers") != "Task" or "policyGeneration" not in decision:
        raise stop(
            f"policy {policy} lets a word cover one request alone: leave --for-task out, or have whoever writes it set "
            "approval.covers: Task"
        )
    until = format_seconds(datetime.now(UTC) + duration)
    return {"covers": "Task", "until": until, "policyGeneration": decision["policyGeneration"]}


def approver() -> Json:
    """Who speaks, as a cluster older than Kubernetes 1.36 does not fill it in."""
    user = whoami()
    speaks: Json = {"username": user["username"], "groups": user.get("groups", [])}
    credential = user.get("extra", {}).get(_CREDENTIAL, [])
    if len(credential) == 1:
        speaks["credentialID"] = credential[0]
    return speaks


def _approval(where: str, about: Json, policy: str, verdict: str, reason: str | None, covers: Json) -> Json:
    """The approval with all that a cluster older than Kubernetes 1.36 does not fill in."""
    spec: Json = {"request": about, "policy": policy, "verdict": verdict, "approver": approver()}
    return {
        "apiVersion": API_VERSION,
        "kind": "AccessApproval",
        "metadata": {
            "generateName": f"{about['name'][:200]}-",
            "namespace": where,
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": "AccessRequest", **about}],
        },
        "spec": spec | covers | ({"reason": reason} if reason else {}),
    }
