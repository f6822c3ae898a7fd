"""Which words that people said on other requests count for this one, as of the same task?

Only where the policy says so (`approval.covers: Task`), and for nothing that the person has not seen: the same pod and
account, purpose and parameters, no more access, the same policy unchanged, and not for long. A word that counts is
heard by every rule of its policy like one on the request itself, so what is granted rests on all that count and ends by
the time that the first of them does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from pydantic import ValidationError

from valetkey.kinds.access import Access
from valetkey.kinds.accessapproval import ApprovalSpec
from valetkey.kinds.accessrequest import AccessRequest, RequestSpec
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.base import format_seconds
from valetkey.kinds.taskgrant import ApprovalReference
from valetkey.policy import lineage
from valetkey.policy.approvals import counting, reference
from valetkey.policy.compile import Policies
from valetkey.policy.facts import SHORTEST, Facts, Statement, TaskWord
from valetkey.policy.lineage import concerned
from valetkey.policy.parameters import ParameterError, check_size
from valetkey.policy.shapes import ShapeError, check_access
from valetkey.policy.within import leaves
from valetkey.reasons import Reason

LONGEST: Final = timedelta(hours=24)
"""How long after it was said a word covers others at most, whatever it says."""
MOST: Final = 16
"""Of the people whose words cover a request for a policy, as many count: a grant names each word that it rests on."""
MOST_PAIRS: Final = 256
"""Rules of one request times those of the other: of more it is not worked out whether one lies within the other."""


def end(spec: ApprovalSpec, said_at: datetime) -> datetime | None:
    """When a word ends to cover others than its own request; None where it never does."""
    if spec.verdict != "Approve" or spec.covers != "Task" or spec.until is None or spec.policy_generation is None:
        return None
    return min(spec.until, said_at + LONGEST)


def task_word(said: Statement, spec: ApprovalSpec, request: AccessRequest, denied_by: str | None) -> TaskWord | None:
    """A word and the request that it was said on, as policy reads them; None where it is of that request alone."""
    until = end(spec, said.at)
    if until is None or spec.policy_generation is None or not readable(request.spec):
        return None
    return TaskWord(
        said=replace(said, request=request.metadata.name, until=until),
        policy_generation=spec.policy_generation,
        asked=request.spec.to_api(),
        denied_by=denied_by or ("a person" if denied_by_a_person(request) else None),
    )


def denied_by_a_person(request: AccessRequest) -> bool:
    """Whether a person's Deny has ended a request; that it was taken back since changes nothing."""
    return any(condition.reason == Reason.PERSON_DENIED for condition in request.status.conditions)


def seen(policy: AgentPolicy | None, generation: int, said_at: datetime) -> bool:
    """Whether a policy lets a word cover a task, and is what whoever said it then has seen.

    One that is made again under its name counts its generations anew: it is younger than the word.
    """
    if policy is None or not _lets(policy):
        return False
    return policy.metadata.generation == generation and policy.metadata.creation_timestamp < said_at


def counted(request: RequestSpec, policies: Policies, facts: Facts, *, fewest: bool = False) -> Facts:
    """The facts with the words on other requests that count for this one among the approvals; the same if none does.

    Of each person one for a policy, that which covers longest, and none where they have spoken on this very request;
    with `fewest`, of as many people as the policy asks, so that a word that ends soon does not shorten what needs none.
    """
    spoken = {(one.username, one.policy) for one in counting(request, facts)}
    longest: dict[tuple[str, str], Statement] = {}
    for one in sorted(facts.covering, key=lambda one: (_until(one.said), one.said.name), reverse=True):
        said, policy = one.said, policies.enforced(one.said.policy)
        by = said.username, said.policy
        if by not in spoken and by not in longest and not_counting(one, request, policy, facts) is None:
            longest[by] = said
    heard: list[Statement] = []
    for name in dict.fromkeys(policy for _, policy in longest):
        approval = policies.enforced(name)
        needed = approval.spec.approval.needed if approval is not None and approval.spec.approval is not None else 0
        own = sum(policy == name for _, policy in spoken)
        most = max(1, needed - own) if fewest else MOST
        heard += [one for (_, policy), one in longest.items() if policy == name][:most]
    return replace(facts, approvals=(*facts.approvals, *heard)) if heard else facts


def resting(request: RequestSpec, facts: Facts, policy: str) -> tuple[ApprovalReference, ...]:
    """The words on other requests that rules of this policy have heard, all of which a grant by it rests on."""
    return tuple(reference(one) for one in counting(request, facts, policy) if one.until is not None)


def over_at(request: RequestSpec, facts: Facts, policy: str) -> datetime | None:
    """When the first of them ends; None where there is none."""
    ends = (one.until for one in counting(request, facts, policy) if one.until is not None)
    return min(ends, default=None)


def told(request: RequestSpec, facts: Facts, policy: AgentPolicy) -> tuple[str, ...]:
    """Whose word on another request does not count for this one by a policy, and why, for people."""
    name = policy.metadata.name
    spoken = {one.username for one in counting(request, facts, name)}
    here = (one for one in facts.covering if one.said.policy == name and one.said.username not in spoken)
    return tuple(sorted({why for one in here if (why := not_counting(one, request, policy, facts)) is not None}))


def not_counting(word: TaskWord, request: RequestSpec, policy: AgentPolicy | None, facts: Facts) -> str | None:
    """Why a word on another request does not count for this one by its policy; None where it does."""
    said = word.said
    if said.username in concerned(request, facts):
        asks = said.username == request.requester.username
        return f"{said.username} asks itself" if asks else f"{said.username} has a part in that work"
    return void_for(word, request, policy, facts.now)


def void_for(word: TaskWord, request: RequestSpec, policy: AgentPolicy | None, now: datetime) -> str | None:
    """The same, whoever has said it."""
    said = word.said
    why = (
        _over(word, now)
        or _other_policy(word, policy)
        or (f"which {word.denied_by} has denied" if word.denied_by is not None else None)
        or _beyond(request, word.asked)
        or (None if said.allowed else f"and may no longer approve for policy {said.policy}")
    )
    return why and f"{said.username} approved the task of {said.request} until {format_seconds(_until(said))}, {why}"


def task_of(request: RequestSpec) -> int:
    """A number that requests of one task have in common, and others seldom; 0 for one that is of no task.

    It is of this process alone.
    """
    try:
        words = orjson.dumps(
            [
                request.subject.pod_uid,
                request.requester.pod_uid,
                request.requester.via,
                *_account(request),
                request.task.purpose,
                _plain(dict(request.task.parameters)),
                request.parent and request.parent.to_api(),
                request.delegation and request.delegation.to_api(),
            ],
            option=orjson.OPT_SORT_KEYS,
        )
    except (orjson.JSONEncodeError, RecursionError):
        return 0  # nested deeper than anything that is ever granted
    return hash(words) or 1


def _plain(value: object) -> object:
    """JSON in which equal numbers are written alike."""
    match value:
        case float() if value.is_integer():
            return int(value) if -(2**63) <= value < 2**64 else value
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return value


def _other_task(one: RequestSpec, other: RequestSpec) -> str | None:
    """In what two requests are not of one task, whatever access they ask for; None where they are.

    Each thing that makes a task another has its line here.
    """
    if (one.subject.pod_uid, one.requester.pod_uid) != (other.subject.pod_uid, other.requester.pod_uid):
        return "for another pod"
    if one.requester.via != other.requester.via:
        return "that came in another way"
    if _account(one) != _account(other):
        return "for another ServiceAccount"
    if one.task.purpose != other.task.purpose:
        return "for another purpose"
    if not _same(one.task.parameters, other.task.parameters):
        return "for other parameters"
    if one.parent != other.parent:
        return "in the work of another request, or of none"
    return None if one.delegation == other.delegation else "for work that is handed on otherwise"


def _account(request: RequestSpec) -> tuple[str, str]:
    return request.requester.username, request.requester.service_account


def _same(one: object, other: object) -> bool:
    """Whether two values are the same in JSON, where true is not 1; neither is nested deeply."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _over(word: TaskWord, now: datetime) -> str | None:
    if word.said.verdict != "Approve" or word.said.until is None:
        return "which covers no other request"
    return "which is over" if word.said.until - now < SHORTEST else None


def _other_policy(word: TaskWord, policy: AgentPolicy | None) -> str | None:
    name = word.said.policy
    if policy is None or not _lets(policy):
        return f"and policy {name} lets a word cover its own request alone (approval.covers)"
    return None if seen(policy, word.policy_generation, word.said.at) else f"before policy {name} was changed"


def _lets(policy: AgentPolicy) -> bool:
    return policy.spec.approval is not None and policy.spec.approval.covers_task


def _beyond(request: RequestSpec, asked: Mapping[str, Any]) -> str | None:
    """In what a request goes beyond another one's task or access."""
    try:
        other = RequestSpec.model_validate(asked)
    except ValidationError:
        return "which cannot be read"
    if not readable(other):
        return "which cannot be read"
    different = _other_task(request, other)
    if different is not None or request.access == other.access:
        return different
    if _rules(request.access) * _rules(other.access) > MOST_PAIRS:
        return "of too many rules to compare"
    field = leaves(request.access, other.access)
    return None if field is None else f"for less than {field}"


def readable(request: RequestSpec) -> bool:
    """Whether it can be read in one way only, and looked at within bounds."""
    try:
        for access in (request.access, *request.handed_on):
            check_access(access)
        lineage.check_size(request)
        check_size(request.task.parameters)
    except (ShapeError, ParameterError):
        return False
    return True


def _rules(access: Access) -> int:
    scopes = access.kubernetes.scopes if access.kubernetes is not None else ()
    return sum(max(1, len(scope.rules or ())) for scope in scopes)


def _until(said: Statement) -> datetime:
    return said.until or said.at
