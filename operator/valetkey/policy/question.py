"""Question: a request and all that its decision reads; what every policy asks of it is worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from valetkey.kinds.accessrequest import RequestSpec
from valetkey.policy.ceiling import Asked
from valetkey.policy.expressions import Values
from valetkey.policy.facts import Facts
from valetkey.policy.risks import Carried, carried_risks
from valetkey.policy.variables import approvals, variables


@dataclass(frozen=True)
class Question:
    """May this request have what it asks for?"""

    request: RequestSpec
    facts: Facts
    asked: Asked
    """The access, word for word."""
    values: Values
    """What rules read of both."""

    handed_on: tuple[Question, ...] = ()
    """The same about each access that is handed on: policy decides on it as if it were asked for here."""

    @classmethod
    def of(cls, request: RequestSpec, facts: Facts) -> Question:
        """With everything that people have said that counts."""
        # Those whom it is handed on to are still known: they have no word in it.
        rest = None if request.delegation is None else request.delegation.model_copy(update={"access": None})
        handed_on = (request.model_copy(update={"access": one, "delegation": rest}) for one in request.handed_on)
        return cls(
            request,
            facts,
            Asked.of(request.access),
            Values.of(variables(request, facts)),
            tuple(cls.of(one, facts) for one in handed_on),
        )

    def heard(self, policy: str) -> Question:
        """The same, of what people have said that for one policy alone."""
        if not self.facts.approvals:
            return self
        return self._with({"approvals": approvals(self.request, self.facts, policy)})

    def _with(self, changed: Mapping[str, Any]) -> Question:
        values = Values.of({**self.values.named, **changed})
        return replace(self, values=values, handed_on=tuple(one._with(changed) for one in self.handed_on))

    @cached_property
    def risks(self) -> tuple[Carried, ...]:
        """What of the access outlives or outgrows a grant; the rules of its ClusterRoles must be known."""
        return carried_risks(self.request.access, self.facts.cluster_roles)
