"""The queue of keys: each at most once, none by two workers, fair between namespaces, endings before beginnings.

The pattern of client-go's workqueue: https://pkg.go.dev/k8s.io/client-go/util/workqueue
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from valetkey.kinds.base import Metadata

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 30.0
_DOUBLINGS: Final = 10


class Key(NamedTuple):
    """A namespace and a name; a request and its grant share them."""

    namespace: str
    name: str

    @classmethod
    def of(cls, metadata: Metadata) -> Key:
        """The key of an object."""
        return cls(metadata.namespace, metadata.name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Waiting(NamedTuple):
    """What waits for a worker."""

    keys: int
    seconds: float
    """How long the first of them has waited; 0 where there is none."""


class _Lane:
    """Keys that are ready, one namespace after the other."""

    def __init__(self) -> None:
        self._by_namespace: OrderedDict[str, deque[Key]] = OrderedDict()

    def push(self, key: Key) -> None:
        self._by_namespace.setdefault(key.namespace, deque()).append(key)

    def __bool__(self) -> bool:
        return bool(self._by_namespace)

    def pop(self, has_its_share: Callable[[str], bool] = lambda namespace: False) -> Key | None:
        namespace = next((name for name in self._by_namespace if not has_its_share(name)), None)
        if namespace is None:
            return None
        keys = self._by_namespace.pop(namespace)
        key = keys.popleft()
        if keys:
            self._by_namespace[namespace] = keys
        return key


class Queue:
    """Hands keys to workers."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), share: int | None = None) -> None:
        """`share` is how many beginnings of one namespace are worked on at once, where there is a limit."""
        self._clock = clock
        self._share = share
        self._begun: Counter[str] = Counter()
        """Beginnings of each namespace that are being worked on."""
        self._endings, self._beginnings = _Lane(), _Lane()
        self._ready: dict[Key, tuple[bool, float]] = {}
        """Whether each key that waits is an ending, and since when it waits."""
        self._active: dict[Key, bool] = {}
        """Whether each key that is being worked on was taken as an ending."""
        self._again: dict[Key, bool] = {}
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, tuple[float, bool]] = {}
        self._heap: list[tuple[float, Key]] = []
        self._timer: asyncio.TimerHandle | None = None
        # At least one for each key that is ready and may be taken, of any kind and of the endings alone; one too many
        # wakes for nothing.
        self._any, self._ends = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self._endings_taken = asyncio.Event()
        self._endings_taken.set()

    def add(self, key: Key, *, ending: bool) -> None:
        """Makes a key ready; while a worker has it, it is kept and made ready again afterwards."""
        if key in self._active:
            self._again[key] = ending or self._again.get(key, False)
        elif key not in self._ready:
            self._ready[key] = ending, time.monotonic()
            if ending:
                self._push_ending(key)
            else:
                self._beginnings.push(key)
                self._any.release()
        elif ending and not self._ready[key][0]:
            # It goes over to the endings; what it leaves in its old lane is passed over there.
            self._ready[key] = True, self._ready[key][1]
            self._push_ending(key)

    def add_at(self, key: Key, at: datetime, *, ending: bool) -> None:
        """Makes a key ready at a time; a later call takes the place of an earlier one."""
        self._schedule(key, asyncio.get_running_loop().time() + (at - self._clock()).total_seconds(), ending)

    def retry(self, key: Key, after: timedelta | None = None, *, ending: bool, by: datetime | None = None) -> None:
        """Makes a key ready again after a failure: after the time that was asked for, else later each time.

        Never later than `by`, where that is yet to come: what is to be done then is not late for an earlier failure.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(_FIRST_RETRY * 2 ** min(failures, _DOUBLINGS), _LAST_RETRY) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
        if after is not None:
            delay = max(delay, after.total_seconds())
        if by is not None and (left := (by - self._clock()).total_seconds()) > 0:
            delay = min(delay, left)
        self._schedule(key, asyncio.get_running_loop().time() + delay, ending)

    def succeeded(self, key: Key) -> None:
        """Forgets earlier failures of a key."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """How often a key was tried again since it last succeeded."""
        return self._failures.get(key, 0)

    def hurry(self) -> None:
        """Makes ready now whatever waits after a failure: what it failed for is back."""
        for key in list(self._failures):
            due = self._due.pop(key, None)
            if due is not None:
                self.add(key, ending=due[1])

    def forget(self, key: Key) -> None:
        """Forgets a key's failures and the time that it waited for."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    @property
    def more_end(self) -> bool:
        """Whether another grant waits for a worker: one that ends, or one that has to be looked at again."""
        return bool(self._endings)

    async def endings_taken(self) -> None:
        """Returns once no grant waits for a worker."""
        await self._endings_taken.wait()

    def waiting(self, *, ending: bool) -> Waiting:
        """What waits in one of the two lanes."""
        since = [at for is_ending, at in self._ready.values() if is_ending is ending]
        return Waiting(len(since), time.monotonic() - min(since) if since else 0.0)

    async def get(self, *, endings_alone: bool = False) -> Key:
        """The next key: an ending if there is one, from the namespace whose turn it is; with `endings_alone`, no other.

        Some workers take nothing but endings, so that none waits until a slow beginning is through.
        """
        while True:
            await (self._ends if endings_alone else self._any).acquire()
            key = self._pop_ending() or (None if endings_alone else self._next_beginning())
            if key is not None:
                ending, _ = self._ready.pop(key)
                self._active[key] = ending
                if not ending:
                    self._begun[key.namespace] += 1
                return key

    def _push_ending(self, key: Key) -> None:
        self._endings.push(key)
        self._any.release()
        self._ends.release()
        self._endings_taken.clear()

    def _pop_ending(self) -> Key | None:
        key = self._endings.pop()
        if not self._endings:
            self._endings_taken.set()
        return key

    def _next_beginning(self) -> Key | None:
        """Passes over what has gone over to the endings, or was taken as one."""
        key = self._beginnings.pop(self._has_its_share)
        while key is not None and self._ready.get(key, (True,))[0]:
            key = self._beginnings.pop(self._has_its_share)
        return key

    def _has_its_share(self, namespace: str) -> bool:
        return self._share is not None and self._begun[namespace] >= self._share

    def done(self, key: Key) -> None:
        """Says that a worker has finished with a key."""
        if not self._active.pop(key, True):
            self._begun[key.namespace] -= 1
            if not self._begun[key.namespace]:
                del self._begun[key.namespace]
            self._any.release()
        ending = self._again.pop(key, None)
        if ending is not None:
            self.add(key, ending=ending)

    def _schedule(self, key: Key, when: float, ending: bool) -> None:
        self._due[key] = (when, ending)
        heapq.heappush(self._heap, (when, key))
        if self._heap[0][1] == key:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._due.get(self._heap[0][1], (None,))[0] != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            when, key = heapq.heappop(self._heap)
            due = self._due.get(key)
            if due is not None and due[0] == when:
                del self._due[key]
                self.add(key, ending=due[1])
        self._arm()
