"""Has this ServiceAccount had its share of what a policy grants?"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from valetkey.kinds.accessrequest import Denial
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.base import format_duration, whole_seconds
from valetkey.kinds.ledger import REMEMBERS
from valetkey.policy.denials import denial
from valetkey.policy.facts import Facts
from valetkey.reasons import Reason

_ACTIVE_RETRY: Final = timedelta(minutes=1)


def reached(name: str, spec: PolicySpec, facts: Facts) -> Denial | None:
    """Why the policy grants this account nothing more for now; None where it has not had its share.

    Of a live grant nothing is asked: it held them once, at the start, and the facts of one count nothing.
    """
    limits = spec.limits
    active = facts.limit_active if limits.active is None else limits.active
    if facts.active.get(name, 0) >= active:
        return denial(
            Reason.LIMIT_REACHED,
            f"This ServiceAccount holds {active} grants of policy {name}, as many as it allows at once: end a task "
            "that is done (spec.outcome), then ask again.",
            retry_after=min(_ACTIVE_RETRY, spec.ttl_max),
        )
    return _too_often(name, spec, facts)


def _too_often(name: str, spec: PolicySpec, facts: Facts) -> Denial | None:
    """Where both limits are reached, the one that is longer in the way."""
    limits, opened = spec.limits, sorted(facts.opened.get(name, ()))
    waits: list[tuple[timedelta, str]] = []
    if limits.per_hour is not None:
        lately = [at for at in opened if facts.now - at < REMEMBERS]
        if len(lately) >= limits.per_hour:
            what = f"Policy {name} grants a ServiceAccount {limits.per_hour} times an hour, and has"
            waits.append((lately[-limits.per_hour] + REMEMBERS - facts.now, what))
    if limits.cooldown is not None and opened and facts.now - opened[-1] < limits.cooldown:
        what = f"Policy {name} grants a ServiceAccount again {format_duration(limits.cooldown)} after it last did"
        waits.append((opened[-1] + limits.cooldown - facts.now, what))
    if not waits:
        return None
    rest, what = max(waits)
    after = whole_seconds(rest)
    return denial(Reason.LIMIT_REACHED, f"{what}: ask again in {format_duration(after)}.", retry_after=after)
