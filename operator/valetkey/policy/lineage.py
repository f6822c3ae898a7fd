"""May this request work for that one? What is handed on only shrinks, and nobody hands on what is not theirs to give.

A request that names a parent is decided by the policies about its own agent, like any other; what stands here comes
before them. It takes that the parent is live, hands on to this agent, and hands on all that is asked for; what is then
granted ends no later than the parent does. What it hands on further goes to no other accounts, less often, and is no
more (RFC 8693 calls those before it the actors, `act`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import AccessRequest, Denial, RequestSpec, Task
from valetkey.kinds.delegation import Account, Delegation, Parent
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.policy.denials import denial
from valetkey.policy.facts import Facts, ParentFacts
from valetkey.policy.shapes import ShapeError
from valetkey.policy.within import leaves
from valetkey.reasons import Reason

MOST_RULES: Final = 32
"""Of a request and what it hands on, together: each is compared with each of its parent's."""
_ACCESS: Final = "spec.access"


def parent_facts(grant: TaskGrant, request: AccessRequest) -> ParentFacts:
    """What a decision on whoever works for a live grant reads of it and of its request."""
    order, metadata = grant.spec.order, grant.metadata
    return facts_of(
        Parent(namespace=metadata.namespace, name=metadata.name, uid=order.request_uid),
        task=request.spec.task,
        account=order.subject.service_account,
        act=order.act or (),
        launchers=order.launchers or (),
        among=order.among or (),
        pod_templates=order.delegates_pod_templates or False,
        access=order.access,
        delegation=order.delegation,
        not_after=order.not_after,
    )


def facts_of(
    parent: Parent,
    *,
    task: Task,
    account: str,
    act: tuple[Account, ...],
    launchers: tuple[Account, ...] = (),
    among: tuple[Account, ...],
    pod_templates: bool,
    access: Access,
    delegation: Delegation | None,
    not_after: datetime,
) -> ParentFacts:
    """The same, by its parts."""
    return ParentFacts(
        namespace=parent.namespace,
        name=parent.name,
        uid=parent.uid,
        task=task.to_api(),
        account=account,
        act=_pairs(act),
        to=_pairs(delegation.to) if delegation is not None else (),
        launchers=_pairs(launchers),
        among=_pairs(among or (delegation.to if delegation is not None else ())),
        pod_templates=pod_templates,
        depth=delegation.depth if delegation is not None else 0,
        access=tuple(one.to_api() for one in given(access, delegation)),
        not_after=not_after,
    )


def _pairs(accounts: tuple[Account, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((account.namespace, account.service_account) for account in accounts)


def check_size(request: RequestSpec) -> None:
    """Raises ShapeError where what is handed on, or works for another request, has more rules than are compared."""
    if request.parent is None and request.delegation is None:
        return
    rules = sum(len(scope.rules or ()) for scope in request.scopes)
    if rules > MOST_RULES:
        raise ShapeError(
            "spec", f"a request that works for another or hands work on has {MOST_RULES} rules at most, not {rules}"
        )


def given(own: Access, delegation: Delegation | None) -> tuple[Access, ...]:
    """What a request hands on: each access by itself, never their sum."""
    if delegation is None:
        return ()
    return (own,) if delegation.access is None else delegation.access


def act(parent: ParentFacts | None) -> tuple[Account, ...]:
    """Whose work it is: the accounts that handed it on, the nearest first."""
    return () if parent is None else _accounts(((parent.namespace, parent.account), *parent.act))


def among(parent: ParentFacts | None) -> tuple[Account, ...]:
    """Every account that may have got some of the work; of what works for none, nothing but what it says itself."""
    return () if parent is None else _accounts(parent.among)


def launchers(facts: Facts) -> tuple[Account, ...]:
    """The accounts that ask for this request, or have for work before it, on behalf of others."""
    own = facts.requester
    asks = () if own is None else (Account(namespace=own.namespace, service_account=own.service_account),)
    return (*asks, *(() if facts.parent is None else _accounts(facts.parent.launchers)))


def before(parent: ParentFacts | None) -> tuple[Account, ...]:
    """Every account with a part in the work that a request is handed."""
    return () if parent is None else (*act(parent), *among(parent), *_accounts(parent.launchers))


def concerned(request: RequestSpec, facts: Facts) -> frozenset[str]:
    """User names that have a part in the work, and so no word in whether it is approved.

    They are who asks and whom it is for, whoever may get some of it, whoever handed it on, and whoever else may have
    got that.
    """
    identity = facts.identity
    receives = Account(namespace=identity.namespace, service_account=identity.service_account)
    return users(request, (receives, *before(facts.parent)))


def users(request: RequestSpec, others: Iterable[Account]) -> frozenset[str]:
    """The user names of who asks, of those that it hands on to, and of these accounts."""
    own = request.delegation.to if request.delegation is not None else ()
    return frozenset({request.requester.username, *(account.username for account in (*others, *own))})


def refused(request: RequestSpec, facts: Facts) -> Denial | None:
    """Why this request may not work for the one that it names, if it may not.

    Of a live grant's only whether that goes on is asked: neither of the two changes in anything else.
    """
    named, parent = request.parent, facts.parent
    if named is None:
        return None
    if parent is None or parent.over(facts.now, live=facts.live):
        return denial(
            Reason.PARENT_NOT_LIVE,
            f"Request {named} of uid {named.uid} has no live grant to hand on: ask again once its condition Ready is "
            "True, or name another that whoever hands the work on passes along.",
            field="spec.parent",
        )
    return None if facts.live else _beyond_parent(request, named, parent, facts.identity)


def _beyond_parent(request: RequestSpec, named: Parent, parent: ParentFacts, identity: Identity) -> Denial | None:
    def beyond(field: str, why: str, allowed: str | None = None) -> Denial:
        return denial(Reason.BEYOND_PARENT, f"This works for request {named}: {why}.", field=field, allowed=allowed)

    if (identity.namespace, identity.service_account) not in parent.to:
        account = f"{identity.namespace}/{identity.service_account}"
        why = "and no request changes: whoever hands the work on makes another that does"
        return beyond("spec.parent", f"its spec.delegation.to does not name {account}, {why}")
    given = tuple(Access.model_validate(access) for access in parent.access)
    allowed = "\n".join(f"access: {json.dumps(access)}" for access in parent.access)
    if (field := _leaves(request.access, given, _ACCESS)) is not None:
        return beyond(field, f"{field} goes beyond what that hands on; ask for no more than `allowed`", allowed)
    delegation = request.delegation
    if delegation is None:
        return None
    if parent.depth < 2:
        return beyond("spec.delegation", "what it hands on may not be handed on again; leave spec.delegation out")
    if delegation.depth >= parent.depth:
        less = f"maxDepth: {parent.depth - 1}"
        return beyond("spec.delegation.maxDepth", f"spec.delegation.maxDepth is {parent.depth - 1} at most", less)
    for at, pair in enumerate(_pairs(delegation.to)):
        if pair not in parent.to:
            stranger = f"spec.delegation.to[{at}]"
            return beyond(stranger, f"its spec.delegation.to does not name {'/'.join(pair)} ({stranger})")
    for at, access in enumerate(request.handed_on):
        if (field := _leaves(access, given, f"spec.delegation.access[{at}]")) is not None:
            return beyond(field, f"{field} goes beyond what that hands on; hand on no more than `allowed`", allowed)
    return None


def _leaves(asked: Access, given: tuple[Access, ...], field: str) -> str | None:
    """The field by which an access goes beyond each of those that are given; None where it lies within one."""
    first: str | None = None
    for one in given:
        gap = leaves(asked, one)
        if gap is None:
            return None
        first = first or gap
    return (first if len(given) == 1 and first is not None else _ACCESS).replace(_ACCESS, field, 1)


def _accounts(pairs: Iterable[tuple[str, str]]) -> tuple[Account, ...]:
    return tuple(Account(namespace=namespace, service_account=account) for namespace, account in pairs)
