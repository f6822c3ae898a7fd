"""`valetkey can-i`, `explain` and `who-can`: what policy says, asked without asking for anything."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml
from pydantic import ValidationError

from valetkey.cli.cluster import facts, policies
from valetkey.cli.codes import DENIED, WAITING
from valetkey.cli.kubectl import Json, Output, place_of, read, stop
from valetkey.cli.tables import printable, show
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.base import format_duration
from valetkey.policy.backwards import who_can as read_backwards
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting, decide
from valetkey.policy.explain import explain as explained

_UNDECIDED: Final = 1
_Cluster = Annotated[str, typer.Option(help="The cluster's name as in the chart's values, where rules read it.")]


def can_i(
    file: Annotated[Path, typer.Option("-f", "--filename", help="An AccessRequest, in YAML or JSON.")],
    as_pod: Annotated[str, typer.Option(help="The pod that would ask: NAMESPACE/POD.")],
    cluster: _Cluster = "",
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Say what would be decided on a request if that pod made it now; creates nothing.

    Exit code 0: granted, 3: denied, 4: people would be asked, 1: it cannot be said.
    """
    namespace, name = place_of(as_pod, None)
    try:
        body = yaml.safe_load(file.read_text())
        asked = dict(body["spec"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise stop(f"{file}: it is no AccessRequest: {error}", 2) from None
    request = _request(asked | _asker(namespace, name), file)
    known = facts(namespace, request, cluster)
    _tell(decide(request, policies(), known), output)


def explain(
    request: Annotated[str, typer.Argument(help="The AccessRequest: NAME or NAMESPACE/NAME.")],
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Its namespace.")] = None,
    cluster: _Cluster = "",
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Say what each policy, as it is now, says to a request: each rule, what it read and what it said.

    What was decided then, and on which facts, is in the log. It takes the right to read policies, pods and namespaces.
    """
    where, name = place_of(request, namespace)
    body = read("accessrequests.valetkey.dev", where, name)
    if body is None:
        raise stop(f"there is no AccessRequest {where}/{name}")
    spec = _request(body["spec"], Path(name))
    uid, all_policies = body["metadata"]["uid"], policies()
    known = facts(where, spec, cluster, request_uid=uid)
    said = explained(spec, all_policies, known)
    if output is Output.JSON:
        return typer.echo(json.dumps([asdict(one) for one in said], default=str))
    rows = [
        (
            one.policy + (" (Audit)" if one.rehearsed else ""),
            one.effect,
            one.says,
            "; ".join(
                [
                    one.why,
                    *(
                        f"rule {rule.name}{_about(rule.of)}: {rule.says}, read {_short(rule.read)}"
                        for rule in one.rules
                    ),
                ]
            ),
        )
        for one in said
    ]
    show(("POLICY", "EFFECT", "SAYS", "WHY"), rows, whole=("EFFECT", "SAYS"))
    return _tell(decide(spec, all_policies, known), output)


def who_can(
    verb: Annotated[str, typer.Argument(help="A verb, such as patch.")],
    resource: Annotated[str, typer.Argument(help="A resource, such as deployments.apps, pods or pods/log.")],
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="In this namespace only.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Read the policies backwards: who may get a right, for which purpose, and what else has to be so."""
    plural, _, group = resource.partition(".")
    kind, slash, sub = plural.partition("/")
    try:
        found = read_backwards(policies(), verb, f"{kind}{slash}{sub}", group, namespace)
    except ValidationError as error:
        raise stop(f"{verb} {resource}: {error.errors(include_url=False)[0]['msg']}", 2) from None
    if output is Output.JSON:
        return typer.echo(json.dumps([asdict(one) for one in found]))
    if not found:
        return typer.echo("no policy is about it: nobody")
    rows = [
        (
            one.policy + (" (Audit)" if one.rehearsed else ""),
            one.effect,
            " ".join(one.subjects),
            " ".join(one.purposes),
            one.entry,
            ", ".join(one.conditions),
        )
        for one in found
    ]
    return show(("POLICY", "EFFECT", "WHO", "PURPOSE", "ENTRY", "IF"), rows, whole=("EFFECT",))


def _asker(namespace: str, pod: str) -> Json:
    body = read("pod", namespace, pod) or {"metadata": {"uid": "none"}, "spec": {}}
    uid, spec = body["metadata"]["uid"], body["spec"]
    account = spec.get("serviceAccountName", "default")
    return {
        "subject": {"podName": pod, "podUID": uid},
        "requester": {
            "username": f"system:serviceaccount:{namespace}:{account}",
            "serviceAccount": account,
            "podName": pod,
            "podUID": uid,
            "nodeName": spec.get("nodeName", "none"),
            "credentialID": "JTI=none",
        },
    }


def _request(spec: Json, file: Path) -> RequestSpec:
    try:
        return RequestSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise stop(f"{file}: spec.{'.'.join(map(str, first['loc']))}: {first['msg']}", 2) from None


def _tell(decision: Decision, output: Output) -> None:
    told: Json
    match decision:
        case Approved(policy=policy, entry=entry, ttl=ttl):
            told = {"outcome": "Approved", "policy": policy.name, "entry": entry, "ttl": format_duration(ttl)}
            text, code = f"yes: policy {policy.name}, entry {entry}, for {format_duration(ttl)}", 0
            if uncounted := _uncounted(decision):
                told["notCounted"] = list(uncounted)
                what = " and ".join(dict.fromkeys(uncounted.values()))
                text += f"\n{what[0].upper()}{what[1:]} the operator alone knows: asked for real it may be denied."
        case Denied(denial=denial, policy=name):
            told = {"outcome": "Denied", "policy": name or "", **denial.to_api()}
            text, code = f"no, {denial.reason}: {denial.message}", DENIED
            text += f"\n{denial.allowed}" if denial.allowed else ""
        case Waiting(policy=asks, needed=needed, approved_by=approved):
            told = {"outcome": "Waiting", "policy": asks, "needed": needed, "approvedBy": list(approved)}
            text, code = f"not yet: policy {asks} asks for {needed} people, {len(approved)} have approved", WAITING
        case Undecided(reason=reason, message=message):
            told = {"outcome": "Undecided", "reason": reason, "message": message}
            text, code = f"it cannot be said, {reason}: {message}", _UNDECIDED
    lines = [printable(line) for line in text.splitlines()]
    typer.echo(json.dumps(told) if output is Output.JSON else "\n".join(lines))
    raise typer.Exit(code)


def _uncounted(approved: Approved) -> dict[str, str]:
    """What a policy looks at and only the operator knows, by its field."""
    uncounted: dict[str, str] = {}
    if approved.remembers:
        uncounted |= dict.fromkeys(("limits.perHour", "limits.cooldown"), "how often it has granted lately")
    if approved.review_within is not None:
        uncounted["breakGlass"] = "whether what it granted before was reviewed"
    return uncounted


def _about(of: str) -> str:
    return "" if of == "spec.access" else f" of {of}"


def _short(read_: object) -> str:
    text = json.dumps(read_, default=str)
    return text if len(text) <= 300 else text[:299] + "…"
