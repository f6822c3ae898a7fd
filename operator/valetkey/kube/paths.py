"""Where each kind lives at the API server."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_CORE = "/api/v1"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_OURS = "/apis/valetkey.dev/v1alpha1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"

_PLURALS: Final[dict[str, tuple[str, str]]] = {
    "AccessRequest": (_OURS, "accessrequests"),
    "TaskGrant": (_OURS, "taskgrants"),
    "AccessApproval": (_OURS, "accessapprovals"),
    "AgentPolicy": (_OURS, "agentpolicies"),
    "Pod": (_CORE, "pods"),
    "Secret": (_CORE, "secrets"),
    "Namespace": (_CORE, "namespaces"),
    "ServiceAccount": (_CORE, "serviceaccounts"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Leader": (_OURS, "leaders"),
    "Ledger": (_OURS, "ledgers"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "Role": (_RBAC, "roles"),
    "RoleBinding": (_RBAC, "rolebindings"),
    "ClusterRole": (_RBAC, "clusterroles"),
    "ClusterRoleBinding": (_RBAC, "clusterrolebindings"),
    "SubjectAccessReview": ("/apis/authorization.k8s.io/v1", "subjectaccessreviews"),
    "TokenReview": ("/apis/authentication.k8s.io/v1", "tokenreviews"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ValidatingAdmissionPolicy": (_ADMISSION, "validatingadmissionpolicies"),
    "ValidatingAdmissionPolicyBinding": (_ADMISSION, "validatingadmissionpolicybindings"),
}


def collection(kind: str, namespace: str | None = None) -> str:
    """The path of all objects of a kind, in one namespace if given."""
    prefix, plural = _PLURALS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def item(kind: str, namespace: str | None, name: str) -> str:
    """The path of one object."""
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"


def api_version(kind: str) -> str:
    """The apiVersion that objects of a kind carry."""
    prefix, _ = _PLURALS[kind]
    return prefix.removeprefix("/apis/").removeprefix("/api/")
