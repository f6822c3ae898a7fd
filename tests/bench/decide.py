"""Two hundred policies of five rules each, twenty of them about the agent: how long does a decision take?

Beside it stands what CEL alone takes for the rules that are asked. The last of the twenty, by name, is the first that
grants; each of the others refuses by its last rule, so that every rule of theirs is asked.
"""

from __future__ import annotations

import gc
import time
from typing import Any

from tests.bench.table import Row, p50, p99
from tests.unit.policy import given
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.compile import Policies
from valetkey.policy.decide import Approved, decide
from valetkey.policy.expressions import Values, compile_expression
from valetkey.policy.variables import variables

POLICIES = 200
CANDIDATES = 20
SAMPLES = 5000
_RULES = (
    "identity.labels['team'] == 'shop'",
    "claims.task.parameters.deployment.startsWith('check')",
    "namespaces.all(n, namespaces[n].labels['env'] != 'prod')",
    "access.kubernetes.scopes.all(s, s.rules.all(r, r.verbs.all(v, v in ['get', 'patch'])))",
    "now.getHours() >= {}",
)


def measure() -> Row:
    """One row: milliseconds of one decision, in process."""
    others = [_other(place) for place in range(POLICIES - CANDIDATES)]
    last = CANDIDATES - 1
    candidates = [
        given.policy(f"b-{place:03}", validations=_rules(0 if place == last else 23)) for place in range(CANDIDATES)
    ]
    policies = Policies.of(given.usable(one) for one in (*others, *candidates))
    request, facts = given.request(), given.facts()
    asked = [compile_expression(rule["expression"]) for rule in _rules(0)] * CANDIDATES
    ours, bare = [], []
    gc.freeze()  # as the operator does once it has started
    for _ in range(SAMPLES):
        began = time.perf_counter()
        decision = decide(request, policies, facts)
        ours.append((time.perf_counter() - began) * 1000)
        assert isinstance(decision, Approved)
        assert decision.policy.name == candidates[-1].metadata.name
        began = time.perf_counter()
        values = Values.of(variables(request, facts))
        for expression in asked:
            expression.is_true(values)
        bare.append((time.perf_counter() - began) * 1000)
    return Row(
        figure=f"a decision with {POLICIES} policies of {len(_RULES)} rules, {CANDIDATES} of them about the agent, "
        f"p99 of {SAMPLES}; beside it CEL alone",
        valetkey=f"{p99(ours):.2f} ms (p50 {p50(ours):.2f})",
        bare=f"{p99(bare):.2f} ms (p50 {p50(bare):.2f})",
        ratio=p99(ours) / p99(bare),
        goal="≤ 1 ms",
        met=p99(ours) <= 1,
        samples={"valetkey": ours, "bare": bare},
    )


def _other(place: int) -> AgentPolicy:
    """An Allow or a Deny about agents of another namespace."""
    make = given.policy if place % 2 else given.deny
    return make(f"a-{place:03}", subjects=[{"name": "other", "namespace": f"ns-{place}"}], validations=_rules(0))


def _rules(hour: int) -> list[dict[str, Any]]:
    return [
        {"name": f"rule-{place}", "expression": rule.format(hour), "message": "no"} for place, rule in enumerate(_RULES)
    ]
