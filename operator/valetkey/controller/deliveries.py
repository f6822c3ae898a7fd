"""Deliveries: the step that puts a credential where its pod or its key's holder reads it, and its undoing."""

from __future__ import annotations

from typing import Any

from valetkey.controller import status
from valetkey.controller.backends import Backends, about_grant
from valetkey.controller.steps import Deliver, Progress, learnt
from valetkey.controller.views import Views
from valetkey.delivery import sealed as sealed_delivery
from valetkey.delivery import secret as secret_delivery
from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.credential import Credential
from valetkey.kinds.delivery import DeliveryStatus, GrantDelivery, Sealed, SecretDelivered
from valetkey.kinds.taskgrant import MadeObject, TaskGrant
from valetkey.kube import paths
from valetkey.kube.concurrency import all_of
from valetkey.kube.pods import Pod
from valetkey.reasons import Reason


class Deliveries:
    """Delivers credentials in either way, and takes them away."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def deliver(self, step: Deliver, progress: Progress) -> Progress:
        """Places the credential; the grant says so last, so that a crash before it begins again with a new one."""
        grant, credential, backends = step.grant, step.credential, self._backends
        fields = about_grant(grant) | {"credential_id": credential.id}
        await backends.log.write(
            Reason.CREDENTIAL_ISSUED, **fields, message=f"dies by itself at {credential.expires_at}"
        )
        request = backends.request_of(grant)
        made = credential.made or tuple(entry for entry in grant.status.made if entry.kind != "Secret")
        sealed = grant.spec.delivery.sealed
        if sealed is None:
            made = (*made, *await self._into_secret(step, request, fields))
        else:
            await self._into_status(step, request, sealed, fields)
        now = backends.clock()
        live = status.of_live(grant, credential, made, now)
        await backends.write_grant(grant, {"status": live.to_api()}, subresource="/status")
        if request is not None and grant.status.credential is None:
            backends.metrics.issued(backends.cache.requests.age(request, now))
        return learnt(progress, credential=None)

    async def take_away(self, grant: TaskGrant) -> None:
        """Removes the Secret and tells the pod; a sealed credential goes as the request's end is said."""
        if grant.spec.delivery.secret is None:
            return
        await self._backends.delivery.remove(grant)
        subject = grant.spec.order.subject
        pod = self._backends.cache.pods.get(subject.namespace, subject.pod_name)
        if pod is not None and pod.uid == subject.pod_uid and not pod.finished:
            await self._backends.delivery.touch(grant, pod, None)

    async def _into_secret(
        self, step: Deliver, request: AccessRequest | None, fields: dict[str, Any]
    ) -> tuple[MadeObject]:
        grant, credential, backends = step.grant, step.credential, self._backends
        placed = await backends.delivery.place(grant, credential)
        work = []
        if request is not None:
            delivered = DeliveryStatus(secret=SecretDelivered(name=placed.name))
            shown = self._shown(request, grant, credential, delivered)
            work.append(backends.write_request_status(request, shown))
            self._announce(request, grant)
        await all_of(
            backends.delivery.touch(grant, step.pod, f"{grant.metadata.uid}.{credential.issued_at:%H%M%S}"),
            backends.log.write(Reason.CREDENTIAL_DELIVERED, **fields, message=str(grant.spec.delivery)),
            *work,
        )
        return (placed,)

    async def _into_status(
        self, step: Deliver, request: AccessRequest | None, to: Sealed, fields: dict[str, Any]
    ) -> None:
        if request is None:  # nobody to deliver it to: the next look at the grant ends it
            return
        grant, backends = step.grant, self._backends
        if grant.delivered:
            # Of a first delivery it was read in this very run, before the credential was made.
            request = await self._read(request)
        sealed = sealed_delivery.seal(grant, step.credential, to, sealed_delivery.next_sequence(request))
        shown = self._shown(request, grant, step.credential, DeliveryStatus(sealed=sealed))
        await backends.write_request_status(request, shown)
        self._announce(request, grant)
        await backends.log.write(Reason.CREDENTIAL_DELIVERED, **fields, message=str(grant.spec.delivery))

    async def _read(self, request: AccessRequest) -> AccessRequest:
        metadata = request.metadata
        read = await self._backends.api.get(paths.item("AccessRequest", metadata.namespace, metadata.name))
        request = AccessRequest.model_validate(read)
        self._backends.cache.requests.put(request)
        return request

    def _shown(
        self, request: AccessRequest, grant: TaskGrant, credential: Credential, delivered: DeliveryStatus
    ) -> Any:
        overrun = self._backends.issuer(grant.spec.order).overrun
        return status.of_ready(request, grant, credential, overrun, delivered, self._backends.clock())

    def _announce(self, request: AccessRequest, grant: TaskGrant) -> None:
        order = grant.spec.order
        message = f"{order.line} until {order.not_after:%H:%M:%S}Z"
        self._backends.events.post("AccessRequest", request.metadata, Reason.ACCESS_DELIVERED, message)


def plan(request: AccessRequest, pod: Pod, views: Views) -> GrantDelivery:
    """Where the credential would go; raises InvalidError where that pod, or that key, alone would not read it."""
    asked = request.spec.delivery
    if asked.sealed is not None and request.spec.for_another:
        raise InvalidError(
            Reason.DELIVERY_NOT_ALLOWED,
            f"what pod {pod.name} receives is not sealed to a key that another names: leave spec.delivery.sealed out "
            "and let it mount a Secret, or let it ask itself",
        )
    if asked.sealed is not None:
        return GrantDelivery(sealed=sealed_delivery.plan(asked.sealed))
    name = (asked.secret.name if asked.secret else None) or pod.default_secret
    sharers = views.sharers(pod.namespace, name, pod.uid)
    return GrantDelivery(secret=secret_delivery.plan(request, pod, sharers))
