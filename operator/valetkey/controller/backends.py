"""Backends: everything that a step acts on, and the writes that several of them make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeVar

from valetkey.controller.cache import Cache
from valetkey.controller.metrics import Metrics
from valetkey.controller.pace import Agent, Allowance, Pace, Tally, daily
from valetkey.controller.queue import Key
from valetkey.delivery.secret import SecretDelivery
from valetkey.errors import UnavailableError
from valetkey.issuers.base import Issuer
from valetkey.kinds.accessrequest import AccessRequest, RequestStatus
from valetkey.kinds.base import Metadata
from valetkey.kinds.taskgrant import Order, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json
from valetkey.policy.decide import Waiting
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)

ANSWERS_WITHIN: Final = timedelta(seconds=60)
"""How long one call of an issuer may take; a backend that hangs is not to hold a worker for ever."""
T = TypeVar("T")


class Record(Protocol):
    """Where every effect is written down, before and after."""

    async def write(self, reason: str, **fields: Any) -> None:
        """Puts one record on disk; raises UnavailableError."""
        ...

    def demand_room(self) -> None:
        """Raises UnavailableError where what room is left is kept for the records of endings."""
        ...


class Announce(Protocol):
    """Where people see the same reasons."""

    def post(
        self,
        kind: str,
        about: Metadata,
        reason: str,
        message: str,
        *,
        severity: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Takes one Event for posting."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """What steps act on."""

    api: Api
    cache: Cache
    issuers: Mapping[str, Issuer]
    delivery: SecretDelivery
    log: Record
    events: Announce
    metrics: Metrics
    clock: Callable[[], datetime]
    pace: Pace = field(default_factory=Pace)
    tally: Tally = field(default_factory=Tally)
    daily_log: Allowance = field(default_factory=lambda: daily(64 << 10))
    """KiB of the log that what one account asks may fill."""
    tell_people: Callable[[AccessRequest, Waiting], None] = lambda request, waiting: None
    """Where people are told elsewhere than on the request that it has begun to wait for them; returns at once."""
    tell_reviewers: Callable[[AccessRequest, TaskGrant], None] = lambda request, grant: None
    """The same, that it was granted in an emergency and is to be reviewed."""

    def issuer(self, order: Order) -> Issuer:
        """The issuer of the one member that the order's access has."""
        (member,) = order.access.model_fields_set
        return self.issuers[member]

    def request_of(self, grant: TaskGrant) -> AccessRequest | None:
        """The request that a grant was opened for; None where it is gone, or another has its name."""
        request = self.cache.requests.get(Key.of(grant.metadata))
        return request if request is not None and request.metadata.uid == grant.spec.request.uid else None

    async def write_regardless(self, reason: str, **fields: Any) -> None:
        """Puts a record of what goes on all the same on disk; where it cannot be, the operator's own output says so."""
        try:
            await self.log.write(reason, **fields)
        except UnavailableError as error:
            _logger.error("%s %s: not in the log: %s", reason, fields, error.message)

    def slowed(self, request: AccessRequest) -> bool:
        """Whether the account that asks is refused in a loop."""
        return self.pace.slowed(Agent.of(request), self.clock())

    async def count_refusal(self, request: AccessRequest, reason: str, message: str) -> None:
        """Counts a refusal of an account that is refused in a loop."""
        rest = f"were refused, too many for a record of each; the last: {reason}: {message[:500]}"
        await self.count("RequestsRefused", request, rest)

    async def count(self, what: str, request: AccessRequest, rest: str) -> None:
        """Counts what is too much for a record of each; the log and an Event say how many, once a minute."""
        agent = Agent.of(request)
        number = self.tally.add(what, agent, self.clock())
        if number is not None:
            message = f"{number} requests of ServiceAccount {agent.account} {rest}"
            self.events.post("AccessRequest", request.metadata, what, message, severity="Warning")
            await self.log.write(what, **about(request), message=message)

    async def write_request_status(self, request: AccessRequest, status: RequestStatus) -> None:
        """Shows a status on the request; one that is gone is forgotten. Raises ApiError."""
        metadata = request.metadata
        path = paths.item("AccessRequest", metadata.namespace, metadata.name)
        # A merge patch keeps what it does not name, so what is no longer so is named as null.
        fields: dict[str, Any] = dict.fromkeys(("delivery", "heartbeat")) | status.to_api()
        if status.decision is not None:
            fields["decision"] = (
                dict.fromkeys(("policy", "policyGeneration", "covers", "denial")) | status.decision.to_api()
            )
        body = {"metadata": {"uid": metadata.uid}, "status": fields}
        try:
            written = await self.api.patch(f"{path}/status", body)
        except ApiError as error:
            if not (error.not_found or (error.conflict and await self._replaced(path, metadata.uid))):
                raise
            self.cache.requests.remove(Key.of(metadata), metadata.uid)
        else:
            self.cache.requests.put(AccessRequest.model_validate(written))

    async def remove_request(self, request: AccessRequest) -> None:
        """Deletes this very request and forgets it; raises ApiError."""
        metadata = request.metadata
        path = paths.item("AccessRequest", metadata.namespace, metadata.name)
        await self.api.delete(path, uid=metadata.uid)
        self.cache.requests.remove(Key.of(metadata), metadata.uid)

    async def _replaced(self, path: str, uid: str) -> bool:
        """Whether another object, or none, is under that name now."""
        try:
            return bool((await self.api.get(path))["metadata"]["uid"] != uid)
        except ApiError as error:
            if not error.not_found:
                raise
            return True

    async def write_grant(self, grant: TaskGrant, body: Json, *, subresource: str = "") -> TaskGrant:
        """Merges into the grant that was read, and no other version of it; raises ApiError."""
        path = paths.item("TaskGrant", grant.metadata.namespace, grant.metadata.name) + subresource
        body.setdefault("metadata", {})["resourceVersion"] = grant.metadata.resource_version
        written = TaskGrant.model_validate(await self.api.patch(path, body))
        self.cache.grants.put(written)
        return written


def about(request: AccessRequest) -> dict[str, Any]:
    """The fields of the log that name a request."""
    asked, receives = request.spec.requester, request.spec.subject
    subject = {"subject": {"pod": f"{request.metadata.namespace}/{receives.pod_name}", "pod_uid": receives.pod_uid}}
    return {
        "request": f"{request.metadata.namespace}/{request.metadata.name}",
        "request_uid": request.metadata.uid,
        "task": request.spec.task.id,
        "identity": {
            "username": asked.username,
            "pod": f"{request.metadata.namespace}/{asked.pod_name}",
            "pod_uid": asked.pod_uid,
            "credential_id": asked.credential_id,
        },
        **(subject if request.spec.for_another else {}),
    }


def about_grant(grant: TaskGrant) -> dict[str, Any]:
    """The fields of the log that name a grant."""
    order = grant.spec.order
    work = {} if order.parent is None else {"parent": str(order.parent), "act": [str(one) for one in order.act or ()]}
    return {
        "request": f"{grant.metadata.namespace}/{grant.spec.request.name}",
        "request_uid": order.request_uid,
        "grant": grant.metadata.uid,
        "task": order.task.id,
        "identity": {
            "pod": f"{order.subject.namespace}/{order.subject.pod_name}",
            "pod_uid": order.subject.pod_uid,
        },
        "policy": order.policy.name,
        "decision": order.decision,
        "credential_id": grant.status.credential.id if grant.status.credential else None,
        **work,
    }


async def in_time(work: Awaitable[T], otherwise: Reason) -> T:
    """What a call of an issuer gives; raises UnavailableError for that reason where it takes too long."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN.total_seconds()):
            return await work
    except TimeoutError as error:
        message = f"its backend did not answer within {ANSWERS_WITHIN.total_seconds():.0f} s; it is tried again"
        raise UnavailableError(otherwise, message) from error
