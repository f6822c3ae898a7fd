"""How does an access read on one line?

`shop: get,patch deployments.apps/checkout; web: clusterrole log-reader; cluster: get nodes; cluster: get /healthz`

What a request hands on follows an arrow: `shop: get pods → shop-agents/fixer: shop: get pods/log | web: get pods`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from valetkey.kinds.access import Access, Rule, Scope
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.delegation import Delegation

MAX_LINE: Final = 2048
_ACCOUNTS: Final = 512
_BETWEEN: Final = 12


def line(access: Access) -> str:
    """The access on one line of at most 2048 characters, in the words of the request."""
    return _cut("; ".join(parts(access)), MAX_LINE)


def parts(access: Access) -> Iterator[str]:
    """The same in full, one right or ClusterRole after the other."""
    for scope in access.kubernetes.scopes if access.kubernetes is not None else ():
        yield from _parts(scope)


def line_of_request(request: RequestSpec) -> str:
    """What a request asks for and hands on, on one line of at most 2048 characters; no part crowds another out."""
    if request.delegation is None:
        return line(request.access)
    lines = (line(request.access), *map(line, request.handed_on))
    share = (MAX_LINE - _ACCOUNTS - _BETWEEN * len(lines)) // len(lines)
    own, *others = (_cut(one, share) for one in lines)
    return f"{own} → {_cut(accounts(request.delegation), _ACCOUNTS)}: {' | '.join(others) or 'the same'}"


def accounts(delegation: Delegation) -> str:
    """To whom something is handed on, and how often."""
    often = "" if delegation.depth == 1 else f" ({delegation.depth} times)"
    return ", ".join(map(str, delegation.to)) + often


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _parts(scope: Scope) -> Iterator[str]:
    place = "cluster" if scope.namespace is None else scope.namespace
    if scope.cluster_role is not None:
        yield f"{place}: clusterrole {scope.cluster_role}"
    for rule in scope.rules or ():
        yield f"{place}: {','.join(rule.verbs)} {_objects(rule)}"


def _objects(rule: Rule) -> str:
    if rule.non_resource_urls is not None:
        return ",".join(rule.non_resource_urls)
    groups = rule.api_groups or ("",)
    kinds = ",".join(
        f"{resource}.{group}" if group else resource for resource in rule.resources or () for group in groups
    )
    return f"{kinds}/{','.join(rule.resource_names)}" if rule.resource_names is not None else kinds
