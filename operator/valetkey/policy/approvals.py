"""Has everybody said yes whom a policy asks, and has nobody said no?

What counts is said by somebody who still had the right when it was asked, and never by the requester itself, nor by
those who hand the work on or may get it. A word stands for the policy that it names: another that grants does not rest
on it, nor does a guardrail that looks at that.
What people have said on other requests of the task is among the approvals where it counts (`coverage`).
"""

from __future__ import annotations

from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.base import format_seconds
from valetkey.kinds.demands import Approval
from valetkey.kinds.taskgrant import ApprovalReference
from valetkey.policy.facts import Facts, Statement
from valetkey.policy.lineage import concerned
from valetkey.policy.outcomes import Waiting


def statement(approval: AccessApproval, *, allowed: bool) -> Statement:
    """An approval as policy reads it; a review is none."""
    assert approval.spec.verdict != "Reviewed"
    spec = approval.spec
    return Statement(
        name=approval.metadata.name,
        uid=approval.metadata.uid,
        policy=spec.policy,
        verdict="Deny" if spec.verdict == "Deny" else "Approve",
        username=spec.approver.username,
        groups=spec.approver.groups,
        reason=spec.reason,
        at=approval.metadata.creation_timestamp,
        allowed=allowed,
    )


def counting(request: RequestSpec, facts: Facts, policy: str | None = None) -> tuple[Statement, ...]:
    """What people have said that counts, the earliest first; for one policy, or for whichever."""
    involved = concerned(request, facts) if facts.approvals else frozenset()
    said = (
        one for one in facts.approvals if one.allowed and one.username not in involved and policy in (None, one.policy)
    )
    return tuple(sorted(said, key=lambda one: (one.at, one.name)))


def asked(
    policy: str, approval: Approval, request: RequestSpec, facts: Facts
) -> tuple[ApprovalReference, ...] | Waiting:
    """The words that a grant rests on, one of each of as many people as the policy asks; or how far it has come.

    Those of more people are left out, and the grant does not end when they are taken back; but not those on other
    requests: whatever reads words has read them too.
    """
    by_person: dict[str, Statement] = {}
    for one in counting(request, facts, policy):
        if one.verdict == "Approve":
            by_person.setdefault(one.username, one)
    if len(by_person) >= approval.needed:
        own = [reference(one) for one in by_person.values() if one.until is None][: approval.needed]
        return (*own, *(reference(one) for one in by_person.values() if one.until is not None))
    involved = concerned(request, facts)
    own_words = (one for one in facts.approvals if one.verdict == "Approve" and one.until is None)
    void = (_void(one, policy, request, involved) for one in own_words)
    return Waiting(
        policy,
        approval.needed,
        tuple(map(_shown, by_person.values())),
        tuple(sorted({words for words in void if words is not None})),
        approval.wait,
    )


def reference(one: Statement) -> ApprovalReference:
    """A word, as a grant names it that rests on it."""
    return ApprovalReference(name=one.name, uid=one.uid, username=one.username, request=one.request)


def _shown(one: Statement) -> str:
    return one.username if one.until is None else f"{one.username} for the task until {format_seconds(one.until)}"


def _void(one: Statement, policy: str, request: RequestSpec, involved: frozenset[str]) -> str | None:
    """Why an Approve does not count for a policy; None where it does."""
    if one.username in involved:
        asks = one.username == request.requester.username
        return f"{one.username} asks itself" if asks else f"{one.username} has a part in that work"
    if one.policy != policy:
        return f"{one.username} approved for policy {one.policy}"
    return None if one.allowed else f"{one.username} may no longer approve for policy {policy}"
