"""Coverage: which words, requests and grants belong together because a person's word covers a whole task, as last read.

A grant that rests on a word is found by that word; a request that a word may cover, by its pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from datetime import datetime

from valetkey.controller import parents
from valetkey.controller.cache import Cache
from valetkey.controller.parents import Standing
from valetkey.controller.queue import Key
from valetkey.controller.words import MOST_WORDS, ApprovalNote
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.delegation import Account
from valetkey.kinds.taskgrant import ApprovalReference, TaskGrant
from valetkey.policy import lineage
from valetkey.policy.compile import Policies
from valetkey.policy.coverage import denied_by_a_person, seen, task_of

# -- what may cover a request ----------------------------------------------------------------------------------------


def words_beside(cache: Cache, request: AccessRequest, policies: Policies, now: datetime, since: datetime) -> list[Key]:
    """Words on other requests of its task that are not over: first each person's longest for a policy as it is.

    What was asked before a moment is left out, and with it what was said on it: guards may not have held who speaks to
    who they are, or the store may have been restored since, and what was taken back be there again.
    """
    metadata, longest = request.metadata, dict[tuple[str, str, str], tuple[datetime, bool, Key]]()
    for key in cache.requests.of_task(metadata.namespace, task_of(request.spec)):
        asked = cache.requests.note(key)
        if asked is None or asked.uid == metadata.uid or asked.terminating or asked.created < since:
            continue
        for there, note in cache.approvals.notes_about(key, asked.uid):
            if note.until is not None and note.until > now:
                by = (*note.word, asked.uid)
                longest[by] = max(longest.get(by, (now, False, there)), (note.until, _counts(policies, note), there))
    ranks: Counter[tuple[str, str]] = Counter()
    found = []
    for (person, policy, _), (until, counts, there) in sorted(
        longest.items(), key=lambda one: (not one[1][1], now - one[1][0], one[1][2])
    ):
        found.append((not counts, ranks[person, policy], now - until, there))
        ranks[person, policy] += 1
    return [there for *_, there in sorted(found)]


def involved(cache: Cache, request: AccessRequest) -> frozenset[str]:
    """User names that have a part in the work that a request is of, and no word in it."""
    namespace = request.metadata.namespace
    pod = cache.pods.get(namespace, request.spec.subject.pod_name)
    receives = () if pod is None else (Account(namespace=namespace, service_account=pod.service_account),)
    return lineage.users(request.spec, (*receives, *lineage.before(parents.facts(cache, request.spec.parent))))


def denials(cache: Cache, word: AccessApproval, involved: Container[str]) -> tuple[AccessApproval, ...]:
    """What people have said against the request that a word was said on, for its policy, whether they may or not."""
    asked = word.spec.request
    first: dict[str, Key] = {}
    for there, note in cache.approvals.notes_about(Key(word.metadata.namespace, asked.name), asked.uid):
        person, policy = note.word
        if note.denies and policy == word.spec.policy and person not in involved:
            first.setdefault(person, there)
    read = (cache.approvals.get(there) for there in list(first.values())[:MOST_WORDS])
    return tuple(one for one in read if one is not None)


def kept_until(cache: Cache, request: AccessRequest, policies: Policies) -> datetime | None:
    """Until when some word on a request covers others, or may, for which it has to be there; None: it need not be kept.

    Only other people's words keep it, such as would count today or as a grant rests on, which ends by the same time.
    """
    namespace, people = request.metadata.namespace, involved(cache, request)
    # What works for another request covers others while that one goes on, and no longer.
    over = parents.standing(cache, request.spec.parent) is not Standing.LIVE or denied_by_a_person(request)
    ends = []
    for _, note in cache.approvals.notes_about(Key.of(request.metadata), request.metadata.uid):
        if note.until is None or note.word[0] in people:
            continue
        if not over and _counts(policies, note):
            ends.append(note.until)
        resting = (cache.grants.note(key) for key in cache.grants.of_word(namespace, note.uid))
        ends += (min(grant.due, note.until) for grant in resting if grant is not None)
    return max(ends, default=None)


def _counts(policies: Policies, note: ApprovalNote) -> bool:
    return seen(policies.enforced(note.word[1]), note.generation, note.created)


# -- what a grant rests on -------------------------------------------------------------------------------------------


def rests_on(cache: Cache, grant: TaskGrant) -> Iterator[tuple[ApprovalReference, AccessApproval]]:
    """The words on other requests that a grant rests on, as far as they are there."""
    for one in grant.spec.order.approvals:
        word = cache.approvals.get(Key(grant.metadata.namespace, one.name)) if one.request is not None else None
        if word is not None and word.metadata.uid == one.uid:
            yield one, word


def denials_beside(cache: Cache, grant: TaskGrant, request: AccessRequest) -> tuple[AccessApproval, ...]:
    """What people have said against the requests that those words were said on."""
    order = grant.spec.order
    people = lineage.users(request.spec, (*(order.act or ()), *(order.among or ())))
    found = (one for _, word in rests_on(cache, grant) for one in denials(cache, word, people))
    return tuple({one.metadata.uid: one for one in found}.values())


def goes(cache: Cache, namespace: str, word: ApprovalReference) -> bool:
    """Whether the request that a word was said on is gone, going or denied by a person, and the word with it."""
    note = cache.approvals.note(Key(namespace, word.name))
    if note is None or note.uid != word.uid:
        return False
    asked = cache.requests.note(Key(namespace, note.name))
    if asked is not None and asked.uid == note.request:
        return word.request is not None and (asked.terminating or asked.denied)
    return asked is not None or cache.requests.known_gone(note.request)


def unread(cache: Cache, namespace: str, word: ApprovalReference) -> bool:
    """Whether it is not known if the other request that a word was said on is there."""
    note = cache.approvals.note(Key(namespace, word.name))
    if note is None or word.request is None:
        return False
    return cache.requests.note(Key(namespace, note.name)) is None and not cache.requests.known_gone(note.request)


# -- whom news concerns ----------------------------------------------------------------------------------------------


def concerned_by_word(cache: Cache, asked: Key, word: AccessApproval) -> set[Key]:
    """Whom it concerns, beside the request that it was said on, that a person has spoken or has taken it back."""
    about = cache.approvals.notes_about(asked, word.spec.request.uid)
    if word.spec.verdict == "Deny":
        resting = resting_on(cache, asked.namespace, word.spec.request.uid)
        return resting | _waiting_beside(cache, asked) if _covers(about) else resting
    return _waiting_beside(cache, asked) if word.spec.covers == "Task" else set()


def concerned_by_request(cache: Cache, asked: Key, uid: str) -> set[Key]:
    """Whom news of a request concerns beside itself: words on it count from when it is there until it goes."""
    if not _covers(cache.approvals.notes_about(asked, uid)):
        return set()
    return resting_on(cache, asked.namespace, uid) | _waiting_beside(cache, asked)


def resting_on(cache: Cache, namespace: str, uid: str) -> set[Key]:
    """Grants that rest on words on a request, whose uid this is."""
    words = cache.approvals.uids_about(namespace, uid)
    return {key for word in words for key in cache.grants.of_word(namespace, word)}


def _covers(about: list[tuple[Key, ApprovalNote]]) -> bool:
    return any(note.until is not None for _, note in about)


def _waiting_beside(cache: Cache, key: Key) -> set[Key]:
    """Requests of the same task that have no grant and have not finished."""
    asked = cache.requests.note(key)
    if asked is None:
        return set()
    notes = ((there, cache.requests.note(there)) for there in cache.requests.of_task(key.namespace, asked.task))
    return {
        there for there, note in notes if not (note is None or note.finished or there == key or there in cache.grants)
    }
