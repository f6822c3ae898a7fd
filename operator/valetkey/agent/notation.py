"""Which access does one line mean?

    shop: get,patch deployments.apps/checkout,cart; web: clusterrole log-reader; cluster: get nodes

Parts are separated by `;`. Each begins with a namespace, or with `cluster` for cluster scope. Then come verbs and what
they are for, or `clusterrole` and its name. Resources are written as kubectl has them: `pods` for the core group,
`deployments.apps` for others, and after `/` the names of objects, which hold for all resources before them. In cluster
scope there are paths, too: `cluster: get /healthz`.

After the `/` of a resource of the core group stands a subresource where Kubernetes has one of that name for it
(`pods/log`), else the name of an object; with both it is `pods/log/web-0`. The group of any other resource stands after
its subresource: `deployments/scale.apps`, `deployments/scale.apps/checkout`; those have `status`, `scale`, `approval`.

What could mean two things is refused. What this notation cannot say is passed as a mapping, as `spec.access` has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from valetkey.agent.errors import InvalidAccess

Json = dict[str, Any]
_Kind = tuple[str, str]
"""A resource (with its subresource) and its group."""

_SUBRESOURCES: Final[dict[str, set[str]]] = {
    "*": {"status", "scale", "log", "exec", "attach", "portforward", "proxy"},
    "bindings": set(),
    "componentstatuses": set(),
    "configmaps": set(),
    "endpoints": set(),
    "events": set(),
    "limitranges": set(),
    "namespaces": {"finalize", "status"},
    "nodes": {"proxy", "status"},
    "persistentvolumeclaims": {"status"},
    "persistentvolumes": {"status"},
    "pods": {
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
        "status",
    },
    "podtemplates": set(),
    "replicationcontrollers": {"scale", "status"},
    "resourcequotas": {"status"},
    "secrets": set(),
    "serviceaccounts": {"token"},
    "services": {"proxy", "status"},
}
"""The resources of the core group, and their subresources."""
_WORKLOADS: Final = {"deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs"}
_OF_OTHERS: Final = {"status", "scale", "approval"}

_PART: Final = re.compile(r"\s*([^\s:]+)\s*:\s+(\S+)\s+(\S+)\s*")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VERB: Final = re.compile(r"[a-z]+|\*")
_WORD: Final = re.compile(r"[A-Za-z0-9._:-]+")
_RESOURCE: Final = re.compile(r"[a-z0-9][a-z0-9-]*|\*")
_GROUP: Final = re.compile(r"[a-z0-9][a-z0-9.-]*|\*")
_OF_TABLES: Final = {"select", "insert", "call"}
"""What they would mean here one day is not to be what they mean today."""
_MAPPING: Final = "pass the access as a mapping, as spec.access of an AccessRequest has it"


def read(line: str) -> Json:
    """The `spec.access` that a line means; raises InvalidAccess and says where it stops making sense."""
    return _Reader(line).read()


class _Reader:
    def __init__(self, line: str) -> None:
        self._line, self._at = line, 0

    def read(self) -> Json:
        for sign, advice in (("…", "it was cut short"), ("→", "what is handed on is passed as delegation=")):
            if sign in self._line:
                self._at = self._line.index(sign)
                self._refuse(f"{sign!r} is no part of an access: {advice}")
        ruled: dict[str, list[Json]] = {}
        roles: list[Json] = []
        for text, at in self._parts():
            self._at = at
            if "(" in text or ")" in text:
                self._not_kubernetes()
            place, verbs, objects = self._split(text)
            if not _OF_TABLES.isdisjoint(verbs.split(",")):
                self._not_kubernetes()
            if verbs == "clusterrole":
                roles.append(_scope(place) | {"clusterRole": self._word(objects, _WORD, "the name of a ClusterRole")})
            else:
                allowed = [self._word(verb, _VERB, "a verb, in lower case") for verb in verbs.split(",")]
                ruled.setdefault(place, []).extend(rule | {"verbs": allowed} for rule in self._rules(place, objects))
        return {"kubernetes": {"scopes": [_scope(place) | {"rules": rules} for place, rules in ruled.items()] + roles}}

    def _parts(self) -> Iterator[tuple[str, int]]:
        at = 0
        for text in self._line.split(";"):
            yield text, at + len(text) - len(text.lstrip())
            at += len(text) + 1

    def _split(self, text: str) -> tuple[str, str, str]:
        # `get, patch` is `get,patch`.
        if not (found := _PART.fullmatch(re.sub(r"\s*,\s*", ",", text))):
            self._refuse(
                f"{text.strip()!r} does not read as NAMESPACE: VERBS RESOURCES, such as shop: get,patch pods/web"
            )
        place, verbs, objects = found.groups()
        self._word(place, _NAMESPACE, "a namespace, or cluster")
        return place, verbs, objects

    def _rules(self, place: str, objects: str) -> list[Json]:
        if objects.startswith("/"):
            if place != "cluster":
                self._refuse(f"paths such as {objects} are of the cluster: write cluster: get {objects}")
            paths = objects.split(",")
            if not all(path.startswith("/") for path in paths):
                self._refuse(f"{objects} has paths and resources: write them as two parts, with ; between")
            return [{"nonResourceURLs": paths}]
        kinds: list[_Kind] = []
        names: list[str] = []
        for word in objects.split(","):
            if names:
                names.append(self._name(word))
            else:
                kind, name = self._kind(word)
                kinds.append(kind)
                names += [] if name is None else [self._name(name)]
        rules = [{"apiGroups": groups, "resources": resources} for resources, groups in _by_group(kinds)]
        return [rule | {"resourceNames": names} for rule in rules] if names else rules

    def _name(self, word: str) -> str:
        if "/" in word:
            self._refuse(
                f"{word} follows the name of an object: write it as a part of its own, which begins after a semicolon"
            )
        if word in _SUBRESOURCES or word.partition(".")[0] in _WORKLOADS:
            self._refuse(
                f"{word} is a resource or the name of an object: write a resource as a part of its own, which begins "
                f"after a semicolon; for an object of that name {_MAPPING}"
            )
        return self._word(word, _WORD, f"the name of an object; else {_MAPPING}")

    def _kind(self, word: str) -> tuple[_Kind, str | None]:
        """A resource, and the name that follows it."""
        first, *rest = word.split("/")
        if len(rest) > 2:
            self._refuse(f"{word} has more than a resource, a subresource and a name")
        if "." in first:
            return self._grouped(word, first, rest)
        self._word(first, _RESOURCE, "a resource, in lower case")
        return self._core(word, first, rest) if first in _SUBRESOURCES else self._other(word, first, rest)

    def _grouped(self, word: str, first: str, rest: list[str]) -> tuple[_Kind, str | None]:
        """`deployments.apps`, `deployments.apps/checkout`."""
        resource, _, group = first.partition(".")
        kind = (self._word(resource, _RESOURCE, "a resource, in lower case"), self._word(group, _GROUP, "an API group"))
        if len(rest) == 2 or (rest and rest[0] in _OF_OTHERS):
            self._refuse(
                f"{word} may name a subresource or an object: the subresource is {resource}/{rest[0]}.{group}; "
                f"for an object of that name {_MAPPING}"
            )
        return kind, rest[0] if rest else None

    def _core(self, word: str, first: str, rest: list[str]) -> tuple[_Kind, str | None]:
        """`pods`, `pods/web-0`, `pods/log`, `pods/log/web-0`; `*/scale.apps`."""
        known = _SUBRESOURCES[first]
        if not rest:
            return (first, ""), None
        sub, _, group = rest[0].partition(".")
        if sub in known and group and first == "*":
            return (f"*/{sub}", self._word(group, _GROUP, "an API group")), rest[1] if len(rest) == 2 else None
        if sub in known and group:
            self._refuse(f"{word} may name a subresource or an object: {_MAPPING}")
        if rest[0] in known:
            return (f"{first}/{sub}", ""), rest[1] if len(rest) == 2 else None
        if len(rest) == 2:
            self._refuse(f"{first} of the core group have no subresource {rest[0]}; if they do, {_MAPPING}")
        return (first, ""), rest[0]

    def _other(self, word: str, first: str, rest: list[str]) -> tuple[_Kind, str | None]:
        """`deployments/scale.apps`, `deployments/scale.apps/checkout`."""
        sub, _, group = rest[0].partition(".") if rest else ("", "", "")
        if sub not in _OF_OTHERS or not group:
            self._refuse(
                f"{first} is no resource of the core group: write its group, as in deployments.apps/checkout; for a "
                f"subresource deployments/scale.apps; for any other subresource {_MAPPING}"
            )
        return (f"{first}/{sub}", self._word(group, _GROUP, "an API group")), rest[1] if len(rest) == 2 else None

    def _word(self, word: str, pattern: re.Pattern[str], what: str) -> str:
        if not pattern.fullmatch(word):
            self._refuse(f"{word!r} is not {what}")
        return word

    def _not_kubernetes(self) -> NoReturn:
        self._refuse("this is not Kubernetes access; pass a mapping")

    def _refuse(self, message: str) -> NoReturn:
        raise InvalidAccess(message, line=self._line, position=self._at)


def _scope(place: str) -> Json:
    return {} if place == "cluster" else {"namespace": place}


def _by_group(kinds: list[_Kind]) -> list[tuple[list[str], list[str]]]:
    """Resources and the groups that they are of, each pair of `kinds` once and no other."""
    of_group: dict[str, list[str]] = {}
    for resource, group in dict.fromkeys(kinds):
        of_group.setdefault(group, []).append(resource)
    groups: dict[tuple[str, ...], list[str]] = {}
    for group, resources in of_group.items():
        groups.setdefault(tuple(resources), []).append(group)
    return [(list(resources), of) for resources, of in groups.items()]
