"""Which rights outlive or outgrow the grant that gives them?

Watch: an open watch, a followed log survives revocation.
    watch on anything; get on pods/log
Exec: a process or a connection that stays, with the pod's own account.
    any verb on */exec, */attach, */portforward, */proxy, pods/ephemeralcontainers
PodTemplates: runs as any account of the namespace.
    create of pods and of whatever has a pod template; any write on controllerrevisions, which hold templates
Secrets: patch, delete and deletecollection answer with what was there.
    all but create on secrets
Tokens: a credential of somebody else, or one that lives on.
    create on serviceaccounts/token; create, update, patch on secrets, as legacy tokens are made by asking for them;
    writes on certificate requests, their approval, signers, pod certificate requests and trust bundles
RBAC: more rights, or fewer guards.
    all but reading in rbac.authorization.k8s.io, admissionregistration.k8s.io, apiregistration.k8s.io, valetkey.dev
    and on custom resource definitions; writes on namespaces, since policies select by their labels
Impersonate: is somebody else.
    every verb that begins with impersonate
Nodes: the machine below every pod.
    all but reading on nodes; any verb on a subresource of nodes; writes on persistentvolumes (hostPath) and on what
    tells kubelets what to mount and how to run

A wildcard carries every risk that it includes; a ClusterRole those of its rules. `update` and `patch` of workloads
carry no risk here: a guard keeps their pod templates as they are. Not seen: custom kinds with pod templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from valetkey.kinds.access import Access
from valetkey.kinds.agentpolicy import Risk
from valetkey.policy.ceiling import SCOPES
from valetkey.policy.facts import RoleRule
from valetkey.policy.rights import ANY, Rights

_READS: Final = frozenset({"get", "list", "watch"})
_CHANGES: Final = frozenset({"create", "update", "patch"})


@dataclass(frozen=True, slots=True)
class Carried:
    """A risk that an access carries, and the field that carries it first."""

    risk: Risk
    field: str


@dataclass(frozen=True, slots=True)
class _Risky:
    """Some rights that carry a risk; `but` are the harmless verbs.

    `nodes/*` is any subresource of nodes here; a `*/scale` that is asked for meets only those that are named.
    """

    risk: Risk
    groups: frozenset[str]
    resources: frozenset[str]
    verbs: frozenset[str] = frozenset()
    but: frozenset[str] = frozenset()

    def carried_by(self, rights: Rights) -> bool:
        return (
            self._verb(rights.verbs)
            and _meet(self.groups, rights.groups)
            and any(_resource_meets(risky, asked) for risky in self.resources for asked in rights.resources)
            and (rights.names is None or bool(rights.names))
        )

    def _verb(self, verbs: frozenset[str]) -> bool:
        if ANY in verbs:
            return True
        return not verbs.isdisjoint(self.verbs) if self.verbs else bool(verbs - self.but)


def _risky(risk: Risk, groups: str, resources: str, verbs: str = "", but: frozenset[str] = frozenset()) -> _Risky:
    words = frozenset("" if group == "core" else group for group in groups.split())
    return _Risky(risk, words, frozenset(resources.split()), frozenset(verbs.split()), but)


_ALL_BUT_CREATE: Final = frozenset({"create"})
_TABLE: Final = (
    _risky(Risk.WATCH, "*", "*", "watch"),
    _risky(Risk.WATCH, "core", "pods/log", "get"),
    _risky(Risk.EXEC, "*", "*/exec */attach */portforward */proxy"),
    _risky(Risk.EXEC, "core", "pods/ephemeralcontainers"),
    _risky(Risk.POD_TEMPLATES, "core", "pods replicationcontrollers podtemplates", "create"),
    _risky(Risk.POD_TEMPLATES, "apps extensions", "deployments daemonsets replicasets statefulsets", "create"),
    _risky(Risk.POD_TEMPLATES, "batch extensions", "jobs cronjobs", "create"),
    _risky(Risk.POD_TEMPLATES, "apps", "controllerrevisions", but=_READS | {"delete", "deletecollection"}),
    _risky(Risk.SECRETS, "core", "secrets", but=_ALL_BUT_CREATE),
    _risky(Risk.TOKENS, "core", "serviceaccounts/token", "create"),
    _risky(Risk.TOKENS, "core", "secrets", " ".join(_CHANGES)),
    _risky(
        Risk.TOKENS,
        "certificates.k8s.io",
        "certificatesigningrequests certificatesigningrequests/approval certificatesigningrequests/status signers "
        "podcertificaterequests podcertificaterequests/status clustertrustbundles",
        but=_READS | {"delete", "deletecollection"},
    ),
    _risky(Risk.RBAC, "rbac.authorization.k8s.io admissionregistration.k8s.io apiregistration.k8s.io", "*", but=_READS),
    _risky(Risk.RBAC, "valetkey.dev", "*", but=_READS),
    _risky(Risk.RBAC, "apiextensions.k8s.io", "customresourcedefinitions customresourcedefinitions/status", but=_READS),
    _risky(Risk.RBAC, "core", "namespaces namespaces/status namespaces/finalize", " ".join(_CHANGES)),
    _risky(Risk.NODES, "core", "nodes", but=_READS),
    _risky(Risk.NODES, "core", "nodes/* nodes/proxy nodes/status nodes/log nodes/metrics nodes/stats nodes/spec"),
    _risky(Risk.NODES, "core", "nodes/configz nodes/healthz nodes/pods nodes/checkpoint"),
    _risky(Risk.NODES, "core", "persistentvolumes", " ".join(_CHANGES)),
    _risky(Risk.NODES, "storage.k8s.io", "volumeattachments csinodes csidrivers", " ".join(_CHANGES)),
    _risky(Risk.NODES, "node.k8s.io", "runtimeclasses", " ".join(_CHANGES)),
)


@lru_cache(maxsize=256)
def risks_of(rights: Rights) -> frozenset[Risk]:
    """Every risk that some right of a rule carries."""
    carried = {risky.risk for risky in _TABLE if risky.carried_by(rights)}
    if any(verb == ANY or verb.startswith("impersonate") for verb in rights.verbs) and rights.resources:
        carried.add(Risk.IMPERSONATE)
    return frozenset(carried)


def carried_risks(access: Access, cluster_roles: Mapping[str, tuple[RoleRule, ...]]) -> tuple[Carried, ...]:
    """Every risk that the access carries, with the first field that does, in the order of the fields.

    The rules of each ClusterRole must be known: an unknown one carries every risk.
    """
    found: dict[Risk, str] = {}
    for at, scope in enumerate(access.kubernetes.scopes if access.kubernetes is not None else ()):
        for index, rule in enumerate(scope.rules or ()):
            for risk in sorted(risks_of(Rights.of(rule))):
                found.setdefault(risk, f"{SCOPES}[{at}].rules[{index}]")
        if scope.cluster_role is not None:
            for risk in sorted(risks_of_role(cluster_roles.get(scope.cluster_role))):
                found.setdefault(risk, f"{SCOPES}[{at}].clusterRole")
    return tuple(Carried(risk, field) for risk, field in found.items())


def risks_of_role(rules: tuple[RoleRule, ...] | None) -> frozenset[Risk]:
    """Every risk that a ClusterRole carries; all of them if its rules are not known."""
    if rules is None:
        return frozenset(Risk)
    return frozenset().union(*(risks_of(Rights.of_role(rule)) for rule in rules))


def _meet(risky: frozenset[str], asked: frozenset[str]) -> bool:
    return ANY in risky or ANY in asked or not risky.isdisjoint(asked)


def _resource_meets(risky: str, asked: str) -> bool:
    if ANY in (risky, asked) or risky == asked:
        return True
    kind, _, part = risky.partition("/")
    asked_kind, slash, asked_part = asked.partition("/")
    if not part or not slash:
        return False
    if part == ANY:
        return kind == asked_kind
    return part == asked_part and (ANY in (kind, asked_kind) or kind == asked_kind)
