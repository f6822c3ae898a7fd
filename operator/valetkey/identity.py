"""Who is asking? The request's claim against the pod as it is now."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from valetkey.errors import InvalidError, NotReadyError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import AGENT_LABEL
from valetkey.kinds.identity import Identity
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError
from valetkey.kube.pods import Pod, parse
from valetkey.reasons import Reason

_SOON: Final = timedelta(seconds=1)


async def verify(api: Api, request: AccessRequest) -> tuple[Identity, Pod]:
    """Reads the requester's pod live and proves that the request is its own.

    A pod that is Pending on its node counts, since its native sidecars ask too.
    Raises InvalidError where pod and request disagree, NotReadyError where the pod cannot be judged yet, ApiError.
    """
    asked, metadata = request.spec.requester, request.metadata
    try:
        pod = parse(await api.get(paths.item("Pod", metadata.namespace, asked.pod_name)))
    except ApiError as error:
        if error.not_found:
            raise _mismatch(f"pod {asked.pod_name} does not exist; a request is made by a running pod") from error
        raise
    if pod.uid != asked.pod_uid:
        raise _mismatch(f"pod {pod.name} is another pod of the same name: its uid is not spec.requester.podUID")
    if (request.spec.subject.pod_name, request.spec.subject.pod_uid) != (asked.pod_name, asked.pod_uid):
        raise _mismatch("spec.subject must be the pod that asks; leave it out")
    if not any(owner.kind == "Pod" and owner.uid == pod.uid for owner in metadata.owner_references):
        raise _mismatch(f"the request must be owned by pod {pod.name}, so that it goes with it")
    if asked.username != f"system:serviceaccount:{metadata.namespace}:{asked.service_account}":
        raise _mismatch("spec.requester.username is not the user name of spec.requester.serviceAccount")
    if pod.service_account != asked.service_account:
        raise _mismatch(f"pod {pod.name} runs as {pod.service_account}, not as {asked.service_account}")
    if pod.terminating:
        raise _mismatch(f"pod {pod.name} is being deleted; access is not given to a pod that is going")
    if pod.finished:
        raise _mismatch(f"pod {pod.name} has finished; access is given to running pods")
    if pod.labels.get(AGENT_LABEL) != "true":
        raise InvalidError(
            Reason.POD_NOT_LABELLED, f'give the pod the label {AGENT_LABEL}: "true" and create the request again'
        )
    if not pod.node_name:
        raise NotReadyError(Reason.IDENTITY_PENDING, f"pod {pod.name} has no node yet", after=_SOON)
    if pod.node_name != asked.node_name:
        raise _mismatch(f"pod {pod.name} is on another node than the token that was used")
    return of_verified(pod), pod


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
