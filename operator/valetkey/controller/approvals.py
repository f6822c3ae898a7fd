"""Approvals: what people have said on a request, whether they still may, and whether a grant still has their word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from valetkey.controller.backends import Backends
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import GROUP
from valetkey.kinds.ledger import Emergency
from valetkey.kinds.taskgrant import ApprovalReference, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError
from valetkey.kube.concurrency import all_of
from valetkey.policy.facts import Statement

_ACCOUNTS: Final = "system:serviceaccount:"
_Right = tuple[str, tuple[str, ...], str]
"""User name, groups and the policy that is spoken for."""


class Approvals:
    """Asks the API server about what people have said."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def heard(self, request: AccessRequest) -> tuple[Statement, ...]:
        """What was said on this very request, and whether each who said it may say so now; raises ApiError."""
        by = request.spec.requester.username
        said = self._backends.cache.approvals.about(Key.of(request.metadata), request.metadata.uid)
        allowed = await self._asked(one for one in said if one.spec.approver.username != by)
        return tuple(statement(one, allowed=allowed.get(_right(one), False)) for one in said)

    async def reviewed(self, namespace: str, use: Emergency) -> AccessApproval | None:
        """A review of a use that counts: made after it, by a person who may approve for its policy; raises ApiError."""
        key = Key(namespace, use.name)
        said = self._backends.cache.approvals.reviews_of(key, use.request, use.policy, use.at)
        people = [one for one in said if not one.spec.approver.username.startswith(_ACCOUNTS)]
        allowed = await self._asked(people)
        return next((one for one in people if allowed[_right(one)]), None)

    async def _asked(self, said: Iterable[AccessApproval]) -> dict[_Right, bool]:
        """Who may say what they say; whoever says the same a thousand times is asked about once."""
        rights = {_right(one) for one in said}
        answers = await all_of(*(self._may(*right) for right in rights))
        return dict(zip(rights, answers, strict=True))

    async def look_up(self, step: LookUp, progress: Progress) -> Progress:
        """Reads live what this replica does not know of, and asks who may deny; raises ApiError."""
        await self.read_again(step.grant, step.unknown)
        allowed = await self._asked(step.unheard)
        return learnt(
            progress, denials={**progress.denials, **{one.metadata.uid: allowed[_right(one)] for one in step.unheard}}
        )

    async def read_again(self, grant: TaskGrant, approvals: tuple[ApprovalReference, ...]) -> None:
        """Reads words that a grant rests on live, by name; what is not there was taken back. Raises ApiError."""
        await all_of(*(self._read(Key(grant.metadata.namespace, one.name), one.uid) for one in approvals))

    async def _read(self, key: Key, uid: str) -> None:
        cache = self._backends.cache.approvals
        try:
            body = await self._backends.api.get(paths.item("AccessApproval", *key))
        except ApiError as error:
            if not error.not_found:
                raise
            cache.remove(key, uid)
            return
        found = AccessApproval.model_validate(body)
        known = cache.note(key)
        there = set() if found.metadata.terminating else {found.metadata.uid}
        for gone in {uid, uid if known is None else known.uid} - there:
            cache.remove(key, gone)
        cache.put(found)

    async def _may(self, username: str, groups: tuple[str, ...], policy: str) -> bool:
        """Whether somebody may approve for a policy, by the groups that they were in when they spoke."""
        right = {"group": GROUP, "resource": "agentpolicies", "name": policy, "verb": "approve"}
        answer = await self._backends.api.create(
            paths.collection("SubjectAccessReview"),
            {
                "apiVersion": paths.api_version("SubjectAccessReview"),
                "kind": "SubjectAccessReview",
                "spec": {"user": username, "groups": list(groups), "resourceAttributes": right},
            },
        )
        return answer["status"].get("allowed") is True


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


def _right(approval: AccessApproval) -> _Right:
    approver = approval.spec.approver
    return approver.username, approver.groups, approval.spec.policy
