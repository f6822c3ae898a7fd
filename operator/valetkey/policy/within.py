"""Does one access lie within another that somebody agreed to?

Rules do not add up here: each rule that is asked for lies within one rule that was given. So what is compared costs no
more than the product of the two, and whoever agreed has read each right on one line.
"""

from __future__ import annotations

from valetkey.kinds.access import Access, Scope
from valetkey.policy.ceiling import SCOPES, Asked
from valetkey.policy.rights import Rights, missing


def leaves(asked: Access, given: Access) -> str | None:
    """The first field of an access that goes beyond another; None where all of it lies within.

    What was given in the cluster's scope covers every namespace. A ClusterRole covers itself alone: what its rules are
    today is not what somebody agreed to.
    """
    ours, theirs = Asked.of(asked).scopes, Asked.of(given).scopes
    if ours is None or theirs is None:
        return "spec.access"
    for at, (scope, rules) in enumerate(ours):
        here = [(other, of_other) for other, of_other in theirs if other.namespace in (None, scope.namespace)]
        field = _leaves_scope(scope, rules, here)
        if field is not None:
            return f"{SCOPES}[{at}]{field}"
    return None


def _leaves_scope(scope: Scope, rules: tuple[Rights, ...], here: list[tuple[Scope, tuple[Rights, ...]]]) -> str | None:
    if not here:
        return "" if scope.namespace is None else ".namespace"
    if scope.cluster_role is not None and all(other.cluster_role != scope.cluster_role for other, _ in here):
        return ".clusterRole"
    given = [rule for _, of_other in here for rule in of_other]
    for index, rule in enumerate(rules):
        if all(missing(rule, other) is not None for other in given):
            return f".rules[{index}]"
    return None
