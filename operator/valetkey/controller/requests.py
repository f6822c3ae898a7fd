"""Requests: what was last read of them, how many an account has, and who works for whom."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from valetkey.controller.objects import Objects, version_of
from valetkey.controller.queue import Key
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.policy.coverage import denied_by_a_person, task_of


class RequestNote(NamedTuple):
    """What is known of a request without looking at it."""

    uid: str
    version: int
    created: datetime
    account: str
    """The ServiceAccount that made it."""
    finished: bool
    released: bool
    """Whether its agent says that the task is over."""
    pod: str
    """The uid of the pod that made it."""
    terminating: bool
    denied: bool
    """Whether a person's Deny has ended it."""
    task: int
    """The same for all requests of one task, whatever access they ask for; others may have it too. 0 is of no task."""
    parent: str
    """The uid of the request that it works for; empty where it works for none, or has finished."""
    beat: str | None
    """What its pod has last said to show that it still works."""

    def only_beats(self, before: RequestNote) -> bool:
        """Whether nothing but its beat is news since then."""
        return self.beat != before.beat and self._replace(version=0, beat=None) == before._replace(version=0, beat=None)


class Requests(Objects[AccessRequest, RequestNote]):
    """Requests by key, and since when each is known."""

    def __init__(
        self,
        went: Callable[[str, RequestNote], None] = lambda namespace, note: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`went` is told, by namespace and note, of each request that goes, is gone, or was denied by a person."""
        super().__init__(AccessRequest, _of_request)
        self._went = went
        self._of_task: defaultdict[tuple[str, int], set[Key]] = defaultdict(set)
        self._clock = clock
        self._heard: dict[str, datetime] = {}
        """By uid: when its last beat came."""
        self._since: dict[str, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._children: defaultdict[str, set[Key]] = defaultdict(set)

    def put(self, body: AccessRequest) -> bool:
        """Takes in what was read; gives whether it is news."""
        key = Key.of(body.metadata)
        before = self.note(key)
        news = super().put(body)
        if news:
            self._tell(key, before, self.note(key))
            if before is not None and before.uid != body.metadata.uid:
                self._since.pop(before.uid, None)
                self._heard.pop(before.uid, None)
            if body.beat is not None and (before is None or before.beat != body.beat):
                self._heard[body.metadata.uid] = self._clock()
            self._since.setdefault(body.metadata.uid, time.monotonic())
        return news

    def remove(self, key: Key, uid: str) -> AccessRequest | None:
        """Takes out the request of that uid; gives it back if it was there."""
        self._since.pop(uid, None)
        self._heard.pop(uid, None)
        before = self.note(key)
        found = super().remove(key, uid)
        if found is not None:
            self._tell(key, before, None)
        return found

    def heard(self, uid: str) -> datetime | None:
        """When the last beat of a request came here; None where there was none."""
        return self._heard.get(uid)

    def beside(self, request: AccessRequest) -> int:
        """How many requests there are of the ServiceAccount that made this one."""
        return self._counts[request.metadata.namespace, request.spec.requester.service_account]

    def of_task(self, namespace: str, task: int) -> frozenset[Key]:
        """Requests of one task, and perhaps of another that looks the same."""
        return frozenset(self._of_task.get((namespace, task), ()))

    def _tell(self, key: Key, before: RequestNote | None, now: RequestNote | None) -> None:
        # Whoever brings the news, a write of this replica's or a watch: what rests on words about it has to hear of it.
        if before is None:
            return
        same = now is not None and now.uid == before.uid
        if not same or now is None or (now.terminating, now.denied) != (before.terminating, before.denied):
            self._went(key.namespace, before)

    def of_parent(self, uid: str) -> frozenset[Key]:
        """Requests that work for the one of that uid."""
        return frozenset(self._children.get(uid, ()))

    def age(self, request: AccessRequest, now: datetime) -> float:
        """How many seconds ago a request was made, never too many.

        The API server says to the second when that was: so it is counted from when this replica saw the request, or
        from the end of that second where that is longer ago.
        """
        seen = time.monotonic() - self._since.get(request.metadata.uid, time.monotonic())
        return max(seen, (now - request.metadata.creation_timestamp).total_seconds() - 1)

    def _enter(self, key: Key, note: RequestNote) -> None:
        self._counts[key.namespace, note.account] += 1
        if note.task:
            self._of_task[key.namespace, note.task].add(key)
        if note.parent:
            self._children[note.parent].add(key)

    def _leave(self, key: Key, note: RequestNote) -> None:
        self._counts[key.namespace, note.account] -= 1
        if not self._counts[key.namespace, note.account]:
            del self._counts[key.namespace, note.account]
        if note.task:
            self._of_task[key.namespace, note.task].discard(key)
            if not self._of_task[key.namespace, note.task]:
                del self._of_task[key.namespace, note.task]
        if note.parent:
            self._children[note.parent].discard(key)
            if not self._children[note.parent]:
                del self._children[note.parent]


def _of_request(request: AccessRequest) -> RequestNote:
    return RequestNote(
        uid=request.metadata.uid,
        version=version_of(request.metadata.resource_version),
        created=request.metadata.creation_timestamp,
        account=sys.intern(request.spec.requester.service_account),
        finished=request.finished is not None,
        released=request.spec.outcome is not None,
        pod=sys.intern(request.spec.requester.pod_uid),
        terminating=request.metadata.terminating,
        denied=denied_by_a_person(request),
        task=task_of(request.spec),
        parent="" if request.spec.parent is None or request.finished is not None else request.spec.parent.uid,
        beat=request.beat,
    )
