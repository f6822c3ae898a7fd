"""Approvals: what people have said on a request, whether they still may, and whether a grant still has their word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from valetkey.controller import coverage
from valetkey.controller.backends import Backends
from valetkey.controller.queue import Key
from valetkey.controller.steps import LookUp, Progress, learnt
from valetkey.controller.words import MOST_WORDS
from valetkey.errors import NotReadyError
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import GROUP
from valetkey.kinds.ledger import Emergency
from valetkey.kinds.taskgrant import ApprovalReference, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError
from valetkey.kube.concurrency import all_of
from valetkey.policy.approvals import statement
from valetkey.policy.compile import Policies
from valetkey.policy.coverage import readable, task_word, void_for
from valetkey.policy.facts import Statement, TaskWord
from valetkey.reasons import Reason

_ACCOUNTS: Final = "system:serviceaccount:"
_Right = tuple[str, tuple[str, ...], str]
"""User name, groups and the policy that is spoken for."""
MOST_READ: Final = 64
"""Words on one task that are looked at for one decision; each person's longest come first."""
MOST_DENIED: Final = 4
"""Of one person's words for a policy on requests that somebody denies, who may or not, as many are asked about."""
SOON: Final = timedelta(seconds=1)
MOST_NAMED: Final = 4
"""Of those that do not count, as many are told of."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """A word on another request that counts, if whoever said it may say it, and nobody who may has denied that one."""

    word: AccessApproval
    asked: AccessRequest
    denials: tuple[AccessApproval, ...]


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

    async def heard_beside(
        self, request: AccessRequest, policies: Policies, since: datetime | None
    ) -> tuple[TaskWord, ...]:
        """What was said on other requests that may cover this one, and whether that may be said now; raises ApiError.

        Of each person one word for a policy, those that count first; then a few that cannot, to be told why. What was
        said before `since` is left out, and everything where that is not known.
        """
        counting, void = ([], []) if since is None else self._beside(request, policies, since)
        allowed = await self._asked(said for one in counting for said in (one.word, *one.denials))
        heard: dict[tuple[str, str], TaskWord] = {}
        for word in sorted((_heard(one, allowed) for one in counting), key=lambda one: not _stands(one)):
            heard.setdefault((word.said.username, word.said.policy), word)
        named = sorted(void, key=lambda one: (one.said.username, one.said.policy, one.said.request or ""))
        return (*heard.values(), *named[:MOST_NAMED])

    def _beside(
        self, request: AccessRequest, policies: Policies, since: datetime
    ) -> tuple[list[_Beside], list[TaskWord]]:
        """The words that count for all that is known here, the longest of each right; and those that do not."""
        cache, now = self._backends.cache, self._backends.clock()
        involved = coverage.involved(cache, request)
        counting: dict[_Right, list[_Beside]] = {}
        void: list[TaskWord] = []
        if not readable(request.spec):  # it is denied, and what it costs to compare is not bounded
            return [], []
        for key in coverage.words_beside(cache, request, policies, now, since)[:MOST_READ]:
            word = cache.approvals.get(key)
            asked = None if word is None else cache.requests.get(Key(key.namespace, word.spec.request.name))
            if word is None or asked is None:
                continue
            known = counting.setdefault(_right(word), [])
            if len(known) == MOST_DENIED or any(not one.denials for one in known):
                continue
            read = task_word(statement(word, allowed=True), word.spec, asked, None)
            if read is None:
                continue
            policy = policies.enforced(word.spec.policy)
            if read.said.username in involved or void_for(read, request.spec, policy, now) is not None:
                void.append(read)
                continue
            denials = coverage.denials(cache, word, involved)
            known.append(_Beside(word, asked, denials))
        return [one for known in counting.values() for one in known][:MOST_WORDS], void

    async def _asked(self, said: Iterable[AccessApproval]) -> dict[_Right, bool]:
        """Who may say what they say; whoever says the same a thousand times is asked about once."""
        rights = {_right(one) for one in said}
        answers = await all_of(*(self._may(*right) for right in rights))
        return dict(zip(rights, answers, strict=True))

    async def look_up(self, step: LookUp, progress: Progress) -> Progress:
        """Reads live what this replica does not know of, and asks who may deny; raises ApiError."""
        await self.read_again(step.grant, step.unknown)
        await all_of(*(self._read_request(step.grant.metadata.namespace, one) for one in step.unknown))
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

    async def _read_request(self, namespace: str, word: ApprovalReference) -> None:
        """Reads live whether the other request that a word was said on is there, where that is not known."""
        cache = self._backends.cache
        note = cache.approvals.note(Key(namespace, word.name))
        if note is None or not coverage.unread(cache, namespace, word):
            return
        try:
            body = await self._backends.api.get(paths.item("AccessRequest", namespace, note.name))
        except ApiError as error:
            if not error.not_found:
                raise
        else:
            if body["metadata"]["uid"] == note.request:
                message = f"the request that approval {word.name} was said on is not known here yet"
                raise NotReadyError(Reason.ISSUE_PENDING, message, after=SOON)
        cache.requests.remove(Key(namespace, note.name), note.request)

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


def _heard(one: _Beside, allowed: Mapping[_Right, bool]) -> TaskWord:
    denying = next((said.spec.approver.username for said in one.denials if allowed[_right(said)]), None)
    word = task_word(statement(one.word, allowed=allowed[_right(one.word)]), one.word.spec, one.asked, denying)
    assert word is not None
    return word


def _stands(word: TaskWord) -> bool:
    return word.said.allowed and word.denied_by is None


def _right(approval: AccessApproval) -> _Right:
    approver = approval.spec.approver
    return approver.username, approver.groups, approval.spec.policy
