"""What was last read of everything that a step looks at; the newest version wins, whoever brought it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from valetkey.controller.queue import Key
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import Metadata
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import Json
from valetkey.kube.pods import FINAL, Pod
from valetkey.reasons import Reason

_REMEMBERED: Final = 10_000


class _Stored(Protocol):
    @property
    def metadata(self) -> Metadata: ...


T = TypeVar("T", bound=_Stored)


class _Dead:
    """Uids of what is gone: an answer may come in after the watch has told of the deletion, and brings nothing back."""

    def __init__(self) -> None:
        self._uids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def add(self, uid: str) -> None:
        """Remembers one more, and forgets the oldest where there are many."""
        self._uids[uid] = None
        if len(self._uids) > _REMEMBERED:
            self._uids.popitem(last=False)


class Objects(Generic[T]):
    """Objects of one kind by key."""

    def __init__(self) -> None:
        self._objects: dict[Key, T] = {}
        self._dead = _Dead()

    def get(self, key: Key) -> T | None:
        """The object under a key."""
        return self._objects.get(key)

    def has(self, body: Json) -> bool:
        """Whether what was read is known already, in this version or a later one; saves reading it in full."""
        metadata = body["metadata"]
        known = self._objects.get(Key(metadata["namespace"], metadata["name"]))
        if known is None or known.metadata.uid != metadata["uid"]:
            return False
        return _version(metadata["resourceVersion"]) <= _version(known.metadata.resource_version)

    def uids(self, namespace: str) -> dict[str, str]:
        """The uids of a namespace's objects, by name."""
        return {key.name: body.metadata.uid for key, body in self._objects.items() if key.namespace == namespace}

    def put(self, body: T) -> bool:
        """Takes in what was read; gives whether it is news."""
        key = Key(body.metadata.namespace, body.metadata.name)
        known = self._objects.get(key)
        if body.metadata.uid in self._dead:
            return False
        if known is not None and not _newer(body.metadata, known.metadata):
            return False
        if known is not None:
            self._leave(key, known)
        self._objects[key] = body
        self._enter(key, body)
        return True

    def known_gone(self, uid: str) -> bool:
        """Whether the object of that uid was seen to be gone."""
        return uid in self._dead

    def remove(self, key: Key, uid: str) -> T | None:
        """Takes out the object of that uid; gives it back if it was there."""
        self._dead.add(uid)
        known = self._objects.get(key)
        if known is None or known.metadata.uid != uid:
            return None
        self._leave(key, known)
        return self._objects.pop(key)

    def __iter__(self) -> Iterator[Key]:
        """All keys, as of now."""
        return iter(list(self._objects))

    def items(self) -> Iterator[tuple[Key, T]]:
        """All keys and objects, as of now."""
        return iter(list(self._objects.items()))

    def values(self) -> Iterator[T]:
        """All objects, as of now."""
        return iter(list(self._objects.values()))

    def _enter(self, key: Key, body: T) -> None:
        """Is told of each object that comes in."""

    def _leave(self, key: Key, body: T) -> None:
        """Is told of each object that goes out."""


class Requests(Objects[AccessRequest]):
    """Requests by key, and since when each is known."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[str, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def put(self, body: AccessRequest) -> bool:
        """Takes in what was read; gives whether it is news."""
        before = self.get(Key(body.metadata.namespace, body.metadata.name))
        news = super().put(body)
        if news:
            if before is not None and before.metadata.uid != body.metadata.uid:
                self._since.pop(before.metadata.uid, None)
            self._since.setdefault(body.metadata.uid, time.monotonic())
        return news

    def remove(self, key: Key, uid: str) -> AccessRequest | None:
        """Takes out the request of that uid; gives it back if it was there."""
        self._since.pop(uid, None)
        return super().remove(key, uid)

    def beside(self, request: AccessRequest) -> int:
        """How many requests there are of the ServiceAccount that made this one."""
        return self._counts[_maker(request)]

    def _enter(self, key: Key, body: AccessRequest) -> None:
        self._counts[_maker(body)] += 1

    def _leave(self, key: Key, body: AccessRequest) -> None:
        self._counts[_maker(body)] -= 1
        if not self._counts[_maker(body)]:
            del self._counts[_maker(body)]

    def age(self, request: AccessRequest, now: datetime) -> float:
        """How many seconds ago a request was made, never too many.

        The API server says to the second when that was: so it is counted from when this replica saw the request, or
        from the end of that second where that is longer ago.
        """
        seen = time.monotonic() - self._since.get(request.metadata.uid, time.monotonic())
        return max(seen, (now - request.metadata.creation_timestamp).total_seconds() - 1)


def _maker(request: AccessRequest) -> tuple[str, str]:
    return request.metadata.namespace, request.spec.requester.service_account


class Grants(Objects[TaskGrant]):
    """Grants by key, and which of them a pod, a Secret or an account has."""

    def __init__(self) -> None:
        super().__init__()
        self._index: defaultdict[tuple[str, str, str], set[Key]] = defaultdict(set)

    def of_pod(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants of the pods of one name."""
        return frozenset(self._index.get(("pod", namespace, name), ()))

    def of_secret(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants that are delivered in one Secret."""
        return frozenset(self._index.get(("secret", namespace, name), ()))

    def of_account(self, namespace: str, name: str) -> frozenset[Key]:
        """Grants of the pods of one ServiceAccount."""
        return frozenset(self._index.get(("account", namespace, name), ()))

    def _enter(self, key: Key, body: TaskGrant) -> None:
        for entry in _entries(body):
            self._index[entry].add(key)

    def _leave(self, key: Key, body: TaskGrant) -> None:
        for entry in _entries(body):
            self._index[entry].discard(key)
            if not self._index[entry]:
                del self._index[entry]


def _entries(grant: TaskGrant) -> tuple[tuple[str, str, str], ...]:
    subject, namespace = grant.spec.order.subject, grant.metadata.namespace
    return (
        ("pod", namespace, subject.pod_name),
        ("secret", namespace, grant.spec.delivery.secret.name),
        ("account", namespace, subject.service_account),
    )


class Pods:
    """Pods by name, and which of them mount a Secret."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], Pod] = {}
        self._mounting: dict[tuple[str, str], set[str]] = {}
        self._dead = _Dead()

    def get(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name."""
        return self._pods.get((namespace, name))

    def has(self, body: Json) -> bool:
        """Whether what was read is known already, in this version or a later one; saves reading it in full."""
        metadata = body["metadata"]
        known = self._pods.get((metadata["namespace"], metadata["name"]))
        if known is None or known.uid != metadata["uid"]:
            return False
        return _version(metadata["resourceVersion"]) <= _version(known.resource_version)

    def uids(self, namespace: str) -> dict[str, str]:
        """The uids of a namespace's pods, by name."""
        return {pod.name: pod.uid for pod in self._pods.values() if pod.namespace == namespace}

    def put(self, pod: Pod) -> bool:
        """Takes in a pod that was read; gives whether it is news."""
        if pod.uid in self._dead:
            return False
        known = self._pods.get((pod.namespace, pod.name))
        if known is not None:
            if known.uid == pod.uid and _version(pod.resource_version) <= _version(known.resource_version):
                return False
            self._take_out(known)
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
    """Requests, grants and pods."""

    def __init__(self) -> None:
        self.requests = Requests()
        self.grants = Grants()
        self.vanished: dict[Key, TaskGrant] = {}
        """Grants that went without the leave of our finalizer; their credentials are still to be revoked."""
        self.let_go: set[str] = set()
        """Uids of grants whose finalizer is being taken away: their deletion is expected."""
        self.over: dict[str, Reason] = {}
        """Requests (uids) that are here though the log tells of the end of what they were granted: the API server's
        store was restored from a snapshot that is older than that."""
        self.restored: datetime | None = None
        """When it was last found to have been restored: what was made before is over too."""
        self.pods = Pods()


def _newer(body: Metadata, known: Metadata) -> bool:
    if body.uid != known.uid:
        return body.creation_timestamp >= known.creation_timestamp
    # Since Kubernetes 1.35 resource versions of one object may be compared as numbers (KEP-5504).
    return _version(body.resource_version) > _version(known.resource_version)


def _version(resource_version: str) -> int:
    return int(resource_version) if resource_version.isdigit() else 0
