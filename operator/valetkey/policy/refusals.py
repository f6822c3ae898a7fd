"""How is it told why an Allow does not grant a request?"""

from __future__ import annotations

from valetkey.kinds.accessrequest import Denial, RequestSpec, Via
from valetkey.kinds.agentpolicy import AccessCeiling, PolicySpec, Risk
from valetkey.kinds.base import format_duration, format_seconds
from valetkey.kinds.delivery import Way
from valetkey.kinds.identity import Identity
from valetkey.policy import allowances
from valetkey.policy.ceiling import Gap
from valetkey.policy.denials import denial, quoted
from valetkey.policy.facts import Facts
from valetkey.policy.parameters import ParameterError
from valetkey.reasons import Reason


def role_unknown(role: str, field: str) -> Denial:
    """A ClusterRole whose rules are not known is handed out by nobody."""
    return denial(
        Reason.ACCESS_BEYOND_POLICY,
        f"ClusterRole {quoted(role)} does not exist, or is not among those that this cluster hands out (the chart's "
        "grantable clusterRoles): ask for its rules instead, or for another.",
        field=field,
    )


def beyond(name: str, request: RequestSpec, facts: Facts, gap: Gap, entry: AccessCeiling) -> Denial:
    """It leaves the nearest entry, and what that gives is what it may ask for."""
    return denial(
        Reason.ACCESS_BEYOND_POLICY,
        f"{gap.field} goes beyond what policy {name} allows for {request.task.purpose} (entry {entry.name}): "
        "ask for no more than `allowed`.",
        field=gap.field,
        allowed=allowances.of_ceiling(entry, request.task.parameters, request.access, facts.cluster_roles),
    )


def parameters_invalid(error: ParameterError) -> Denial:
    """A parameter is not as its purpose has it."""
    return denial(Reason.PARAMETERS_INVALID, error.message, field=error.field, allowed=error.allowed)


def over(name: str, spec: PolicySpec) -> Denial:
    """The policy has ended, or is about to."""
    assert spec.until is not None
    return denial(
        Reason.NO_POLICY_MATCHED,
        f"Policy {name} ends at {format_seconds(spec.until)} and grants no more, and no other is about this agent: "
        "nothing can be asked for until it is renewed.",
    )


def purpose_unknown(request: RequestSpec) -> Denial:
    """Nobody has this purpose."""
    return denial(
        Reason.PURPOSE_UNKNOWN,
        f"No policy about this agent knows the purpose {quoted(request.task.purpose)}: use one of `allowed`.",
        field="spec.task.purpose",
    )


def risk_not_allowed(
    name: str, request: RequestSpec, facts: Facts, entry: AccessCeiling, field: str, risk: Risk
) -> Denial:
    """It lies within an entry that does not accept a risk which it carries."""
    accepted = entry.kubernetes.risks if entry.kubernetes is not None else ()
    return denial(
        Reason.RISK_NOT_ALLOWED,
        f"{field} carries the risk {risk.value}, which policy {name} does not accept (entry {entry.name}): such rights "
        "outlive or outgrow a grant. Leave them out, as in `allowed`.",
        field=field,
        allowed=allowances.without_risks(request.access, accepted, facts.cluster_roles),
    )


def ttl_too_long(name: str, spec: PolicySpec) -> Denial:
    """It is for longer than the policy grants."""
    longest = format_duration(spec.ttl_max)
    return denial(
        Reason.TTL_TOO_LONG,
        f"Policy {name} grants {longest} at most: ask for that or less, and again when it ends.",
        field="spec.ttl",
        allowed=f"ttl: {longest}",
    )


def subject_not_allowed(name: str, requester: Identity, subject: Identity) -> Denial:
    """A pod asks for another, and the policy does not let it."""
    return denial(
        Reason.SUBJECT_NOT_ALLOWED,
        f"Policy {name} does not let pods that run as {requester.service_account} ask for pod {subject.pod_name}: let "
        f"that pod ask itself, or have {requester.service_account} put into the policy's onBehalfOf.",
        field="spec.subject",
    )


def via_not_allowed(name: str, allowed: Via) -> Denial:
    """It came in by a way that the policy does not have."""
    instead = "with the pod's own token, at the API server" if allowed == "API" else "at the door (valetkey serve)"
    return denial(
        Reason.VIA_NOT_ALLOWED,
        f"Policy {name} grants nothing that comes in by this way: ask {instead}.",
        field="spec.requester.via",
        allowed=f"via: {allowed}",
    )


def delivery_not_allowed(name: str, way: Way) -> Denial:
    """It is to be delivered in a way that the policy does not have."""
    return denial(
        Reason.DELIVERY_NOT_ALLOWED,
        f"Policy {name} delivers credentials in this way alone: {way}. Use `allowed`, or have the other put into its "
        "delivery.",
        field="spec.delivery",
        allowed="delivery: {secret: {}}" if way == "Secret" else "delivery: {sealed: {publicKey: …}}",
    )
