"""Leadership: of several replicas one leads, and knows by its own clock until when it surely does.

The algorithm of client-go's leaderelection, with two differences: a replica that waits wakes at the moment of expiry
and at every change of the object, not on a tick; and a leader whose time is over says so before its next write.
https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from valetkey.kinds.base import API_VERSION, format_time
from valetkey.kinds.leader import MOST_TRANSITIONS
from valetkey.kube import paths
from valetkey.kube.api import ApiError, Json, WatchApi
from valetkey.kube.clock import boot_time

TTL: Final = timedelta(seconds=5)
"""How long a replica leads after its last renewal."""
RENEW_EVERY: Final = timedelta(seconds=1.5)
AHEAD: Final = timedelta(seconds=10)
"""How far another replica's time may be ahead of ours."""
_LONGEST: Final = 60.0
_RETRY: Final = 0.25
_TRIES: Final = 4
"""Renewals that fit into one ttl: a connection that went silent must not cost the leadership (client-go halves it)."""

_logger = logging.getLogger(__name__)


class LostError(Exception):
    """This replica does not lead any more, or cannot know that it does."""


class Leadership:
    """The right of one replica to write, as the Leader object says it."""

    def __init__(
        self,
        api: WatchApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        ttl: timedelta = TTL,
        renew_every: timedelta = RENEW_EVERY,
        clock: Callable[[], float] = boot_time,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`identity` is `<pod name>_<pod uid>`: a guard compares it with the caller's token.

        What this replica holds it counts by `clock`, `now` is what it writes down and judges others' times by.
        Raises ValueError for a `ttl` that is not of whole seconds: others would count less than this replica does.
        """
        if ttl < timedelta(seconds=1) or ttl % timedelta(seconds=1):
            raise ValueError(f"a ttl of {ttl} is not of whole seconds")
        self.identity = identity
        self._api = api
        self._namespace, self._name = namespace, name
        self._path = paths.item("Leader", namespace, name)
        self._ttl = ttl.total_seconds()
        self._renew_every = renew_every.total_seconds()
        self._clock = clock
        self._now = now
        self._leader: Json = {}
        self._deadline = -math.inf
        self.restored: datetime | None = None
        """When a replica last said that the cluster's store had been restored."""
        self.restored_said: Callable[[datetime], None] = lambda _: None
        """Called where that becomes known."""
        self._passed_over = ""
        """What was last said of it that none of ours can have said."""

    @property
    def held(self) -> bool:
        """Whether this replica surely leads, at this moment; false as soon as its time is over, whatever it was doing.

        Its time is counted from before the request that renewed it was sent, that of a replica that waits from after
        it saw the renewal: the two never overlap, and no machine's clock is compared with another's.
        """
        return self._clock() < self._deadline

    async def acquire(self) -> None:
        """Returns when this replica leads: at once if nobody does, or when who does has not renewed for its ttl."""
        version, ttl, expires = "", self._ttl, -math.inf
        while True:
            try:
                found = await self._read()
                self._notice(found)
                seen = found["metadata"].get("resourceVersion", "")
                if seen != version:
                    # A change too is that it was deleted: who led until then may not know yet.
                    ttl = _ttl(found, self._ttl)
                    version, expires = seen, self._clock() + ttl
                # A holder of our own identity was this pod's process before; the kubelet has ended it.
                free = (seen and _holder(found) in ("", self.identity)) or self._clock() >= expires
                if not free:
                    await self._changed(version, expires - self._clock())
                elif await self._write(found) and self.held:  # an answer may come after the time that it gave
                    return
            except ApiError as error:
                _logger.warning("leading: %s; it is tried again", error)
                await asyncio.sleep(_RETRY)

    async def keep(self) -> None:
        """Renews for ever; raises LostError where another leads, or no renewal went through in time."""
        pause = self._renew_every
        while True:
            await asyncio.sleep(min(pause, max(0.0, self._deadline - self._clock())))
            if not self.held:
                raise LostError(f"the Leader was not renewed for {self._ttl:g} s; another replica may lead by now")
            try:
                async with asyncio.timeout(min(self._ttl / _TRIES, self._deadline - self._clock())):
                    pause = self._renew_every if await self._write(self._leader) else await self._read_again()
            except TimeoutError:
                pause = _RETRY
            except ApiError as error:
                _logger.warning("leading: not renewed: %s", error)
                pause = _RETRY

    async def say_restored(self, at: datetime) -> None:
        """Puts on record for every replica, leading or not, that what was made before is over; raises ApiError.

        Where there is no Leader yet nobody is told: each replica looks for itself before it leads.
        """
        while True:
            found = await self._read()
            self._notice(found)
            said = self._restored_at(found)
            if "resourceVersion" not in found["metadata"] or (said is not None and said >= at):
                return
            spec = found["spec"] | {"restoredAt": format_time(at)}
            try:
                return self._notice(await self._api.replace(self._path, found | {"spec": spec}))
            except ApiError as error:
                if not (error.conflict or error.not_found):
                    raise

    def _notice(self, found: Json) -> None:
        """Hears what other replicas have said."""
        at = self._restored_at(found)
        if at is not None and (self.restored is None or at > self.restored):
            self.restored = at
            self.restored_said(at)

    def _restored_at(self, found: Json) -> datetime | None:
        """When the store was restored, by what is written there; what is no time of ours is passed over.

        A stolen token writes what it likes, and that must not outlive it.
        """
        said = found.get("spec", {}).get("restoredAt")
        at = _time(said) if said else None
        if at is not None and at <= self._now() + AHEAD:
            return at
        if said and said != self._passed_over:
            self._passed_over = said
            _logger.error("the Leader says that the store was restored at %s: none of ours says so", said)
        return None

    async def release(self) -> None:
        """Lets another replica lead at once; where that cannot be said, it will when this one's time is over."""
        held, self._deadline = self.held, -math.inf
        if held:
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(1):
                    # Read anew: a renewal that was cut off when this process was told to stop may have gone through.
                    found = await self._api.get(self._path)
                    if _holder(found) == self.identity:
                        spec = found["spec"] | {"holderIdentity": ""}
                        await self._api.replace(self._path, found | {"spec": spec})

    async def _read(self) -> Json:
        """The object; without a resourceVersion where it is not there."""
        try:
            return await self._api.get(self._path)
        except ApiError as error:
            if not error.not_found:
                raise
            return {"metadata": {"name": self._name, "namespace": self._namespace}}

    async def _read_again(self) -> float:
        """Somebody wrote the object or deleted it; gives the pause until the next try, raises LostError."""
        found = await self._read()
        if "resourceVersion" in found["metadata"] and _holder(found) != self.identity:
            self._deadline = -math.inf  # whatever the clock says
            raise LostError(f"{_holder(found) or 'nobody'} leads")
        self._leader = found
        self._notice(found)
        return 0.0

    async def _write(self, found: Json) -> bool:
        """Makes this replica the holder of the object as it was read; false where it has changed since."""
        now = format_time(self._now())
        before = found.get("spec", {})
        spec = {**before, "holderIdentity": self.identity, "leaseDurationSeconds": int(self._ttl), "renewTime": now}
        if _holder(found) != self.identity:
            spec |= {"acquireTime": now, "leaseTransitions": before.get("leaseTransitions", -1) + 1}
        # What none of ours can have written is not handed on: it would outlive whoever wrote it.
        if spec.get("leaseTransitions", 0) > MOST_TRANSITIONS:
            spec["leaseTransitions"] = 0
        if self._restored_at(found) is None:
            spec.pop("restoredAt", None)
        body = found | {"apiVersion": API_VERSION, "kind": "Leader", "spec": spec}
        sent = self._clock()
        try:
            if "resourceVersion" in found["metadata"]:
                self._leader = await self._api.replace(self._path, body)
            else:
                self._leader = await self._api.create(paths.collection("Leader", self._namespace), body)
        except ApiError as error:
            gone = error.not_found and "resourceVersion" in found["metadata"]  # else the namespace is
            if not (error.conflict or error.already_exists or gone):
                raise
            return False
        self._deadline = sent + self._ttl
        return True

    async def _changed(self, version: str, seconds: float) -> None:
        """Returns when the object is another version, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                collection = paths.collection("Leader", self._namespace)
                async for event in self._api.watch(collection, name=self._name):
                    gone = event["type"] == "DELETED"
                    if ("" if gone else event["object"]["metadata"]["resourceVersion"]) != version:
                        return
                await asyncio.sleep(_RETRY)  # the server ended the watch


def _holder(found: Json) -> str:
    return found.get("spec", {}).get("holderIdentity") or ""


def _time(said: str) -> datetime | None:
    """A time in UTC; None where it has no zone or is none: the API server takes some that Python does not."""
    try:
        at = datetime.fromisoformat(said)
        return None if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _ttl(found: Json, own: float) -> float:
    """How long its holder leads by what is written there; nobody can say so for more than a minute."""
    return min(float(found.get("spec", {}).get("leaseDurationSeconds") or own), _LONGEST)
