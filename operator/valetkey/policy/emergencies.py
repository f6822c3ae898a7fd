"""May a break-glass policy be used again, while what was done with it before is still to be looked at?"""

from __future__ import annotations

from valetkey.kinds.accessrequest import Denial
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.base import format_seconds
from valetkey.kinds.ledger import MOST_UNREVIEWED
from valetkey.policy.denials import denial
from valetkey.policy.facts import Facts, Unreviewed
from valetkey.reasons import Reason


def refused(name: str, spec: PolicySpec, facts: Facts) -> Denial | None:
    """Why a break-glass policy grants this account nothing for now; None where it may, or is no such policy.

    Of a live grant nothing is asked: it held that once, at the start.
    """
    if spec.break_glass is None or facts.live:
        return None
    used = sorted(facts.unreviewed.get(name, ()), key=lambda one: one.review_by)
    overdue = [one for one in used if one.review_by <= facts.now]
    if overdue:
        return _denied(name, overdue[0], f"and should have been by {format_seconds(overdue[0].review_by)}")
    if len(used) >= MOST_UNREVIEWED:
        return _denied(name, used[0], f"nor have {len(used) - 1} later ones")
    return None


def review_command(request: str, uid: str, policy: str) -> str:
    """What a person runs, with a --reason of their own, who has looked at what a policy granted NAMESPACE/NAME."""
    return f"kubectl valetkey review {request} --uid {uid} --policy {policy}"


def _denied(name: str, use: Unreviewed, more: str) -> Denial:
    return denial(
        Reason.REVIEW_OVERDUE,
        f"Nobody has reviewed what policy {name} granted to {use.request}, or was about to, at "
        f"{format_seconds(use.at)}, {more}: it grants this ServiceAccount nothing until somebody who may approve for "
        f"it runs `{review_command(use.request, use.uid, name)}` with a --reason.",
    )
