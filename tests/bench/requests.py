"""What both sides of the bench ask for: the same request, and for the bare client the grant that it leads to."""

from __future__ import annotations

import base64
import json

from tests.bench.bare import GROUP
from tests.bench.server import AGENTS, SHOP
from tests.cluster.api import Json


def request(name: str, pod: Json, token: str, ttl: str = "5m", *, credential: str | None = None) -> Json:
    """A request as its client fills it in; with the id of the credential, no token is needed."""
    meta, account = pod["metadata"], pod["spec"]["serviceAccountName"]
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    return {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AccessRequest",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}],
        },
        "spec": {
            "task": {"id": name, "objective": "measure", "purpose": "bench"},
            "access": {"kubernetes": {"scopes": [{"namespace": SHOP, "rules": rules}]}},
            "ttl": ttl,
            "subject": {"podName": meta["name"], "podUID": meta["uid"]},
            "requester": {
                "username": f"system:serviceaccount:{meta['namespace']}:{account}",
                "serviceAccount": account,
                "podName": meta["name"],
                "podUID": meta["uid"],
                "nodeName": pod["spec"]["nodeName"],
                "credentialID": f"JTI={credential or _claims(token)['jti']}",
                "via": "API",
            },
        },
    }


def copied(body: Json) -> Json:
    """The same for the copies of the kinds."""
    return body | {"apiVersion": f"{GROUP}/v1alpha1"}


def grant(name: str, pod: Json) -> Json:
    """A grant of the size that the operator writes."""
    uid = pod["metadata"]["uid"]
    at = "2026-01-01T00:00:00.000000Z"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    objects = [{"kind": kind, "namespace": SHOP, "name": f"valetkey-{uid}-0"} for kind in ("Role", "RoleBinding")]
    account = {"kind": "ServiceAccount", "namespace": "valetkey-grants", "name": f"valetkey-{uid}"}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {"name": name, "finalizers": [f"{GROUP}/revoke"], "labels": {f"{GROUP}/request": uid}},
        "spec": {
            "request": {"name": name, "uid": uid},
            "order": {
                "requestUID": uid,
                "subject": {
                    "namespace": AGENTS,
                    "podName": pod["metadata"]["name"],
                    "podUID": uid,
                    "nodeName": "bench-node",
                    "serviceAccount": pod["spec"]["serviceAccountName"],
                },
                "task": {"id": name, "purpose": "bench"},
                "policy": {"name": "bench", "uid": uid, "generation": 1},
                "decision": "0123456789abcdef",
                "access": {"kubernetes": {"scopes": [{"namespace": SHOP, "rules": rules}]}},
                "line": f"{SHOP}: get configmaps",
                "podTemplates": False,
                "openedAt": at,
                "notAfter": at,
            },
            "plan": {"kubernetes": {"account": account, "objects": objects}},
            "delivery": {"secret": {"name": f"valetkey-{pod['metadata']['name']}"}},
        },
    }


def _claims(token: str) -> Json:
    payload = token.split(".")[1]
    decoded: Json = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded
