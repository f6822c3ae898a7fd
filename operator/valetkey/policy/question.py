"""Question: a request and all that its decision reads; what every policy asks of it is worked out once."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    @classmethod
    def of(cls, request: RequestSpec, facts: Facts) -> Question:
        """With everything that people have said that counts."""
        return cls(request, facts, Asked.of(request.access), Values.of(variables(request, facts)))

    def heard(self, policy: str) -> Question:
        """The same, of what people have said that for one policy alone."""
        if not self.facts.approvals:
            return self
        return replace(self, values=Values.of(variables(self.request, self.facts, policy)))

    @cached_property
    def risks(self) -> tuple[Carried, ...]:
        """What of the access outlives or outgrows a grant; the rules of its ClusterRoles must be known."""
        return carried_risks(self.request.access, self.facts.cluster_roles)
