"""What a decision reads, read with the caller's own rights; what they may not read is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from valetkey.cli.kubectl import Json, kubectl, read, stop
from valetkey.identity import of_verified
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest, RequestSpec
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.delegation import Parent
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.pods import Pod, parse
from valetkey.policy.approvals import statement
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.coverage import task_word
from valetkey.policy.facts import Facts, ParentFacts, RoleRule, TaskWord
from valetkey.policy.lineage import parent_facts

LIMIT: int = 20
"""The chart's own limit of live grants; the installation may have another."""


def policies() -> Policies:
    """Every AgentPolicy of the cluster."""
    found = []
    for body in _list("agentpolicies.valetkey.dev"):
        try:
            found.append(compile_policy(AgentPolicy.model_validate(body)))
        except ValidationError as error:
            name, why = body["metadata"]["name"], error.errors(include_url=False, include_input=False)[0]
            raise stop(f"policy {name} is of another version than this command: {why['loc']}: {why['msg']}") from None
    return Policies.of(found)


def facts(namespace: str, request: RequestSpec, cluster: str, *, request_uid: str | None = None) -> Facts:
    """What is known of the cluster, of the pod that asks and of what people have said; all of them count as allowed."""
    pod = _pod(namespace, request.subject.pod_name)
    asks = _pod(namespace, request.requester.pod_name) if request.for_another else None
    grants = [grant for grant in _list("taskgrants.valetkey.dev", namespace) if "end" not in grant.get("status", {})]
    active: dict[str, int] = {}
    for order in (grant["spec"]["order"] for grant in grants):
        if order["subject"]["serviceAccount"] == pod.service_account:
            active[order["policy"]["name"]] = active.get(order["policy"]["name"], 0) + 1
    words = _words(namespace) if request_uid is not None else []
    roles = {name: _role(name) for scope in request.scopes if (name := scope.cluster_role) is not None}
    return Facts(
        identity=of_verified(pod),
        requester=None if asks is None else of_verified(asks),
        namespaces={one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in _list("namespaces")},
        cluster=cluster,
        cluster_roles={name: rules for name, rules in roles.items() if rules is not None},
        active=active,
        limit_active=LIMIT,
        approvals=tuple(statement(one, allowed=True) for one in words if one.spec.request.uid == request_uid),
        covering=tuple(_beside(namespace, words, request_uid)) if request_uid is not None else (),
        parent=_parent(request.parent),
        live=False,
        now=datetime.now(UTC),
    )


def _pod(namespace: str, name: str) -> Pod:
    body = read("pod", namespace, name)
    if body is None:
        raise stop(f"there is no pod {namespace}/{name}")
    return parse(body)


def _parent(parent: Parent | None) -> ParentFacts | None:
    """What a live parent hands on; the right to read its request and its grant is the caller's own."""
    if parent is None:
        return None
    grant = read("taskgrants.valetkey.dev", parent.namespace, parent.name)
    request = read("accessrequests.valetkey.dev", parent.namespace, parent.name)
    if grant is None or request is None:
        return None
    granted, asked = TaskGrant.model_validate(grant), AccessRequest.model_validate(request)
    same = granted.spec.request.uid == asked.metadata.uid == parent.uid
    return parent_facts(granted, asked) if same and not granted.ending else None


def _words(namespace: str) -> list[AccessApproval]:
    """What people have said there; a review is none that a decision reads."""
    bodies = (AccessApproval.model_validate(body) for body in _list("accessapprovals.valetkey.dev", namespace))
    return [one for one in bodies if one.spec.verdict != "Reviewed"]


def _beside(namespace: str, words: list[AccessApproval], request_uid: str) -> Iterator[TaskWord]:
    """The words on other requests that cover whole tasks, with what those ask for."""
    words = [one for one in words if one.spec.request.uid != request_uid]
    covering = [one for one in words if one.spec.covers == "Task"]
    bodies = _list("accessrequests.valetkey.dev", namespace) if covering else []
    requests = {body["metadata"]["uid"]: body for body in bodies if "deletionTimestamp" not in body["metadata"]}
    denied = {
        (one.spec.request.uid, one.spec.policy): one.spec.approver.username
        for one in words
        if one.spec.verdict == "Deny"
    }
    for one in covering:
        uid = one.spec.request.uid
        if uid in requests:
            asked = AccessRequest.model_validate(requests[uid])
            word = task_word(statement(one, allowed=True), one.spec, asked, denied.get((uid, one.spec.policy)))
            if word is not None:
                yield word


def _list(kind: str, namespace: str | None = None) -> list[Json]:
    place = ("-n", namespace) if namespace else ()
    return list(json.loads(kubectl("get", kind, *place, "-o", "json"))["items"])


def _role(name: str) -> tuple[RoleRule, ...] | None:
    body = read("clusterrole", None, name)
    return None if body is None else tuple(_rule(rule) for rule in body.get("rules") or ())


def _rule(rule: dict[str, Any]) -> RoleRule:
    return RoleRule(
        api_groups=tuple(rule.get("apiGroups", ())),
        resources=tuple(rule.get("resources", ())),
        resource_names=tuple(rule.get("resourceNames", ())),
        non_resource_urls=tuple(rule.get("nonResourceURLs", ())),
        verbs=tuple(rule.get("verbs", ())),
    )
