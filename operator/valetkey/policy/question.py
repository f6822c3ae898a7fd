"""Question: a request and all that its decision reads; what every policy asks of it is worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from valetkey.kinds.accessrequest import RequestSpec
from valetkey.policy.ceiling import Asked
from valetkey.policy.expressions import Values
from valetkey.policy.facts import Facts
from valetkey.policy.risks import Carried, carried_risks
from valetkey.policy.variables import variables


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
    def of(cls, request: RequestSpec, facts: Facts, policy: str | None = None) -> Question:
        """With everything that people have said that counts, for one policy or for whichever."""
        handed_on = (request.model_copy(update={"access": one, "delegation": None}) for one in request.handed_on)
        return cls(
            request,
            facts,
            Asked.of(request.access),
            Values.of(variables(request, facts, policy)),
            tuple(cls.of(one, facts, policy) for one in handed_on),
        )

    def heard(self, policy: str) -> Question:
        """The same, of what people have said that for one policy alone."""
        return self.of(self.request, self.facts, policy) if self.facts.approvals else self

    @cached_property
    def of_all(self) -> tuple[Values, ...]:
        """What rules read of what is asked for, and of each access that is handed on."""
        return (self.values, *(one.values for one in self.handed_on))

    @cached_property
    def risks(self) -> tuple[Carried, ...]:
        """What of the access outlives or outgrows a grant; the rules of its ClusterRoles must be known."""
        return carried_risks(self.request.access, self.facts.cluster_roles)
