"""May this request work for that one? What is handed on only shrinks, and nobody hands on what is not theirs to give.

A request that names a parent is decided by the policies about its own agent, like any other; what stands here comes
before them. It takes that the parent is live, hands on to this agent, and hands on all that is asked for; what is then
granted ends no later than the parent does. What it hands on further goes to no other accounts, less often, and is no
more (RFC 8693 calls those before it the actors, `act`).
"""

from __future__ import annotations

from datetime import datetime

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import AccessRequest, Denial, RequestSpec, Task
from valetkey.kinds.delegation import Account, Delegation, Parent
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.policy.denials import denial
from valetkey.policy.facts import Facts, ParentFacts
from valetkey.policy.notation import line
from valetkey.policy.within import leaves
from valetkey.reasons import Reason

_ACCESS = "spec.access"


def parent_facts(grant: TaskGrant, request: AccessRequest) -> ParentFacts:
    """What a decision on whoever works for a live grant reads of it and of its request."""
    order, metadata = grant.spec.order, grant.metadata
    return facts_of(
        Parent(namespace=metadata.namespace, name=metadata.name, uid=order.request_uid),
        task=request.spec.task,
        account=order.subject.service_account,
        act=order.act,
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
        depth=delegation.depth if delegation is not None else 0,
        access=tuple(one.to_api() for one in handed_on(access, delegation)),
        not_after=not_after,
    )


def _pairs(accounts: tuple[Account, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((account.namespace, account.service_account) for account in accounts)


def handed_on(own: Access, delegation: Delegation | None) -> tuple[Access, ...]:
    """What a request hands on: each access by itself, never their sum."""
    if delegation is None:
        return ()
    return (own,) if delegation.access is None else delegation.access


def act(parent: ParentFacts | None) -> tuple[Account, ...]:
    """Whose work it is: the accounts that handed it on, the nearest first."""
    if parent is None:
        return ()
    pairs = ((parent.namespace, parent.account), *parent.act)
    return tuple(Account(namespace=namespace, service_account=account) for namespace, account in pairs)


def concerned(request: RequestSpec, facts: Facts) -> frozenset[str]:
    """User names that have a part in the work, and so no word in whether it is approved: who asks, whoever may get some
    of it, whoever handed it on and whoever else may have got that."""
    parent = facts.parent
    accounts = {*act(parent), *(request.delegation.to if request.delegation is not None else ())}
    if parent is not None:
        accounts |= {Account(namespace=namespace, service_account=account) for namespace, account in parent.to}
    return frozenset({request.requester.username, *(account.username for account in accounts)})


def refused(request: RequestSpec, facts: Facts) -> Denial | None:
    """Why this request may not work for the one that it names, if it may not."""
    named, parent, identity = request.parent, facts.parent, facts.identity
    if named is None:
        return None
    if parent is None or parent.over(facts.now, live=facts.live):
        return denial(
            Reason.PARENT_NOT_LIVE,
            f"Nothing is granted to request {named} ({named.uid}) now: work is handed on while that is, and by its "
            "namespace, name and uid.",
            field="spec.parent",
        )
    if (identity.namespace, identity.service_account) not in parent.to:
        return denial(
            Reason.BEYOND_PARENT,
            f"Request {named} hands nothing on to {identity.namespace}/{identity.service_account}: whoever makes it "
            "names this account in spec.delegation.to.",
            field="spec.parent",
        )
    given = tuple(Access.model_validate(access) for access in parent.access)
    return _beyond(request.access, given, _ACCESS, request) or _hands_on_more(request, parent, given)


def _hands_on_more(request: RequestSpec, parent: ParentFacts, given: tuple[Access, ...]) -> Denial | None:
    delegation = request.delegation
    if delegation is None:
        return None
    if delegation.depth >= parent.depth:
        left = parent.depth - 1
        allowed = f"maxDepth: {left}" if left else None
        return _more(request, "spec.delegation.maxDepth", "is handed on more often than that allows", allowed)
    for at, account in enumerate(delegation.to):
        if (account.namespace, account.service_account) not in parent.to:
            return _more(request, f"spec.delegation.to[{at}]", "is an account that it does not name", None)
    for at, access in enumerate(request.handed_on):
        beyond = _beyond(access, given, f"spec.delegation.access[{at}]", request)
        if beyond is not None:
            return beyond
    return None


def _beyond(asked: Access, given: tuple[Access, ...], field: str, request: RequestSpec) -> Denial | None:
    gaps = [leaves(asked, one) for one in given]
    if any(gap is None for gap in gaps):
        return None
    nearest = (gaps[0] if len(gaps) == 1 else None) or _ACCESS
    allowed = "\n".join(line(one) for one in given)
    return _more(request, nearest.replace(_ACCESS, field, 1), "goes beyond what that hands on", allowed)


def _more(request: RequestSpec, field: str, what: str, allowed: str | None) -> Denial:
    return denial(
        Reason.BEYOND_PARENT,
        f"This works for request {request.parent}, and {field} {what}: ask for no more than it gives.",
        field=field,
        allowed=allowed,
    )
