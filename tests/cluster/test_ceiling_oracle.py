"""A ceiling covers what the API server's own check against escalation lets its holder hand out.

Somebody who holds exactly the rules of a ceiling creates a role with the rules of a request, as a dry run: the API
server accepts it just where `within` is true.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests.cluster.api import Api, Caller, Json, sessions, until
from tests.unit.policy import given as build
from valetkey.kinds.access import Access
from valetkey.policy.ceiling import Asked, find_gap

RBAC = "/apis/rbac.authorization.k8s.io/v1"
# Held by every user of the test, and covered by no rule that is drawn.
PROBE = {"apiGroups": ["probe.valetkey.dev"], "resources": ["probes"], "verbs": ["get"]}


@dataclass(frozen=True)
class Oracle:
    """The API server, asked whether the holder of some rules may hand out others."""

    runner: asyncio.Runner
    api: Api
    namespace: str
    group: str

    async def accepts(self, held: list[Json], asked: list[list[Json]], *, held_in: bool, asked_in: bool) -> list[bool]:
        """For each list of rules that is asked, whether its role is created; `in`: in the namespace."""
        name = f"oracle-{uuid.uuid4()}"
        user = Caller(user=name, groups=(self.group,))
        roles, bindings = self._paths(held_in)
        try:
            await self.api.made(roles, {"metadata": {"name": name}, "rules": [*held, PROBE]})
            await self.api.made(bindings, binding(name, "Role" if held_in else "ClusterRole", "User", name))
            await until(lambda: self._holds_probe(user), "the rules to be in force")
            answers = []
            for rules in asked:
                path = f"{self._paths(asked_in)[0]}?dryRun=All"
                status, answer = await self.api.post(path, {"metadata": {"name": "asked"}, "rules": rules}, by=user)
                assert status in (201, 403), answer
                assert status == 201 or "not currently held" in answer["message"], answer
                answers.append(status == 201)
            return answers
        finally:
            await self.api.delete(f"{bindings}/{name}")
            await self.api.delete(f"{roles}/{name}")

    def _paths(self, in_namespace: bool) -> tuple[str, str]:
        if in_namespace:
            base = f"{RBAC}/namespaces/{self.namespace}"
            return f"{base}/roles", f"{base}/rolebindings"
        return f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"

    async def _holds_probe(self, user: Caller) -> bool:
        attributes = {"group": "probe.valetkey.dev", "resource": "probes", "verb": "get", "namespace": self.namespace}
        review = await self.api.made(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"resourceAttributes": attributes}},
            by=user,
        )
        return bool(review["status"]["allowed"])


def binding(name: str, role_kind: str, kind: str, subject: str) -> Json:
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": role_kind, "name": name},
        "subjects": [{"kind": kind, "apiGroup": group, "name": subject}],
    }


@pytest.fixture(scope="module")
def oracle(cluster: Any) -> Iterator[Oracle]:
    """A namespace, and a group whose members may create roles as far as they hold the rules themselves."""
    name = f"oracle-{uuid.uuid4()}"
    creates = [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"], "verbs": ["create"]}
    ]
    with asyncio.Runner() as runner:

        async def start() -> tuple[Api, list[Any]]:
            server, admin, others = sessions(cluster.kubeconfig)
            api = Api(server, admin, others)
            await api.made("/api/v1/namespaces", {"metadata": {"name": name}})
            await api.made(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": creates})
            await api.made(f"{RBAC}/clusterrolebindings", binding(name, "ClusterRole", "Group", name))
            return api, [admin, others]

        async def stop(api: Api, opened: list[Any]) -> None:
            for path in (f"{RBAC}/clusterrolebindings", f"{RBAC}/clusterroles", "/api/v1/namespaces"):
                await api.delete(f"{path}/{name}")
            for session in opened:
                await session.close()

        api, opened = runner.run(start())
        try:
            yield Oracle(runner, api, name, name)
        finally:
            runner.run(stop(api, opened))


def words(*choices: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(choices), min_size=1, max_size=2, unique=True)


RESOURCES = words(
    "pods", "deployments", "pods/log", "pods/scale", "deployments/scale", "*/scale", "*/log", "pods/*", "*"
)
resource_rules = st.fixed_dictionaries(
    {"apiGroups": words("", "apps", "*"), "resources": RESOURCES, "verbs": words("get", "list", "create", "*")},
    optional={"resourceNames": words("a", "b", "*")},
)
url_rules = st.fixed_dictionaries(
    {
        "nonResourceURLs": words("/zoo", "/zoo*", "/zoo/*", "/zoo/a", "/zoology", "/z*", "/*", "*", "/zoo**"),
        "verbs": words("get", "post", "*"),
    }
)


def _escalates(rule: Json) -> bool:
    """Whether a rule has the verb `escalate` on roles: its holder may hand out anything, held or not."""
    return all("*" in rule.get(key, ()) for key in ("verbs", "apiGroups", "resources")) and "resourceNames" not in rule


@st.composite
def part_of(draw: st.DrawFn, held: list[Json]) -> Json:
    """A rule within one that is held, or beyond it by one word."""
    rule: Json = {**draw(st.sampled_from(held))}
    for key, strange in (("verbs", "delete"), ("resources", "nodes"), ("apiGroups", "batch"), ("resourceNames", "c")):
        if key in rule or (key == "resourceNames" and "resources" in rule):
            kept = draw(st.lists(st.sampled_from(rule.get(key, ["a"])), min_size=1, unique=True))
            rule[key] = [*kept, *([strange] if draw(st.integers(0, 9)) == 0 else [])]
    return rule


@st.composite
def cases(draw: st.DrawFn) -> tuple[bool, bool, list[Json], list[list[Json]]]:
    held_in, asked_in = draw(st.sampled_from(((True, True), (False, True), (False, False), (True, False))))
    some_rule = (resource_rules if held_in else resource_rules | url_rules).filter(lambda rule: not _escalates(rule))
    held = draw(st.lists(some_rule, min_size=1, max_size=3))
    any_rule = resource_rules if asked_in else resource_rules | url_rules
    parts = part_of([rule for rule in held if not asked_in or "resources" in rule] or [PROBE])
    asked = draw(st.lists(st.lists(any_rule | parts, min_size=1, max_size=2), min_size=8, max_size=8))
    return held_in, asked_in, held, asked


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example asks a real cluster: shrinking takes minutes
)
@given(case=cases())
def test_within_is_what_the_api_server_lets_the_holder_hand_out(
    oracle: Oracle, case: tuple[bool, bool, list[Json], list[list[Json]]]
) -> None:
    held_in, asked_in, held, asked = case
    place = {"namespaces": [oracle.namespace]} if held_in else {"cluster": True}
    ceiling = build.ceiling({**place, "rules": [*held, PROBE]})
    where = {"namespace": oracle.namespace} if asked_in else {}
    ours = [
        find_gap(Asked.of(Access.model_validate(build.scopes({**where, "rules": rules}))), ceiling, {}) is None
        for rules in asked
    ]
    theirs = oracle.runner.run(oracle.accepts(held, asked, held_in=held_in, asked_in=asked_in))
    for rules, mine, real in zip(asked, ours, theirs, strict=True):
        event(f"accepted: {real}")
        assert mine is real, (held, rules)
