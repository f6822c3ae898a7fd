"""Does one Allow let what it grants be handed on, and does it grant only what was?"""

from __future__ import annotations

from valetkey.kinds.accessrequest import Denial, RequestSpec
from valetkey.kinds.delegation import Delegation, DelegationLimits
from valetkey.policy.denials import denial
from valetkey.reasons import Reason


def refused(name: str, limits: DelegationLimits | None, request: RequestSpec) -> Denial | None:
    """Why a policy of that name does not grant a request because of what it works for or hands on; None if it may."""
    if limits is not None and limits.required and request.parent is None:
        return denial(
            Reason.PARENT_NOT_LIVE,
            f"Policy {name} grants only what works for another request: name that in spec.parent, as whoever hands the "
            "work on passes it along.",
            field="spec.parent",
        )
    if request.delegation is None:
        return None
    if limits is None or limits.to is None:
        return denial(
            Reason.ACCESS_BEYOND_POLICY,
            f"Policy {name} lets nothing be handed on: leave spec.delegation out.",
            field="spec.delegation",
        )
    field = _beyond(request.delegation, limits)
    if field is None:
        return None
    accounts = ", ".join(f"{{namespace: {one.namespace}, serviceAccount: {one.service_account}}}" for one in limits.to)
    deep = field.endswith(".maxDepth")
    return denial(
        Reason.ACCESS_BEYOND_POLICY,
        f"{field} goes beyond what policy {name} lets be handed on: choose from `allowed`, or leave it out.",
        field=field,
        allowed=f"maxDepth: {limits.depth}" if deep else f"to: [{accounts}]",
    )


def _beyond(delegation: Delegation, limits: DelegationLimits) -> str | None:
    if delegation.depth > limits.depth:
        return "spec.delegation.maxDepth"
    strangers = (at for at, account in enumerate(delegation.to) if account not in (limits.to or ()))
    return next((f"spec.delegation.to[{at}]" for at in strangers), None)
