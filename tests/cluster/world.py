"""The people and the pods of the tests."""

from __future__ import annotations

from typing import Any

from tests.cluster.api import GRANTS, OPERATOR, SYSTEM, Api, Caller, Json, claims, merged, unique

TEST_LABEL = "valetkey.dev/test"
LOG_READER: Json = {
    "metadata": {"name": "log-reader"},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
}
"""The ClusterRole that the tests' values hand out."""


class World:
    """The people and the pods of the tests; no kubelet is needed: the node is paper."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.pods: dict[str, Json] = {}
        self.tokens: dict[str, Caller] = {}
        self.editor = Caller(user="editor")  # bound to `edit` where agents run and where they work
        self.insider = Caller(user="insider")  # the same, and all of valetkey's roles but the author's

    async def build(self) -> None:
        """Makes them."""
        node = {
            "metadata": {
                "name": "paper-node",
                "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""},
            }
        }
        await self.api.ensured("/api/v1/nodes", node)
        roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        await self.api.ensured(roles, LOG_READER)
        # A cluster that lives on may have it from an earlier version of the tests.
        await self.api.patch(f"{roles}/log-reader", LOG_READER)
        for namespace in ("agents", "agents-b"):
            await self.api.ensured(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "fixer"}})
            await self._bind(namespace, "requesters", "valetkey-requester", _account(namespace, "fixer"))
            for user in ("editor", "insider"):
                await self._bind(namespace, f"{user}-edits", "edit", _user(user))
            for role in ("valetkey-requester", "valetkey-viewer"):
                await self._bind(namespace, f"insider-{role}", role, _user("insider"))
        for user in ("editor", "insider"):
            await self._bind("shop", f"{user}-edits", "edit", _user(user))
        for name, namespace in (("asker", "agents"), ("twin", "agents"), ("stranger", "agents-b")):
            self.pods[name] = await self.pod(namespace, name)
            self.tokens[name] = await self.api.token(namespace, "fixer", self.pods[name])
        # A pod of another namespace that RBAC would let ask here: only the guard stands in its way.
        await self._bind("agents", "strangers-ask", "valetkey-requester", _account("agents-b", "fixer"))
        leader = await self.leader()
        self.tokens["operator"] = await self.api.token(SYSTEM, "valetkey", leader)
        self.tokens["unbound"] = await self.api.token("agents", "fixer")

    async def leader(self) -> Json | None:
        """The operator's pod that leads; None where none runs, and then the fence is open."""
        path = f"/apis/valetkey.dev/v1alpha1/namespaces/{SYSTEM}/leaders/valetkey"
        _, body = await self.api.get(path)
        name, _, uid = body.get("spec", {}).get("holderIdentity", "").partition("_")
        status, pod = await self.api.get(f"/api/v1/namespaces/{SYSTEM}/pods/{name or 'none'}")
        if status == 200 and pod["metadata"]["uid"] == uid:
            return pod
        await self.api.gone(path)
        return None

    async def leave(self) -> None:
        """Takes away what the tests made: a Deny would bind whoever comes next, a node pass for one that runs pods."""
        ours, kinds = f"?labelSelector={TEST_LABEL}", "/apis/valetkey.dev/v1alpha1"
        operator = Caller(user=OPERATOR, groups=("system:masters",), extra=_bound(await self.leader()))
        await self.api.gone(f"{kinds}/agentpolicies{ours}")
        for namespace in ("agents", "agents-b"):
            base = f"{kinds}/namespaces/{namespace}"
            await self.api.delete(f"{base}/taskgrants{ours}")
            _, left = await self.api.get(f"{base}/taskgrants{ours}")
            for body in left["items"]:
                path = f"{base}/taskgrants/{body['metadata']['name']}"
                await self.api.patch(path, {"metadata": {"finalizers": None}}, by=operator)
            await self.api.gone(f"{base}/accessrequests{ours}")
        left_by_grants = "labelSelector=valetkey.dev/request&propagationPolicy=Background"
        await self.api.delete(f"/api/v1/namespaces/{GRANTS}/serviceaccounts?{left_by_grants}")
        await self.api.delete(f"/apis/batch/v1/namespaces/{GRANTS}/jobs?{left_by_grants}")
        for namespace in ("agents", "agents-b", "shop"):
            await self.api.gone(f"/api/v1/namespaces/{namespace}/pods?fieldSelector=spec.nodeName=paper-node")
        await self.api.gone("/api/v1/nodes/paper-node")

    def request(self, who: str, **change: Any) -> Json:
        """A request that a client filled in, as the pod's own token would make it; then changed."""
        pod, token = self.pods[who], claims(self.tokens[who])
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        body = unfilled()
        body["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]
        body["spec"]["subject"] = {"podName": name, "podUID": uid}
        body["spec"]["requester"] = {
            "username": token["sub"],
            "serviceAccount": "fixer",
            "podName": name,
            "podUID": uid,
            "nodeName": "paper-node",
            "credentialID": f"JTI={token['jti']}",
            "via": "API",
        }
        return merged(body, change)

    async def pod(self, namespace: str, name: str, **metadata: Any) -> Json:
        """A pod of the ServiceAccount fixer on the paper node, made anew."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        await self.api.gone(f"{path}/{name}")
        return await self.api.made(path, pod(name, **metadata))

    async def _bind(self, namespace: str, name: str, role: str, subject: Json) -> None:
        await self.api.ensured(
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            },
        )


def _bound(pod: Json | None) -> dict[str, tuple[str, ...]]:
    """What the API server says of a token that is bound to a pod."""
    key = "authentication.kubernetes.io/pod-"
    return {f"{key}{of}": (pod["metadata"][of],) for of in ("name", "uid")} if pod else {}


def _account(namespace: str, name: str) -> Json:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def _user(name: str) -> Json:
    return {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}


def pod(name: str, *, labels: Json | None = None, **spec: Any) -> Json:
    """A pod that no kubelet runs."""
    return {
        "metadata": {"name": name, "labels": {"valetkey.dev/agent": "true"} if labels is None else labels},
        "spec": {
            "nodeName": "paper-node",
            "serviceAccountName": "fixer",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "none"}],
            **spec,
        },
    }


def unfilled() -> Json:
    """A request as a person writes it: what admission fills in is left out."""
    return {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AccessRequest",
        "metadata": {"name": unique("fix"), "labels": {TEST_LABEL: "true"}},
        "spec": {
            "task": {"id": "run-8841", "objective": "Restart checkout", "purpose": "remediation"},
            "access": {
                "kubernetes": {
                    "scopes": [
                        {
                            "namespace": "shop",
                            "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}],
                        }
                    ]
                }
            },
        },
    }


def grant(name: str, uid: str) -> Json:
    """A TaskGrant as the operator writes it."""
    at = "2026-01-01T00:00:00.000000Z"
    account = {"kind": "ServiceAccount", "namespace": "valetkey-grants", "name": f"valetkey-{uid}"}
    return {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {
            "name": name,
            "labels": {"valetkey.dev/request": uid, TEST_LABEL: "true"},
            "finalizers": ["valetkey.dev/revoke"],
        },
        "spec": {
            "request": {"name": name, "uid": uid},
            "order": {
                "requestUID": uid,
                "subject": {
                    "namespace": "agents",
                    "podName": "asker",
                    "podUID": uid,
                    "nodeName": "paper-node",
                    "serviceAccount": "fixer",
                },
                "task": {"id": "run-8841", "purpose": "remediation"},
                "policy": {"name": "fixers", "uid": uid, "generation": 1},
                "decision": "1",
                "access": unfilled()["spec"]["access"],
                "line": "shop: get,patch deployments.apps",
                "openedAt": at,
                "notAfter": at,
            },
            "plan": {"kubernetes": {"account": account, "objects": []}},
            "delivery": {"secret": {"name": "valetkey-asker"}},
        },
    }


def policy(name: str, effect: str = "Allow", **change: Any) -> Json:
    """An AgentPolicy; a Deny names nothing, and so everything."""
    body: Json = {
        "apiVersion": "valetkey.dev/v1alpha1",
        "kind": "AgentPolicy",
        "metadata": {"name": name, "labels": {TEST_LABEL: "true"}},
        "spec": {"effect": effect},
    }
    if effect == "Allow":
        body["spec"] |= {
            "subjects": [{"name": "fixer", "namespace": "agents", "serviceAccount": "fixer"}],
            "purposes": [{"name": "remediation"}],
            "access": [
                {
                    "name": "restart",
                    "kubernetes": {
                        "scopes": [
                            {
                                "namespaces": ["shop"],
                                "rules": [
                                    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}
                                ],
                            }
                        ]
                    },
                }
            ],
        }
    return merged(body, change)
