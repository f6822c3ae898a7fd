"""Refusals: what a request without a grant is told, for good or for now."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal

from valetkey.controller import status
from valetkey.controller.backends import Backends, about
from valetkey.controller.pace import Agent
from valetkey.controller.steps import Await, Drop, Progress, Refuse
from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest, DecisionStatus
from valetkey.policy.decide import Approved, Denied, Waiting
from valetkey.reasons import Reason, place_of

DROPPED: Final = "RequestsDropped"
_FINISHED: Final = {
    "Identified": Reason.REQUEST_INVALID,
    "Finished": Reason.REQUEST_INVALID,
    "Approved": Reason.REQUEST_DENIED,
    "Issued": Reason.ISSUE_FAILED,
    "Delivered": Reason.DELIVERY_FAILED,
}
"""What a request finishes with, by the condition that refused it."""

_UNASKED: Final = {
    Reason.TASK_RELEASED: "the task was over before access was granted",
    Reason.REQUEST_EXPIRED: "it was not granted in time; create it again",
}


class Refusals:
    """Writes on requests why they get nothing."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def refuse(self, step: Refuse, progress: Progress) -> Progress:
        """Finishes a request without a grant."""
        request, why, now = step.request, step.why, self._backends.clock()
        decision: DecisionStatus | None = None
        self._backends.log.demand_room()
        match why:
            case Denied(denial=denial, policy=policy):
                reason, message, finished = Reason(denial.reason), denial.message, Reason.REQUEST_DENIED
                decision = DecisionStatus(
                    id=progress.decision_id, outcome="Denied", policy=policy, at=now, denial=denial
                )
            case InvalidError(reason=reason, message=message):
                _, condition, _ = place_of(reason)
                finished = _FINISHED[condition]
                await self._write_down(request, reason, message)
            case Reason() as reason:
                message, finished = _UNASKED[reason], reason
                if reason is Reason.REQUEST_EXPIRED and _waited(request, progress):
                    message = "nobody approved it in time; create it again when somebody can"
                await self._write_down(request, reason, message)
        kind, condition, _ = place_of(reason)
        says = [
            (Reason.ACCESS_NOT_GRANTED, message),
            (finished, message if reason is finished else f"{reason}: {message}"),
        ]
        if kind == "AccessRequest" and condition != "Finished":
            says.insert(0, (reason, message))
        if progress.identity is not None:
            says.insert(0, (Reason.IDENTITY_VERIFIED, f"pod {progress.identity.pod_name}"))
        await self._backends.write_request_status(request, status.of_refused(request, decision, says, now))
        severity: Literal["Normal", "Warning"] = "Normal" if finished is Reason.TASK_RELEASED else "Warning"
        if not self._backends.slowed(request):
            self._backends.events.post("AccessRequest", request.metadata, reason, message, severity=severity)
        self._backends.pace.refused(Agent.of(request), now)
        return progress

    async def drop(self, step: Drop, progress: Progress) -> Progress:
        """Deletes a request unread; the log and an Event say how many went so, once a minute."""
        await self._backends.remove_request(step.request)
        self._backends.metrics.dropped()
        rest = (
            "were deleted unread, for it has more than limits.requests; those that have ended count until historyTTL is"
            " over"
        )
        await self._backends.count(DROPPED, step.request, rest)
        return progress

    async def _write_down(self, request: AccessRequest, reason: Reason, message: str) -> None:
        """Records a refusal; of an account that is refused in a loop, how many there were."""
        if self._backends.slowed(request):
            await self._backends.count_refusal(request, reason, message)
        else:
            await self._backends.log.write(reason, **about(request), message=message)

    async def ask_people(self, step: Await, progress: Progress) -> None:
        """Shows that a request waits for people, with an Event; once for each thing that there is to say."""
        request, waiting, now = step.request, step.waiting, self._backends.clock()
        message = status.of_waiting(request, waiting)
        before = request.status.decision
        known = before is not None and (before.policy_generation, before.covers) == (
            waiting.policy_generation,
            waiting.covers,
        )
        if known and status.says(request, message, "Approved", "Ready"):
            return
        begins = before is None or (before.outcome, before.policy) != ("Pending", waiting.policy)
        decision = DecisionStatus(
            id=progress.decision_id,
            outcome="Pending",
            policy=waiting.policy,
            policy_generation=waiting.policy_generation,
            covers=waiting.covers,
            at=now,
        )
        says = [
            (Reason.AWAITING_APPROVAL, message),
            (Reason.ACCESS_IN_PROGRESS, message),
            (Reason.TASK_IN_PROGRESS, "waiting"),
        ]
        if progress.identity is not None:
            says.insert(0, (Reason.IDENTITY_VERIFIED, f"pod {progress.identity.pod_name}"))
        await self._backends.write_request_status(request, status.of_refused(request, decision, says, now))
        if begins:
            self._backends.tell_people(request, waiting)
        if not status.says(request, message, "Approved"):
            self._backends.events.post("AccessRequest", request.metadata, Reason.AWAITING_APPROVAL, message)

    async def wait(self, request: AccessRequest, reason: Reason, message: str) -> None:
        """Shows why a request waits, once for each reason."""
        if status.says(request, message):
            return
        now = self._backends.clock()
        kind, condition, _ = place_of(reason)
        says = [(Reason.TASK_IN_PROGRESS, "waiting")]
        if kind == "AccessRequest":
            says.append((reason, message))
        if (kind, condition) != ("AccessRequest", "Ready"):
            says.append((Reason.ACCESS_IN_PROGRESS, message))
        await self._backends.write_request_status(request, status.of_refused(request, None, says, now))


def _waited(request: AccessRequest, progress: Progress) -> bool:
    """Whether it was people that a request waited for, as far as is known."""
    match progress.decision:
        case Waiting() | Approved(wait=timedelta()):
            return True
        case None:
            return status.shows_waiting(request)
        case _:
            return False
