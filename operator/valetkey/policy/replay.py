"""What was decided, decided again: the same requests and facts, by other policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from valetkey.kinds.accessrequest import RequestSpec
from valetkey.policy.compile import Policies
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting, decide
from valetkey.policy.facts import Facts

_FACTS: Final = TypeAdapter(Facts)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recorded decision, decided again."""

    at: str
    request: str
    before: str
    """By the policies as they are."""
    after: str
    """By the policies as they would be."""
    message: str
    """Why, by those that would be."""

    @property
    def differs(self) -> bool:
        """Whether the outcome is another."""
        return self.before != self.after


def replay(records: Iterable[Mapping[str, Any]], before: Policies, after: Policies) -> Iterator[Replayed | None]:
    """Decides each record of a decision twice; None for one that this version cannot read."""
    for record in records:
        if "asked" not in record or "facts" not in record:
            continue
        try:
            request, facts = RequestSpec.model_validate(record["asked"]), _FACTS.validate_python(record["facts"])
        except ValidationError:
            yield None
            continue
        now, then = decide(request, before, facts), decide(request, after, facts)
        yield Replayed(str(record["at"]), str(record["request"]), _outcome(now), _outcome(then), _message(then))


def _outcome(decision: Decision) -> str:
    match decision:
        case Approved(policy=policy):
            return f"Approved by {policy.name}"
        case Denied(denial=denial):
            return f"Denied, {denial.reason}"
        case Waiting(policy=asks):
            return f"Waiting for {asks}"
        case Undecided(reason=reason):
            return f"Undecided, {reason}"


def _message(decision: Decision) -> str:
    match decision:
        case Approved(entry=entry):
            return f"entry {entry}"
        case Denied(denial=denial):
            return denial.message
        case Waiting(needed=needed, approved_by=approved):
            return f"{len(approved)} of {needed} people have approved"
        case Undecided(message=message):
            return message
