"""Status: how a request looks to people (only `Finished` is ever read back), and what was observed of a grant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from valetkey.kinds.accessrequest import (
    AccessRequest,
    DecisionStatus,
    GrantReference,
    HeartbeatStatus,
    RequestStatus,
)
from valetkey.kinds.base import Condition, format_seconds
from valetkey.kinds.credential import Credential
from valetkey.kinds.delivery import DeliveryStatus
from valetkey.kinds.taskgrant import CredentialStatus, GrantEnd, GrantStatus, MadeObject, Order, TaskGrant
from valetkey.policy.decide import Waiting
from valetkey.policy.emergencies import review_command
from valetkey.policy.notation import line_of_request
from valetkey.reasons import Reason, place_of

MOST: Final = 4096
"""Characters of a condition's message."""
MOST_AGENT: Final = 512
"""Characters of who asks; the names of an account and two pods may be longer."""
MOST_NAMED: Final = 8
"""How many whose word does not count are named."""
Say = tuple[Reason, str]
"""A reason and its message; the reason knows its condition and status."""


def conditions(known: Iterable[Condition], says: Iterable[Say], now: datetime) -> tuple[Condition, ...]:
    """Known conditions with new ones in their place; a time changes only with its status."""
    by_type = {condition.type: condition for condition in known}
    for reason, message in says:
        _, kind, status = place_of(reason)
        before = by_type.get(kind)
        since = before.last_transition_time if before is not None and before.status == status else now
        by_type[kind] = Condition(
            type=kind, status=status, reason=reason, message=message[:MOST], last_transition_time=since
        )
    return tuple(by_type.values())


def of_refused(
    request: AccessRequest, decision: DecisionStatus | None, says: Iterable[Say], now: datetime
) -> RequestStatus:
    """A request that gets no grant, or waits."""
    return RequestStatus(
        conditions=conditions(request.status.conditions, says, now),
        decision=decision or request.status.decision,
        agent=agent(request),
        access=line_of_request(request.spec),
    )


def of_ready(
    request: AccessRequest,
    grant: TaskGrant,
    credential: Credential,
    overrun: timedelta,
    delivered: DeliveryStatus,
    now: datetime,
) -> RequestStatus:
    """A request whose access is there."""
    order = grant.spec.order
    return RequestStatus(
        conditions=conditions(
            request.status.conditions,
            [
                (Reason.IDENTITY_VERIFIED, f"pod {order.subject.pod_name} as {order.subject.service_account}"),
                _approved(request, order),
                (Reason.ACCESS_DELIVERED, str(grant.spec.delivery)),
                (Reason.TASK_IN_PROGRESS, "set spec.outcome when the task is over"),
            ],
            now,
        ),
        decision=DecisionStatus(id=order.decision, outcome="Approved", policy=order.policy.name, at=order.opened_at),
        agent=agent(request),
        access=line_of_request(request.spec),
        grant=GrantReference(name=grant.metadata.name, uid=grant.metadata.uid),
        expires_at=order.not_after,
        dead_at=credential.expires_at + overrun,
        delivery=delivered,
        heartbeat=None if order.heartbeat is None else HeartbeatStatus(within=order.heartbeat),
    )


def of_emergency(request: AccessRequest, order: Order) -> str:
    """What is said of a grant for an emergency: by when and how it is reviewed, and what it was for."""
    assert order.review_by is not None
    review = to_be_reviewed(request, order.policy.name, order.review_by)
    shown = f"policy {order.policy.name}, for an emergency; {review}: {line_of_request(request.spec)}{_work(order)}"
    return shown[:MOST]


def to_be_reviewed(request: AccessRequest, policy: str, by: datetime) -> str:
    """By when and how what a policy granted in an emergency is reviewed."""
    metadata = request.metadata
    command = review_command(f"{metadata.namespace}/{metadata.name}", metadata.uid, policy)
    return f"by {format_seconds(by)} somebody who may approve for it looks at it and runs `{command}` with a --reason"


def _work(order: Order) -> str:
    return "" if order.parent is None else f", in the work of {order.parent}"


def _approved(request: AccessRequest, order: Order) -> Say:
    if order.review_by is not None:
        return Reason.BREAK_GLASS_USED, of_emergency(request, order)
    work = _work(order)
    if not order.approvals:
        return Reason.POLICY_MATCHED, f"policy {order.policy.name}{work}"
    people = ", ".join(
        f"{one.username} ({one.name}{f', on {one.request}' if one.request else ''})" for one in order.approvals
    )
    return Reason.PERSON_APPROVED, f"{people} for policy {order.policy.name}{work}"


def of_waiting(request: AccessRequest, waiting: Waiting) -> str:
    """What a request that waits for people says: for whom, until when, what they do, and how far it has come."""
    metadata = request.metadata
    until = format_seconds(metadata.creation_timestamp + waiting.timeout)
    names = f" ({', '.join(waiting.approved_by)})" if waiting.approved_by else ""
    void = f"; not counted: {', '.join(waiting.void[:MOST_NAMED])}" if waiting.void else ""
    more = f" and {len(waiting.void) - MOST_NAMED} more" if len(waiting.void) > MOST_NAMED else ""
    message = (
        f"policy {waiting.policy} waits for people until {until}: who may approve for it runs `kubectl "
        f"valetkey approve {metadata.namespace}/{metadata.name}`, or deny, or creates an AccessApproval as the README "
        f"shows; {len(waiting.approved_by)} of {waiting.needed} have approved{names}{void}{more}"
    )
    return message[:MOST]


def says(request: AccessRequest, message: str, *of: str) -> bool:
    """Whether a request shows this already, in each condition of these types, or in any."""
    shown = {c.type: c.message for c in request.status.conditions}
    return all(shown.get(kind) == message for kind in of) if of else message in shown.values()


def shows_waiting(request: AccessRequest) -> bool:
    """Whether a request says that it waits for people."""
    return any(c.reason == Reason.AWAITING_APPROVAL for c in request.status.conditions)


def of_ended(request: AccessRequest, reason: Reason, message: str, now: datetime) -> RequestStatus:
    """A request whose access is over."""
    ended = [(Reason.ACCESS_ENDED, "the access was taken away"), (reason, message)]
    return request.status.model_copy(
        update={
            "conditions": conditions(request.status.conditions, ended, now),
            "agent": agent(request),
            "access": line_of_request(request.spec),
            "delivery": None,
            "heartbeat": None,
        }
    )


def of_live(grant: TaskGrant, credential: Credential, made: tuple[MadeObject, ...], now: datetime) -> GrantStatus:
    """A grant whose credential is with its pod."""
    return GrantStatus(
        conditions=conditions(
            grant.status.conditions,
            [
                (Reason.CREDENTIAL_ISSUED, f"{credential.id} of {credential.username}"),
                (Reason.CREDENTIAL_DELIVERED, str(grant.spec.delivery)),
                (Reason.GRANT_ACTIVE, "delete the TaskGrant to revoke"),
            ],
            now,
        ),
        credential=CredentialStatus(
            id=credential.id,
            username=credential.username,
            issued_at=credential.issued_at,
            expires_at=credential.expires_at,
        ),
        made=made,
    )


def of_ending(grant: TaskGrant, end: GrantEnd, says: Iterable[Say], now: datetime) -> GrantStatus:
    """A grant that ends."""
    return grant.status.model_copy(update={"conditions": conditions(grant.status.conditions, says, now), "end": end})


def of_held(grant: TaskGrant, says: Iterable[Say], now: datetime) -> GrantStatus:
    """A grant that is held up."""
    return grant.status.model_copy(update={"conditions": conditions(grant.status.conditions, says, now)})


def shows_end(request: AccessRequest) -> bool:
    """Whether a request already says that its access is being taken away."""
    return any(c.reason == Reason.ACCESS_ENDED for c in request.status.conditions)


def of_ending_request(request: AccessRequest, now: datetime) -> RequestStatus:
    """A request whose access is being taken away, which takes longer than it should."""
    says = [(Reason.ACCESS_ENDED, "the access is being taken away")]
    return request.status.model_copy(
        update={"conditions": conditions(request.status.conditions, says, now), "delivery": None}
    )


def agent(request: AccessRequest) -> str:
    """Who asks, on one line."""
    asks = f"{request.spec.requester.service_account}/{request.spec.requester.pod_name}"
    shown = f"{asks} for {request.spec.subject.pod_name}" if request.spec.for_another else asks
    return shown if len(shown) <= MOST_AGENT else f"{shown[: MOST_AGENT - 1]}…"
