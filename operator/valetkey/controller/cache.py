"""What was last read of everything that a step looks at."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from valetkey.controller.objects import Dead, Objects, version_of
from valetkey.controller.queue import Key
from valetkey.controller.requests import RequestNote, Requests
from valetkey.controller.words import Approvals
from valetkey.kinds.delegation import Parent
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import Json
from valetkey.kube.pods import FINAL, Pod
from valetkey.reasons import Reason


class GrantNote(NamedTuple):
    """What is known of a grant without looking at it."""

    uid: str
    version: int
    created: datetime
    request: str
    """The uid of its request."""
    account: str
    pod: str
    secret: str | None
    policy: str
    delivered: bool
    due: datetime
    """When it ends, or since when it has been ending."""
    ended: bool
    """Whether its end is written down."""
    ending: bool
    failed: bool
    """Whether its revocation has."""
    parent: Parent | None
    """The request that it works for."""
    words: tuple[str, ...]
    """The uids of what people have said that it rests on."""


class Grants(Objects[TaskGrant, GrantNote]):
    """Grants by key, and which of them a pod, a Secret, an account or a word has."""

    def __init__(self, ended: Callable[[str], None] = lambda request: None) -> None:
        """`ended` is told of each grant that is found to end, or to be gone, by the uid of its request."""
        super().__init__(TaskGrant, of_grant)
        self._index: defaultdict[tuple[str, str, str], set[Key]] = defaultdict(set)
        self._ended = ended

    def put(self, body: TaskGrant) -> bool:
        """Takes in what was read; gives whether it is news."""
        before = self.note(Key.of(body.metadata))
        news = super().put(body)
        if news:
            self._tell(before, of_grant(body))
        return news

    def remove(self, key: Key, uid: str) -> TaskGrant | None:
        """Takes out the grant of that uid; gives it back if it was there."""
        before = self.note(key)
        found = super().remove(key, uid)
        if found is not None:
            self._tell(before, None)
        return found

    def _tell(self, before: GrantNote | None, now: GrantNote | None) -> None:
        # Whoever brings the news, a write of this replica's or a watch: those who work for it have to hear of it.
        if before is not None and not before.ending and (now is None or now.uid != before.uid):
            self._ended(before.request)
        if now is not None and now.ending and (before is None or now.uid != before.uid or not before.ending):
            self._ended(now.request)

    def of_pod(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants of the pods of one name."""
        return frozenset(self._index.get(("pod", namespace, name), ()))

    def of_secret(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants that are delivered in one Secret."""
        return frozenset(self._index.get(("secret", namespace, name), ()))

    def of_account(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants of the pods of one ServiceAccount."""
        return frozenset(self._index.get(("account", namespace, name), ()))

    def of_parent(self, uid: str) -> frozenset[Key]:
        """Grants of those who work for the request of that uid."""
        return frozenset(self._index.get(("parent", "", uid), ()))

    def of_word(self, namespace: str, uid: str) -> frozenset[Key]:
        """Grants that rest on what a person has said."""
        return frozenset(self._index.get(("word", namespace, uid), ()))

    def _enter(self, key: Key, note: GrantNote) -> None:
        for entry in _entries(key, note):
            self._index[entry].add(key)

    def _leave(self, key: Key, note: GrantNote) -> None:
        for entry in _entries(key, note):
            self._index[entry].discard(key)
            if not self._index[entry]:
                del self._index[entry]


def of_grant(grant: TaskGrant) -> GrantNote:
    """The note of a grant."""
    order, end, deleted = grant.spec.order, grant.status.end, grant.metadata.deletion_timestamp
    begun = (at for at in (None if end is None else end.at, deleted) if at is not None)
    return GrantNote(
        uid=grant.metadata.uid,
        version=version_of(grant.metadata.resource_version),
        created=grant.metadata.creation_timestamp,
        request=grant.spec.request.uid,
        account=sys.intern(order.subject.service_account),
        pod=order.subject.pod_name,
        secret=grant.spec.delivery.secret_name,
        policy=sys.intern(order.policy.name),
        delivered=grant.delivered,
        due=min((order.not_after, *begun)),
        ended=end is not None,
        ending=grant.ending,
        failed=any(condition.reason == Reason.REVOCATION_FAILED for condition in grant.status.conditions),
        parent=order.parent,
        words=tuple(one.uid for one in order.approvals),
    )


def _entries(key: Key, note: GrantNote) -> list[tuple[str, str, str]]:
    own = [
        ("pod", key.namespace, note.pod),
        ("account", key.namespace, note.account),
        *(("word", key.namespace, uid) for uid in note.words),
    ]
    if note.secret is not None:
        own.append(("secret", key.namespace, note.secret))
    if note.parent is not None:
        own.append(("parent", "", note.parent.uid))
    return own


class Pods:
    """Pods by name, and which of them mount a Secret."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._pods: dict[tuple[str, str], Pod] = {}
        self._mounting: dict[tuple[str, str], set[str]] = {}
        self._dead = Dead()

    def get(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name."""
        return self._pods.get((namespace, name))

    def has(self, body: Json) -> bool:
        """Whether what was read is known already, in this version or a later one; saves reading it in full."""
        metadata = body["metadata"]
        known = self._pods.get((metadata["namespace"], metadata["name"]))
        if known is None or known.uid != metadata["uid"]:
            return False
        return version_of(metadata["resourceVersion"]) <= version_of(known.resource_version)

    def uids(self, namespace: str) -> dict[str, str]:
        """The uids of a namespace's pods, by name."""
        return {pod.name: pod.uid for pod in self._pods.values() if pod.namespace == namespace}

    def put(self, pod: Pod) -> bool:
        """Takes in a pod that was read; gives whether it is news."""
        if pod.uid in self._dead:
            return False
        known = self._pods.get((pod.namespace, pod.name))
        if known is not None:
            if known.uid == pod.uid and version_of(pod.resource_version) <= version_of(known.resource_version):
                return False
            self._take_out(known)
            if known.uid == pod.uid:
                # When a container died that was seen to, is told by our own time rather than by its node's.
                died_at = self._clock() if pod.restarts > known.restarts else known.died_at
                pod = replace(pod, died_at=died_at)
        self._pods[pod.namespace, pod.name] = pod
        for secret in pod.secrets:
            self._mounting.setdefault((pod.namespace, secret), set()).add(pod.name)
        return True

    def remove(self, namespace: str, name: str, uid: str) -> Pod | None:
        """Takes out the pod of that uid; gives it back if it was there."""
        self._dead.add(uid)
        known = self._pods.get((namespace, name))
        if known is None or known.uid != uid:
            return None
        self._take_out(known)
        return known

    def mounting(self, namespace: str, secret: str) -> list[Pod]:
        """Pods that mount a Secret and may still read it, by name: until the phase is final, conditions or not."""
        pods = (self._pods[namespace, name] for name in sorted(self._mounting.get((namespace, secret), ())))
        return [pod for pod in pods if pod.phase not in FINAL]

    def _take_out(self, pod: Pod) -> None:
        del self._pods[pod.namespace, pod.name]
        for secret in pod.secrets:
            names = self._mounting[pod.namespace, secret]
            names.discard(pod.name)
            if not names:
                del self._mounting[pod.namespace, secret]


class Cache:
    """Requests, grants, approvals and pods."""

    def __init__(
        self,
        wake: Callable[[Key], None] = lambda key: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`wake` is called for whoever works for something that is found to be over."""
        self._wake = wake
        self.requests = Requests(self._went, clock)
        self.grants = Grants(self._ended)
        self.approvals = Approvals()
        self.vanished: dict[Key, TaskGrant] = {}
        """Grants that went without the leave of our finalizer; their credentials are still to be revoked."""
        self.let_go: set[str] = set()
        """Uids of grants whose finalizer is being taken away: their deletion is expected."""
        self.over: dict[str, Reason] = {}
        """Requests (uids) that are here though the log tells of the end of what they were granted: the API server's
        store was restored from a snapshot that is older than that."""
        self.restored: datetime | None = None
        """When it was last found to have been restored: what was made before is over too."""
        self.pods = Pods(clock)

    def _went(self, namespace: str, request: RequestNote) -> None:
        """Has those looked at whom words on a request covered: what is granted by them, and what waits by them."""
        words = self.approvals.uids_about(namespace, request.uid)
        if not words:
            return
        waiting = (key for key in self.requests.of_task(namespace, request.task) if key not in self.grants)
        for key in {*waiting, *(key for word in words for key in self.grants.of_word(namespace, word))}:
            self._wake(key)

    def _ended(self, request: str) -> None:
        for child in self.requests.of_parent(request) | self.grants.of_parent(request):
            self._wake(child)
