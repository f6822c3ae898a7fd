"""Who is asking? The request's claim against the pod as it is now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from valetkey.errors import InvalidError, NotReadyError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import AGENT_LABEL
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import MOST_LABELS, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError
from valetkey.kube.pods import Pod, parse
from valetkey.reasons import Reason

_SOON: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The pod that receives, and where that is another the one that asks, as both are now."""

    identity: Identity
    pod: Pod
    requester: Identity | None = None


async def verify(api: Api, request: AccessRequest) -> Verified:
    """Reads the requester's pod live and proves that the request is its own; and the subject's, where it is another.

    A pod that is Pending on its node counts, since its native sidecars ask too.
    Raises InvalidError where pod and request disagree, NotReadyError where the pod cannot be judged yet, ApiError.
    """
    asked, metadata, subject = request.spec.requester, request.metadata, request.spec.subject
    pod = await _read(api, request, asked.pod_name)
    if pod.uid != asked.pod_uid:
        raise _mismatch(f"pod {pod.name} is another pod of the same name: its uid is not spec.requester.podUID")
    if asked.username != f"system:serviceaccount:{metadata.namespace}:{asked.service_account}":
        raise _mismatch("spec.requester.username is not the user name of spec.requester.serviceAccount")
    if pod.service_account != asked.service_account:
        raise _mismatch(f"pod {pod.name} runs as {pod.service_account}, not as {asked.service_account}")
    if not any(owner.kind == "Pod" and owner.uid == subject.pod_uid for owner in metadata.owner_references):
        raise _mismatch(f"the request must be owned by pod {subject.pod_name}, so that it goes with it")
    if pod.terminating:
        raise _mismatch(f"pod {pod.name} is being deleted; access is not given to a pod that is going")
    if pod.finished:
        raise _mismatch(f"pod {pod.name} has finished; access is given to running pods")
    if not pod.node_name:
        raise NotReadyError(Reason.IDENTITY_PENDING, f"pod {pod.name} has no node yet", after=_SOON)
    if pod.node_name != asked.node_name:
        raise _mismatch(f"pod {pod.name} is on another node than the token that was used")
    if not request.spec.for_another:
        return Verified(identity=of_verified(_receiver(pod)), pod=pod)
    if len(pod.labels) > MOST_LABELS:
        raise _mismatch(f"pod {pod.name} has {len(pod.labels)} labels; who asks for another has {MOST_LABELS} at most")
    receiver = await verify_subject(api, request)
    return Verified(identity=of_verified(receiver), pod=receiver, requester=of_verified(pod))


async def verify_subject(api: Api, request: AccessRequest) -> Pod:
    """Reads the subject's pod live and finds it able to receive; raises as `verify`."""
    subject = request.spec.subject
    pod = await _read(api, request, subject.pod_name)
    if pod.uid != subject.pod_uid:
        raise _mismatch(f"pod {pod.name} is another pod of the same name: its uid is not spec.subject.podUID")
    if not pod.node_name:
        raise NotReadyError(Reason.IDENTITY_PENDING, f"pod {pod.name} has no node yet", after=_SOON)
    return _receiver(pod)


def requester_of(grant: TaskGrant, pod: Pod | None) -> Identity | None:
    """The pod that asked for a live grant, where it is another; with its labels as they are now, if it is there."""
    asked = grant.spec.order.requester
    if asked is None:
        return None
    return Identity(
        namespace=grant.metadata.namespace,
        pod_name=asked.pod_name,
        pod_uid=asked.pod_uid,
        node_name=asked.node_name,
        service_account=asked.service_account,
        labels=pod.labels if pod is not None and pod.uid == asked.pod_uid else asked.labels,
    )


async def _read(api: Api, request: AccessRequest, name: str) -> Pod:
    try:
        return parse(await api.get(paths.item("Pod", request.metadata.namespace, name)))
    except ApiError as error:
        if error.not_found:
            raise _mismatch(f"pod {name} does not exist; a request is made by a running pod, and for one") from error
        raise


def _receiver(pod: Pod) -> Pod:
    if pod.terminating:
        raise _mismatch(f"pod {pod.name} is being deleted; access is not given to a pod that is going")
    if pod.finished:
        raise _mismatch(f"pod {pod.name} has finished; access is given to running pods")
    if pod.labels.get(AGENT_LABEL) != "true":
        raise InvalidError(
            Reason.POD_NOT_LABELLED, f'give pod {pod.name} the label {AGENT_LABEL}: "true" and create the request again'
        )
    return pod


def of_verified(pod: Pod) -> Identity:
    """The identity of a pod whose uid was verified before, with its labels as they are now."""
    return Identity(
        namespace=pod.namespace,
        pod_name=pod.name,
        pod_uid=pod.uid,
        node_name=pod.node_name,
        service_account=pod.service_account,
        labels=pod.labels,
    )


def _mismatch(message: str) -> InvalidError:
    return InvalidError(Reason.IDENTITY_MISMATCH, message)
