"""Requests, policies and facts to begin with, as YAML-like dicts laid over sound defaults."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.agentpolicy import AccessCeiling, AgentPolicy
from valetkey.kinds.identity import Identity
from valetkey.policy.ceiling import Ceiling
from valetkey.policy.compile import CompiledPolicy, Policies, Uncompiled, compile_policy
from valetkey.policy.decide import Decision, decide
from valetkey.policy.facts import Facts, RoleRule

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
DEPLOYMENTS: dict[str, Any] = {
    "apiGroups": ["apps"],
    "resources": ["deployments"],
    "resourceNames": ["checkout"],
    "verbs": ["get", "patch"],
}
PODS: dict[str, Any] = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}


def scopes(*scopes: dict[str, Any]) -> dict[str, Any]:
    return {"kubernetes": {"scopes": list(scopes)}}


def in_shop(*rules: dict[str, Any]) -> dict[str, Any]:
    return scopes({"namespace": "shop", "rules": list(rules)})


def access(*rules: dict[str, Any], namespace: str | None = "shop") -> Access:
    place = {} if namespace is None else {"namespace": namespace}
    return Access.model_validate(scopes({**place, "rules": list(rules)}))


def role_access(role: str, namespace: str | None = "shop") -> Access:
    place = {} if namespace is None else {"namespace": namespace}
    return Access.model_validate(scopes({**place, "clusterRole": role}))


def ceiling(*parts: dict[str, Any], name: str = "restart", risks: list[str] | None = None) -> Ceiling:
    entry = {"name": name, "kubernetes": {"scopes": list(parts), "risks": risks or []}}
    return Ceiling.of(AccessCeiling.model_validate(entry))


def request(task: Mapping[str, Any] | None = None, **spec: Any) -> RequestSpec:
    """Restart checkout in shop."""
    base: dict[str, Any] = {
        "task": {
            "id": "run-1",
            "objective": "Restart checkout",
            "purpose": "remediation",
            "parameters": {"deployment": "checkout"},
            **(task or {}),
        },
        "access": in_shop(DEPLOYMENTS),
        "subject": {"podName": "fixer-0", "podUID": "pod-uid"},
        "requester": {
            "username": "system:serviceaccount:shop-agents:fixer",
            "serviceAccount": "fixer",
            "podName": "fixer-0",
            "podUID": "pod-uid",
            "nodeName": "node-1",
            "credentialID": "JTI=1",
        },
    }
    return RequestSpec.model_validate({**base, **spec})


def policy(name: str = "shop-fixers", **spec: Any) -> AgentPolicy:
    """Allows fixers of shop-agents to restart the deployment that they name."""
    base: dict[str, Any] = {
        "effect": "Allow",
        "contact": "#shop-platform",
        "subjects": [{"name": "fixer", "namespace": "shop-agents", "serviceAccount": "fixer"}],
        "purposes": [
            {
                "name": "remediation",
                "parameters": {"deployment": {"type": "string", "pattern": "[a-z-]+", "required": True}},
            }
        ],
        "access": [
            {
                "name": "restart",
                "kubernetes": {
                    "scopes": [{"namespaces": ["shop"], "rules": [{**DEPLOYMENTS, "resourceNames": ["$deployment"]}]}]
                },
            }
        ],
        "ttl": {"default": "5m", "max": "15m"},
    }
    return _policy(name, {**base, **spec})


def deny(name: str = "no-prod", **spec: Any) -> AgentPolicy:
    """Denies everything to everyone, unless narrowed."""
    return _policy(name, {"effect": "Deny", **spec})


def _policy(name: str, spec: dict[str, Any]) -> AgentPolicy:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 3, "creationTimestamp": NOW}
    present = {key: value for key, value in spec.items() if value is not None}
    return AgentPolicy.model_validate({"metadata": metadata, "spec": present})


def facts(**changes: Any) -> Facts:
    base: dict[str, Any] = {
        "identity": Identity(
            namespace="shop-agents",
            pod_name="fixer-0",
            pod_uid="pod-uid",
            node_name="node-1",
            service_account="fixer",
            labels={"valetkey.dev/agent": "true", "team": "shop"},
        ),
        "namespaces": {"shop": {"env": "test"}, "shop-agents": {"team": "shop"}, "web": {"env": "prod"}},
        "cluster": "west",
        "cluster_roles": {
            "log-reader": (RoleRule(api_groups=("",), resources=("pods",), verbs=("get", "list")),),
            "watcher": (RoleRule(api_groups=("",), resources=("pods",), verbs=("watch",)),),
        },
        "approvals": (),
        "active": {},
        "limit_active": 20,
        "live": False,
        "now": NOW,
    }
    return Facts(**{**base, **changes})


def usable(agent_policy: AgentPolicy) -> CompiledPolicy:
    compiled = compile_policy(agent_policy)
    assert isinstance(compiled, CompiledPolicy), compiled
    return compiled


def unusable(agent_policy: AgentPolicy) -> Uncompiled:
    compiled = compile_policy(agent_policy)
    assert isinstance(compiled, Uncompiled)
    return compiled


def decided(asked: RequestSpec, *policies: AgentPolicy, known: Facts | None = None) -> Decision:
    return decide(asked, Policies.of(compile_policy(one) for one in policies), known or facts())
