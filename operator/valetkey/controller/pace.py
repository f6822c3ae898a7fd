"""Pace: how much of what all agents share one ServiceAccount may use, and how soon it may again.

Refusals: one costs the API server a good part of what a grant does, so whoever asks in a loop would take it from
everybody; it is answered a few times a second, in the order in which it asks, and others at once. The log: what one
account asks may fill a part of it in a day. What was used is in memory alone: a new leader begins anew.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from valetkey.controller.queue import Key
from valetkey.kinds.accessrequest import AccessRequest

EACH: Final = timedelta(milliseconds=200)
"""Between two answers, once an account has been refused too often."""
AT_ONCE: Final = 50
"""Refusals that nobody is slowed down for; they are forgotten one by one, each after `EACH`."""
TOLD_EVERY: Final = timedelta(minutes=1)
_MANY: Final = 10_000


class Agent(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    account: str

    @classmethod
    def of(cls, request: AccessRequest) -> Agent:
        """Whose request it is."""
        return cls(request.metadata.namespace, request.spec.requester.service_account)


class Allowance:
    """So much at once, and each part of it again after a time: GCRA (ITU-T I.371, annex A)."""

    def __init__(self, *, most: int, each: timedelta) -> None:
        """`each` is how long one of `most` takes to come back."""
        self._most, self._each = most * each, each
        self._until: dict[Agent, datetime] = {}
        """When each has all of it again."""

    def spend(self, agent: Agent, now: datetime, amount: int = 1) -> None:
        """Takes a part of it, whether there is so much or not."""
        if len(self._until) > _MANY:
            self._until = {other: until for other, until in self._until.items() if until > now}
        self._until[agent] = max(self._until.get(agent, now), now) + amount * self._each

    def short_for(self, agent: Agent, now: datetime) -> timedelta:
        """How long nothing is left of it; zero where something is."""
        return max(self._until.get(agent, now) - now - self._most, timedelta())


def daily(kib: int) -> Allowance:
    """So many KiB a day."""
    return Allowance(most=kib, each=timedelta(days=1) / kib)


class Pace:
    """Gives turns to the requests of accounts that are refused again and again."""

    def __init__(self) -> None:
        self._refusals = Allowance(most=AT_ONCE, each=EACH)
        self._last: dict[Agent, datetime] = {}
        """The last turn that was given to each."""
        self._turns: dict[Key, datetime] = {}

    def refused(self, agent: Agent, now: datetime) -> None:
        """One of its requests got nothing."""
        self._refusals.spend(agent, now)

    def slowed(self, agent: Agent, now: datetime) -> bool:
        """Whether it has been refused too often."""
        return self._refusals.short_for(agent, now) > timedelta()

    def turn(self, key: Key, agent: Agent, now: datetime) -> datetime | None:
        """When a request is to be looked at; None: now."""
        if not self.slowed(agent, now):
            self._turns.pop(key, None)
            return None
        at = self._turns.get(key)
        if at is None:
            if len(self._last) > _MANY:
                self._last = {other: last for other, last in self._last.items() if last > now}
            at = self._last[agent] = self._turns[key] = max(self._last.get(agent, now), now) + EACH
        if at > now:
            return at
        del self._turns[key]
        return None

    def forget(self, key: Key) -> None:
        """Forgets the turn of a request that is gone."""
        self._turns.pop(key, None)


class Tally:
    """Counts what is too much for a record of each: told once a minute, for each account."""

    def __init__(self) -> None:
        self._untold: Counter[tuple[str, Agent]] = Counter()
        self._told: dict[tuple[str, Agent], datetime] = {}

    def add(self, what: str, agent: Agent, now: datetime) -> int | None:
        """How many there were since that was last told; None where it was told lately."""
        self._untold[what, agent] += 1
        if now - self._told.get((what, agent), now - TOLD_EVERY) < TOLD_EVERY:
            return None
        self._told[what, agent] = now
        return self._untold.pop((what, agent))
