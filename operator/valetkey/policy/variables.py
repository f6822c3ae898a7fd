"""What does an expression see of a request and of the facts?"""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.policy.approvals import counting
from valetkey.policy.facts import Facts, ParentFacts, Statement


def variables(request: RequestSpec, facts: Facts) -> dict[str, Any]:
    """The value of each variable, with what people said for whichever policy.

    What is not known is absent, so that reading it is an error and never false.
    """
    identity, task = facts.identity, request.task
    return {
        "identity": {
            "namespace": identity.namespace,
            "serviceAccount": identity.service_account,
            "podName": identity.pod_name,
            "podUID": identity.pod_uid,
            "nodeName": identity.node_name,
            "labels": dict(identity.labels),
        },
        "claims": {
            "task": {
                "id": task.id,
                "objective": task.objective,
                "purpose": task.purpose,
                "parameters": dict(task.parameters),
            }
        },
        "access": request.access.to_api(),
        "parent": _parent(facts.parent),
        "namespaces": _namespaces(request.access, facts),
        "approvals": approvals(request, facts),
        "cluster": facts.cluster,
        "now": facts.now,
    }


def approvals(request: RequestSpec, facts: Facts, policy: str | None = None) -> list[dict[str, Any]]:
    """What people said that counts, for one policy or for whichever."""
    return [_approval(one) for one in counting(request, facts, policy)]


def _parent(parent: ParentFacts | None) -> dict[str, Any]:
    """The request that this one works for; of none there is no field."""
    if parent is None:
        return {}
    identity = {"namespace": parent.namespace, "serviceAccount": parent.account}
    return {"namespace": parent.namespace, "name": parent.name, "identity": identity, "task": dict(parent.task)}


def _approval(one: Statement) -> dict[str, Any]:
    at = Timestamp()  # within a list the library takes no datetime
    at.FromDatetime(one.at)
    approver = {"username": one.username, "groups": list(one.groups)}
    return {"policy": one.policy, "verdict": one.verdict, "approver": approver, "at": at}


def _namespaces(access: Access, facts: Facts) -> dict[str, dict[str, dict[str, str]]]:
    """The namespaces that the request reaches, by name; cluster scope reaches all of them."""
    scopes = access.kubernetes.scopes if access.kubernetes is not None else ()
    reached = {scope.namespace for scope in scopes if scope.namespace is not None}
    if any(scope.namespace is None for scope in scopes):
        reached |= set(facts.namespaces)
    # An unknown namespace is there without labels: leaving it out would let `exists` overlook it.
    return {
        name: {"labels": dict(facts.namespaces[name])} if name in facts.namespaces else {} for name in sorted(reached)
    }
