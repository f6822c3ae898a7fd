"""next_step: what one request and its grant need now. Pure: all it knows is in the View."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from valetkey.controller.steps import (
    Await,
    Decide,
    Deliver,
    Drop,
    End,
    Forget,
    Hold,
    Identify,
    Issue,
    LetGo,
    LookUp,
    Open,
    Refuse,
    Remove,
    Revoke,
    Step,
    Times,
    View,
    Wait,
)
from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import HEARTBEAT, format_duration
from valetkey.kinds.taskgrant import Order, TaskGrant
from valetkey.kube.pods import Pod
from valetkey.policy.decide import Approved, Denied, Undecided, Waiting
from valetkey.reasons import Reason, place_of, word

RECHECK: Final = timedelta(seconds=5)
"""How soon a renewal that policy cannot decide on now is asked for again."""
_RESTORED: Final = "the cluster's store was restored from an older snapshot, and what was made before it is over"
TELLS_LATE: Final = timedelta(seconds=2)
"""How late the kubelet may tell that a container died."""
CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the operator's clock and the API server's may differ."""


def next_step(view: View, now: datetime, times: Times) -> Step:
    """What this key needs now."""
    if view.grant is not None:
        return _of_grant(view, view.grant, now, times)
    if view.request is None or view.request.metadata.terminating:
        return Forget()
    return _of_request(view, view.request, now, times)


def ends(view: View, now: datetime) -> bool:
    """Whether a grant is on its way out, as far as is known."""
    grant = view.grant
    if grant is None or view.vanished or grant.ending:
        return True
    return _why_it_ends(view, grant, now) is not None


def _of_request(view: View, request: AccessRequest, now: datetime, times: Times) -> Step:
    progress, finished = view.progress, request.finished
    if finished is not None:
        # The one thing that is read back from a status, and only ever against the request: what has ended stays so.
        over = max(filter(None, (finished.last_transition_time + times.history_ttl, view.kept_until)))
        return Remove(request) if now >= over else Wait(over)
    if view.crowded and progress.identity is None:
        return Drop(request)
    if view.over is not None:
        return Refuse(request, InvalidError(Reason.REQUEST_INVALID, f"{_RESTORED}; create it again"))
    if request.spec.outcome is not None:
        return Refuse(request, Reason.TASK_RELEASED)
    until = request.metadata.creation_timestamp + _patience(view, times)
    if now >= until:
        return Refuse(request, Reason.REQUEST_EXPIRED)
    if progress.failure is not None:
        return Refuse(request, progress.failure)
    if progress.identity is None or progress.place is None:
        return Identify(request)
    match progress.decision:
        case None:
            return Decide(request, progress.identity, progress.place)
        case Denied() as denied:
            return Refuse(request, denied)
        case Undecided() as undecided:
            return Hold(undecided)
        case Waiting() as waiting:
            return Await(request, waiting, until)
        case Approved() as approved:
            return Open(request, progress.identity, progress.place, approved, progress.requester)


def _patience(view: View, times: Times) -> timedelta:
    """How long after its creation a request may be granted.

    While it is not known what is to be decided, as long as any policy lets one wait: it may be waiting for people, and
    nothing is known only in memory.
    """
    match view.progress.decision:
        case Waiting(timeout=wait) | Approved(wait=timedelta() as wait):
            return wait
        case Approved():
            return times.pending_ttl
        case _:
            return max(times.pending_ttl, view.longest_wait)


def _of_grant(view: View, grant: TaskGrant, now: datetime, times: Times) -> Step:
    progress = view.progress
    if grant.metadata.terminating or view.vanished:
        if grant.status.end is None:
            # Somebody else deleted it: whoever ends a grant here writes why first.
            return End(grant, Reason.GRANT_DELETED, "the TaskGrant was deleted")
        return Revoke(grant) if progress.proof is None else LetGo(grant, progress.proof)
    if grant.status.end is not None:
        return End(grant, word(grant.status.end.reason) or Reason.GRANT_DELETED, grant.status.end.message)
    why = _why_it_ends(view, grant, now)
    if why is not None:
        return why
    if view.unknown or view.unheard or view.parent_unknown:
        return LookUp(grant, view.unknown, view.unheard, grant.spec.order.parent if view.parent_unknown else None)
    if view.beat_due is not None and now >= view.beat_due:
        return LookUp(grant, (), (), beat=True)
    pod = view.pod
    assert pod is not None
    if isinstance(view.verdict, Undecided) and (progress.credential is not None or not grant.delivered):
        return Hold(view.verdict)
    if progress.credential is not None:
        return Deliver(grant, progress.credential, pod)
    if not grant.delivered:
        return Issue(grant)
    renewal = _renewal_due(grant, times)
    if renewal is not None and now >= renewal and not isinstance(view.verdict, Undecided):
        return Issue(grant, renewal=True)
    if renewal is not None and now >= renewal:
        renewal = now + RECHECK
    beat = view.beat_due
    if beat is None and grant.spec.order.heartbeat is not None:
        beat = now + RECHECK  # the API server is away
    return Wait(min(at for at in (renewal, beat, grant.spec.order.not_after) if at is not None))


def _why_it_ends(view: View, grant: TaskGrant, now: datetime) -> End | None:
    order, request, pod = grant.spec.order, view.request, view.pod
    name = order.subject.pod_name
    if request is not None and request.metadata.uid == order.request_uid and request.finished is not None:
        # It was opened on an older view of its request, which had ended with an earlier grant.
        return End(grant, word(request.finished.reason) or Reason.GRANT_DELETED, "its request had finished before")
    if view.over is not None:
        return End(grant, view.over, _RESTORED)
    if pod is None or pod.terminating or pod.uid != order.subject.pod_uid:
        return End(grant, Reason.POD_DELETED, f"pod {name} was deleted")
    if request is None or request.metadata.terminating or request.metadata.uid != order.request_uid:
        return End(grant, Reason.REQUEST_DELETED, "the AccessRequest was deleted")
    forged = _forged(grant, request)
    if forged is not None:
        return End(grant, Reason.ISSUE_FAILED, forged.message, forged)
    if pod.finished:
        return End(grant, Reason.POD_FINISHED, f"pod {name} has finished")
    if request.spec.outcome is not None:
        return End(grant, Reason.TASK_RELEASED, f"the agent reported {request.spec.outcome}")
    if _restarted(order, pod):
        return End(grant, Reason.CONTAINER_RESTARTED, f"a container of pod {name} died and was started again")
    if view.beat_due is not None and now >= view.beat_due and view.progress.listened:
        within = format_duration(order.heartbeat or timedelta())
        return End(
            grant,
            Reason.HEARTBEAT_LOST,
            f"its agent was not heard of for {within}, by the annotation {HEARTBEAT} of its request",
        )
    if now >= order.not_after:
        return End(grant, Reason.TTL_REACHED, "the time that was granted is over")
    if view.parent_gone:
        return End(grant, Reason.PARENT_ENDED, f"what was granted to its parent {order.parent} has ended")
    failure = view.progress.failure
    if failure is not None:
        _, condition, _ = place_of(failure.reason)
        reason = Reason.ISSUE_FAILED if condition == "Issued" else Reason.DELIVERY_FAILED
        return End(grant, reason, failure.message, failure)
    if view.sharers:
        shared = InvalidError(
            Reason.DELIVERY_SHARED,
            f"pod {view.sharers[0]} mounts Secret {grant.spec.delivery.secret_name} too; give each pod its own",
        )
        return End(grant, Reason.DELIVERY_FAILED, shared.message, shared)
    if view.taken_back is not None:
        gone = view.taken_back
        beside = f", or went with {gone.request}, on which it was said" if gone.request is not None else ""
        message = f"the approval {gone.name} of {gone.username} was taken back{beside}"
        return End(grant, Reason.POLICY_CHANGED, message)
    if view.denied is not None:
        said = view.denied.spec
        message = f"{said.approver.username} denied {said.request.name}, on whose approval it rests: {said.reason}"
        return End(grant, Reason.POLICY_CHANGED, message)
    if isinstance(view.verdict, Denied):
        return End(grant, Reason.POLICY_CHANGED, f"policy no longer allows it: {view.verdict.denial.message}")
    return None


def _restarted(order: Order, pod: Pod) -> bool:
    """Whether whoever asked may be gone: a container has died since.

    The kubelet tells of that up to a second late: a grant that was opened just before may be of who came after.
    """
    if order.restarts is None or pod.restarts <= order.restarts:
        return False
    return pod.died_at is None or order.opened_at < pod.died_at - TELLS_LATE


def _forged(grant: TaskGrant, request: AccessRequest) -> InvalidError | None:
    """Whether a grant is not one that was opened here for its request; guards say so too, and this needs none."""
    order = grant.spec.order
    asked = request.spec
    if (order.subject.pod_name, order.subject.pod_uid) != (asked.subject.pod_name, asked.subject.pod_uid):
        return InvalidError(Reason.ORDER_INVALID, "the grant is for another pod than its request")
    if (order.access, order.parent, order.delegation) != (asked.access, asked.parent, asked.delegation):
        return InvalidError(Reason.ORDER_INVALID, "the grant allows something else than its request asks for")
    if grant.spec.delivery.sealed != asked.delivery.sealed:
        return InvalidError(Reason.ORDER_INVALID, "the grant goes to another key than its request names")
    if abs(order.opened_at - grant.metadata.creation_timestamp) > CLOCKS_APART:
        return InvalidError(Reason.ORDER_INVALID, "the grant's object was not made when its order was opened")
    return None


def _renewal_due(grant: TaskGrant, times: Times) -> datetime | None:
    """When the next credential is due; None where this one outlasts the grant."""
    credential = grant.status.credential
    if credential is None:
        return grant.spec.order.opened_at
    if credential.expires_at >= grant.spec.order.not_after:
        return None
    return credential.issued_at + times.renew_after
