"""Beginnings: the steps from a request to a credential in its pod; each may run again after a crash at any point."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from valetkey import identity
from valetkey.controller import deliveries, parents, status
from valetkey.controller.approvals import Approvals
from valetkey.controller.backends import Backends, about_grant, in_time
from valetkey.controller.cache import Pods
from valetkey.controller.grant import TELLS_LATE
from valetkey.controller.queue import Key
from valetkey.controller.steps import Identify, Issue, Open, Progress, learnt
from valetkey.controller.surroundings import Surroundings
from valetkey.controller.views import Views
from valetkey.errors import InvalidError, NotReadyError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import API_VERSION, REQUEST_LABEL, REVOKE_FINALIZER
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import (
    GrantSpec,
    Order,
    OrderRequester,
    OrderSubject,
    OrderTask,
    RequestReference,
    TaskGrant,
)
from valetkey.kube import paths
from valetkey.kube.api import ApiError, Json, RewoundError
from valetkey.kube.concurrency import all_of
from valetkey.policy.claims import check_claims
from valetkey.policy.notation import line
from valetkey.reasons import Reason

MARGIN: Final = timedelta(seconds=3)
"""How long guards must have stood before a request: a new policy is enforced up to a second after its creation."""
SOON: Final = timedelta(seconds=1)


class Beginnings:
    """Carries requests from Identify to Issue."""

    def __init__(self, backends: Backends, surroundings: Surroundings, views: Views) -> None:
        self._backends = backends
        self._surroundings = surroundings
        self._views = views
        self._approvals = Approvals(backends)

    async def identify(self, step: Identify, progress: Progress) -> Progress:
        """Reads the pod live, and finds where the credential would go."""
        request = step.request
        if request.metadata.creation_timestamp < self._guarded_since() + MARGIN:
            raise InvalidError(
                Reason.REQUEST_UNATTESTED, "it was created while guards were being put in place; create it again"
            )
        check_claims(request.spec.task)
        verified = await identity.verify(self._backends.api, request)
        self._backends.cache.pods.put(verified.pod)
        return learnt(
            progress,
            identity=verified.identity,
            requester=verified.requester,
            place=deliveries.plan(request, verified.pod, self._views),
        )

    async def open(self, step: Open, progress: Progress) -> Progress:
        """Writes the grant: whoever changes what it was decided on from now on finds it."""
        backends, request, now = self._backends, step.request, self._backends.clock()
        namespace = request.metadata.namespace
        self._refuse_after_a_restart(step)
        order = _order(step, progress.decision_id, backends.cache.pods, now)
        spec = GrantSpec(
            request=RequestReference(name=request.metadata.name, uid=request.metadata.uid),
            order=order,
            plan=backends.issuer(order).plan(order),
            delivery=step.place,
        )
        body: Json = {
            "apiVersion": API_VERSION,
            "kind": "TaskGrant",
            "metadata": {
                "name": request.metadata.name,
                "namespace": namespace,
                "labels": {REQUEST_LABEL: request.metadata.uid},
                "finalizers": [REVOKE_FINALIZER],
            },
            "spec": spec.to_api(),
        }
        try:
            created = await backends.api.create(paths.collection("TaskGrant", namespace), body)
        except ApiError as error:
            if not error.already_exists:
                raise
            # Ours of an earlier try, or that of an earlier request of this name: the next step looks at it.
            created = await backends.api.get(paths.item("TaskGrant", namespace, request.metadata.name))
        self._take_in(TaskGrant.model_validate(created))
        return progress

    def _refuse_after_a_restart(self, step: Open) -> None:
        """Whoever asked may be gone where people took their time, and whoever came after has not asked."""
        request, approved = step.request, step.approved
        pod = self._backends.cache.pods.get(request.metadata.namespace, request.spec.subject.pod_name)
        if approved.outlives_restarts or approved.wait is None or pod is None or pod.died_at is None:
            return
        if pod.died_at > request.metadata.creation_timestamp + TELLS_LATE:
            message = f"a container of pod {pod.name} died and was started again since; create it again"
            raise InvalidError(Reason.CONTAINER_RESTARTED, message)

    def _tell_of_emergency(self, grant: TaskGrant) -> None:
        """Before its first credential, and again wherever that is tried again: whoever listens knows it by its id."""
        request = self._backends.request_of(grant)
        if grant.spec.order.review_by is None or request is None:
            return
        message = status.of_emergency(request, grant.spec.order)
        self._backends.events.post(
            "AccessRequest", request.metadata, Reason.BREAK_GLASS_USED, message, severity="Warning"
        )
        self._backends.tell_reviewers(request, grant)

    def _take_in(self, grant: TaskGrant) -> None:
        grants, metadata = self._backends.cache.grants, grant.metadata
        if not grants.known_gone(metadata.uid):
            grants.put(grant)
        elif metadata.terminating:
            message = f"another's finalizer holds up the earlier TaskGrant: {', '.join(metadata.finalizers)}"
            raise NotReadyError(Reason.PREVIOUS_GRANT_ENDING, message, after=SOON)
        else:
            raise RewoundError(f"TaskGrant {metadata.name} is there again and was gone: the store was restored")

    async def issue(self, step: Issue, progress: Progress) -> Progress:
        """Makes the credential; without a record of it, none is made.

        Before the first one all that the grant was decided on is read again, and looked at: whoever changed it before
        the grant was written did not find the grant, and is found here.
        """
        grant, backends = step.grant, self._backends
        self._guarded_since()
        if not (step.renewal or progress.read_again):
            *_, goes_on = await all_of(
                self._read_request_again(grant),
                self._read_policy_again(grant.spec.order),
                self._approvals.read_again(grant, grant.spec.order.approvals),
                parents.goes_on(backends, grant.spec.order.parent),
            )
            return learnt(progress, read_again=True, parent_gone=not goes_on)
        if not step.renewal:
            self._tell_of_emergency(grant)
        issuer = backends.issuer(grant.spec.order)
        await backends.log.write(
            Reason.ISSUE_PENDING, **about_grant(grant), message="renewal" if step.renewal else grant.spec.order.line
        )
        if step.renewal:
            request = backends.request_of(grant)
            if request is not None:
                await self._verify_again(request)
            made = issuer.renew(grant.spec.order, grant.spec.plan)
        else:
            made = issuer.issue(grant.spec.order, grant.spec.plan)
        credential = await in_time(made, Reason.BACKEND_UNAVAILABLE)
        return learnt(progress, credential=credential)

    def _guarded_since(self) -> datetime:
        outdated = self._surroundings.outdated_crds()
        if outdated:
            message = f"older CRDs than this operator's: {'; '.join(outdated)}; apply those of its version"
            raise NotReadyError(Reason.CRDS_OUTDATED, message, after=SOON)
        guards = self._surroundings.guards_in_force(self._backends.clock())
        if guards.since is None:
            raise NotReadyError(
                Reason.GUARDS_MISSING,
                f"guards are not in force: {'; '.join(guards.wrong)}; what was asked meanwhile is to be created again",
                after=SOON,
            )
        return guards.since

    async def _verify_again(self, request: AccessRequest) -> None:
        try:
            await identity.verify_subject(self._backends.api, request)
        except InvalidError as error:
            # The pod's own watch ends the grant; until it has, no renewal.
            raise NotReadyError(Reason.ISSUE_PENDING, error.message, after=SOON) from error

    async def _read_request_again(self, grant: TaskGrant) -> None:
        key, requests = Key.of(grant.metadata), self._backends.cache.requests
        try:
            body = await self._backends.api.get(paths.item("AccessRequest", *key))
        except ApiError as error:
            if not error.not_found:
                raise
            requests.remove(key, grant.spec.request.uid)
        else:
            requests.put(AccessRequest.model_validate(body))

    async def _read_policy_again(self, order: Order) -> None:
        try:
            body = await self._backends.api.get(paths.item("AgentPolicy", None, order.policy.name))
        except ApiError as error:
            if not error.not_found:
                raise
            self._surroundings.remove_policy(order.policy.name, order.policy.uid)
        else:
            self._surroundings.put_policy(body)


def _requester(asks: Identity) -> OrderRequester:
    return OrderRequester(
        pod_name=asks.pod_name,
        pod_uid=asks.pod_uid,
        node_name=asks.node_name,
        service_account=asks.service_account,
        labels=dict(asks.labels),
    )


def _order(step: Open, decision_id: str, pods: Pods, now: datetime) -> Order:
    request, verified, approved = step.request, step.identity, step.approved
    pod = pods.get(verified.namespace, verified.pod_name)
    restarts = pod.restarts if pod is not None and pod.uid == verified.pod_uid else 0
    return Order(
        request_uid=request.metadata.uid,
        subject=OrderSubject(
            namespace=verified.namespace,
            pod_name=verified.pod_name,
            pod_uid=verified.pod_uid,
            node_name=verified.node_name,
            service_account=verified.service_account,
        ),
        requester=None if step.requester is None else _requester(step.requester),
        task=OrderTask(id=request.spec.task.id, purpose=request.spec.task.purpose),
        policy=approved.policy,
        decision=decision_id,
        approvals=approved.approvals,
        review_by=approved.review_by,
        parent=request.spec.parent,
        act=approved.act or None,
        among=approved.among or None,
        launchers=approved.launchers or None,
        delegates_pod_templates=approved.delegates_pod_templates or None,
        delegation=request.spec.delegation,
        access=request.spec.access,
        line=line(request.spec.access),
        pod_templates=approved.pod_templates,
        backstop=approved.backstop,
        heartbeat=approved.heartbeat,
        restarts=None if approved.outlives_restarts else restarts,
        opened_at=now,
        not_after=approved.not_after(now),
    )
