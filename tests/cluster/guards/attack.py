"""What every attack on a guard needs: where it goes, and what must come back."""

from __future__ import annotations

import uuid
from typing import Any

from tests.cluster.api import (
    GRANTS,
    SYSTEM,
    Answer,
    Api,
    Caller,
    Json,
    account,
    merged,
    unique,
)
from tests.cluster.world import World

REQUESTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests"


TASK_GRANTS = "/apis/valetkey.dev/v1alpha1/namespaces/agents/taskgrants"


LEDGERS = f"/apis/valetkey.dev/v1alpha1/namespaces/{SYSTEM}/ledgers"


POLICIES = "/apis/valetkey.dev/v1alpha1/agentpolicies"


RBAC = "/apis/rbac.authorization.k8s.io/v1"


ACCOUNTS = f"/api/v1/namespaces/{GRANTS}/serviceaccounts"


TIMERS = f"/apis/batch/v1/namespaces/{GRANTS}/jobs"


PODS = "/api/v1/namespaces/agents/pods"


SECRETS = "/api/v1/namespaces/agents/secrets"


COLLECTOR = account("kube-system", "generic-garbage-collector")


NOBODY = "5e0d2a52-9a9b-4d5e-8f4e-3e8d1f0a7b10"


ORPHAN = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}


def refused(answer: Answer, guard: str, message: str = "") -> None:
    """The guard refused it, in these words."""
    status, body = answer
    assert status == 403, body.get("message", body)
    assert f"ValidatingAdmissionPolicy '{guard}.valetkey.dev' with binding" in body["message"], body["message"]
    assert message in body["message"]


def forbidden(answer: Answer) -> None:
    """RBAC refused it, before any guard."""
    status, body = answer
    assert status == 403, body.get("message", body)
    assert "ValidatingAdmissionPolicy" not in body["message"]


def accepted(answer: Answer) -> Json:
    """It went through."""
    status, body = answer
    assert status in (200, 201), body
    return body


def owner(world: World, **change: Any) -> list[Json]:
    """The owner reference of the asker's requests, changed."""
    return [merged(world.request("asker")["metadata"]["ownerReferences"][0], change)]


def everything(user: str | None) -> Caller:
    """A user whom RBAC refuses nothing, so that a guard must."""
    return Caller(user=user, groups=("system:masters",))


def delivered(request_uid: str, name: str, request: str = "x", **change: Any) -> Json:
    """A Secret as the operator delivers it."""
    body = {
        "metadata": {
            "name": name,
            "labels": {"valetkey.dev/request": request_uid},
            "ownerReferences": [
                {"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "name": request, "uid": request_uid}
            ],
        },
        "type": "valetkey.dev/credential",
        "data": {"token": "YQ=="},
    }
    return merged(body, change)


async def granted(api: Api, world: World, *, templates: bool = False) -> str:
    """The name of an account of a grant."""
    request_uid = str(uuid.uuid4())
    name = f"valetkey-{'t-' if templates else ''}{request_uid}"
    await api.made(ACCOUNTS, grant_account(request_uid, name), by=world.tokens["operator"])
    return name


def grant_account(request_uid: str, name: str | None = None) -> Json:
    """An account as the operator makes it."""
    return {
        "metadata": {"name": name or f"valetkey-{request_uid}", "labels": {"valetkey.dev/request": request_uid}},
        "automountServiceAccountToken": False,
    }


def timer(request_uid: str, seconds: int = 300, **change: Any) -> Json:
    """A timer as the operator makes it."""
    body = {
        "metadata": {"name": f"valetkey-{request_uid}", "labels": {"valetkey.dev/request": request_uid}},
        "spec": {
            "parallelism": 0,
            "activeDeadlineSeconds": seconds,
            "ttlSecondsAfterFinished": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}},
        },
    }
    return merged(body, change)


def ledger(namespace_uid: str) -> Json:
    """A ledger as the operator makes it."""
    made = {"request": NOBODY, "policy": "fix", "serviceAccount": "fixer", "at": "2026-01-01T00:00:00.000000Z"}
    return {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "Ledger",
        "metadata": {"name": namespace_uid},
        "spec": {"namespace": "agents", "opened": [made]},
    }


def token_request(seconds: int = 600, **spec: Any) -> Json:
    """A TokenRequest."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds, **spec},
    }


def template(**change: Any) -> Json:
    """A pod template."""
    return merged(
        {
            "metadata": {"labels": {"app": "checkout"}, "annotations": {"owner": "shop"}},
            "spec": {"containers": [{"name": "main", "image": "checkout:1"}]},
        },
        change,
    )


def workload(kind: str, pods: Json) -> tuple[str, Json]:
    """A workload of a kind: its path and itself."""
    name = unique("checkout")
    selector = {"matchLabels": {"app": "checkout"}}
    apps, batch = "/apis/apps/v1/namespaces/shop", "/apis/batch/v1/namespaces/shop"
    once = merged(pods, {"spec": {"restartPolicy": "Never"}})
    kinds: dict[str, tuple[str, Json]] = {
        "deployments": (apps, {"spec": {"replicas": 0, "selector": selector, "template": pods}}),
        "replicasets": (apps, {"spec": {"replicas": 0, "selector": selector, "template": pods}}),
        "statefulsets": (apps, {"spec": {"replicas": 0, "serviceName": "a", "selector": selector, "template": pods}}),
        "daemonsets": (
            apps,
            {"spec": {"selector": selector, "template": merged(pods, {"spec": {"nodeSelector": {"no": "node"}}})}},
        ),
        "controllerrevisions": (apps, {"revision": 1, "data": {"spec": {"template": pods}}}),
        "jobs": (batch, {"spec": {"suspend": True, "template": once}}),
        "cronjobs": (
            batch,
            {"spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": {"template": once}}}},
        ),
        "replicationcontrollers": (
            "/api/v1/namespaces/shop",
            {"spec": {"replicas": 0, "selector": {"app": "checkout"}, "template": pods}},
        ),
        "podtemplates": ("/api/v1/namespaces/shop", {"template": pods}),
        "pods": (
            "/api/v1/namespaces/shop",
            merged(pods, {"spec": {"nodeName": "paper-node", "tolerations": [{"operator": "Exists"}]}}),
        ),
    }
    path, rest = kinds[kind]
    return f"{path}/{kind}", merged(rest, {"metadata": {"name": name}})


WORKLOADS = (
    *("deployments", "replicasets", "statefulsets", "daemonsets", "controllerrevisions"),
    *("jobs", "cronjobs", "replicationcontrollers", "podtemplates", "pods"),
)


def role(request_uid: str, **change: Any) -> Json:
    """A Role as the operator makes it."""
    body = {
        "metadata": {"name": f"valetkey-{request_uid}-0", "labels": {"valetkey.dev/request": request_uid}},
        "rules": [
            {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["checkout"], "verbs": ["get"]}
        ],
    }
    return merged(body, change)


def binding(request_uid: str, kind: str = "Role", **change: Any) -> Json:
    """A binding as the operator makes it."""
    body = {
        "metadata": {"name": f"valetkey-{request_uid}-0", "labels": {"valetkey.dev/request": request_uid}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": f"valetkey-{request_uid}-0"},
        "subjects": [{"kind": "ServiceAccount", "namespace": GRANTS, "name": f"valetkey-{request_uid}"}],
    }
    return merged(body, change)
