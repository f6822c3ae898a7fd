"""What becomes of one access, from asking to its end?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from valetkey.agent import answer, asking, door, entries, files, leftovers, pod
from valetkey.agent.api import ApiError
from valetkey.agent.ask import COLLECTION, Ask
from valetkey.agent.entries import Entry
from valetkey.agent.errors import AccessError, ApprovalPending, NotOpened, Refused, TimedOut, Unreachable
from valetkey.agent.following import Following
from valetkey.agent.grant import Grant
from valetkey.agent.sealed import Box
from valetkey.agent.upkeep import Upkeep

Json = dict[str, Any]
_log: Final = logging.getLogger("valetkey")

_REPORT_FOR: Final = 30.0
_REPORT_UNANSWERED_FOR: Final = 2.0
_WAIT_FOR_LEFTOVERS: Final = 2.0
_LOOK_AGAIN: Final = 30.0
_NOBODY: Final = "nobody has decided; is valetkey's operator running, and does it serve this namespace?"


class Life:
    """One access; whoever begins it ends it, in the same event loop."""

    def __init__(
        self,
        ask: Ask,
        *,
        timeout: float = 60,
        wait_for_approval: bool = True,
        on_pending: Callable[[str], None] | None = None,
        account_directory: Path | None = None,
        state_directory: Path | str | None = None,
        place: files.Place | None = None,
    ) -> None:
        self._ask, self._timeout = ask, timeout
        self._wait_for_approval, self._on_pending = wait_for_approval, on_pending
        self._account_directory, self._state_directory, self._place = account_directory, state_directory, place
        self._tasks: list[asyncio.Task[None]] = []
        self._leftovers: asyncio.Task[None] | None = None
        self._following: Following | None = None
        self._versions: AsyncGenerator[Json | None, None] | None = None
        self._upkeep: Upkeep | None = None
        self._grant: Grant | None = None
        self._over = False
        self.open = False
        """Whether it has begun and nobody has ended it."""
        self.heard = True
        """Whether whoever has to has heard that it is over; known once it is ended."""
        self._awaited: str | None = None
        """For whom of the people it waits, or has waited."""
        self._because = ""
        """Why it is not there yet, as far as is known."""

    async def begin(self) -> Grant:
        """Asks and waits until the access is there; raises AccessError, and then what was asked is taken back."""
        self._pod = pod.find(self._account_directory)
        self._api = await door.find(self._pod)
        self._state = entries.state_directory(self._state_directory) / self._pod.uid
        self._entry = self._taken()
        try:
            grant = await self._in_time()
        except ApprovalPending as error:
            await (self.end("Cancelled") if error.over else _to_its_end(self._leave_waiting()))
            raise
        except BaseException as error:
            await self.end("Failed" if isinstance(error, NotOpened) else "Cancelled")
            raise
        self.open = True
        return grant

    async def end(self, outcome: str) -> None:
        """Takes everything away and says how the task ended, whatever happens meanwhile."""
        await _to_its_end(self._end(outcome))

    def _taken(self) -> Entry:
        try:
            return entries.take(self._state, self._ask.fingerprint)
        except OSError as error:
            raise _unusable(error) from error

    async def _in_time(self) -> Grant:
        try:
            async with asyncio.timeout(self._timeout) as clock:
                return await self._granted(clock)
        except TimeoutError:
            raise self._too_late() from None
        except ApiError as error:
            raise Refused(error.status, error.reason, error.message) from error
        except OSError as error:
            raise _unusable(error) from error

    async def _granted(self, clock: asyncio.Timeout) -> Grant:
        request, key = await asking.asked(self._api, self._pod, self._entry, self._ask, self._failed)
        if leftovers.first_look(self._state):
            self._leftovers = asyncio.create_task(leftovers.end_leftovers(self._api, self._state))
        name, uid = request["metadata"]["name"], request["metadata"]["uid"]
        self._following = Following(self._api, COLLECTION.format(self._pod.namespace), request)
        self._versions = versions = self._following.versions()
        async for version in versions:
            said = answer.read(version)
            if said.over is not None:
                self._over = True
                raise said.never_granted(name, self._awaited)
            self._wait_for(said, clock, name)
            if said.sealed is not None:
                break
        place = self._place or self._entry.volume()
        self._grant = Grant(pod=self._pod, name=name, uid=uid, files=place.path)
        left = self._entry.reference()
        box = Box(key, request_uid=uid, pod_uid=self._pod.uid, lowest=left.sequence if left is not None else 0)
        self._upkeep = Upkeep(self._api, self._pod, box, place, self._grant, self._remember)
        await self._upkeep.begin(said)
        self._tasks.append(asyncio.create_task(self._keep(self._upkeep, self._grant, versions)))
        if said.heartbeat is not None:
            self._tasks.append(asyncio.create_task(self._upkeep.beat(request, said.heartbeat)))
        return self._grant

    def _wait_for(self, said: answer.Answer, clock: asyncio.Timeout, name: str) -> None:
        """Nobody knows for how long people think, so the clock stands still meanwhile; raises ApprovalPending."""
        stands_still = clock.when() is None
        self._because = said.waits_because
        if said.awaiting is None:
            if stands_still:
                clock.reschedule(asyncio.get_running_loop().time() + self._timeout)
            return
        self._awaited = said.awaiting
        if not self._wait_for_approval:
            raise ApprovalPending(said.awaiting, request=name, over=False)
        if not stands_still:
            clock.reschedule(None)
            if self._on_pending is not None:
                self._on_pending(said.awaiting)

    def _remember(self, sequence: int) -> None:
        if (reference := self._entry.reference()) is not None:
            with suppress(OSError):
                self._entry.refer(reference._replace(sequence=sequence))

    async def _keep(self, upkeep: Upkeep, grant: Grant, versions: AsyncGenerator[Json | None, None]) -> None:
        assert self._following is not None
        while True:
            try:
                over = await upkeep.go_on(versions)
                break
            except Exception as error:
                # Whatever this was, the access lives on, and the next renewal must not be missed for it.
                _log.warning("%s is not followed for %.0f s: %r", grant.name, _LOOK_AGAIN, error)
                await asyncio.sleep(_LOOK_AGAIN)
                self._versions = versions = self._following.versions()
        self._over = True
        _log.info("%s has ended: %s: %s", grant.name, over.reason, over.message)
        grant.finish(over.reason, over.message)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _end(self, outcome: str) -> None:
        self.open = False
        await self._stop()
        if self._grant is not None:
            self._grant.finish("TaskReleased", "it was left")
        with suppress(OSError):
            self._entry.shred()
        reference = self._entry.reference()
        if reference is None or self._over:
            done = True
        else:
            seconds = _REPORT_FOR if reference.uid else _REPORT_UNANSWERED_FOR
            with suppress(OSError):  # whoever finds it unheard says how it ended
                self._entry.refer(reference._replace(outcome=outcome))
            done = await asking.report(self._api, reference, outcome, seconds=seconds)
        self.heard = done
        await self._close()
        if done:
            self._entry.remove()
        else:
            self._entry.release()

    async def _leave_waiting(self) -> None:
        """Leaves a request to be found by a later call for the same task."""
        await self._stop()
        if (reference := self._entry.reference()) is not None:
            self._entry.refer(reference._replace(kept=True))
        await self._close()
        self._entry.release()

    async def _stop(self) -> None:
        if self._upkeep is not None:
            self._upkeep.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._versions is not None:
            await self._versions.aclose()  # and with it the connection that it holds

    async def _close(self) -> None:
        if self._leftovers is not None:
            await asyncio.wait({self._leftovers}, timeout=_WAIT_FOR_LEFTOVERS)
            self._leftovers.cancel()
            await asyncio.gather(self._leftovers, return_exceptions=True)

    def _failed(self, why: str) -> None:
        self._because = why

    def _too_late(self) -> AccessError:
        if self._following is None:
            return Unreachable(self._because or f"{self._pod.server} is silent", self._timeout)
        trouble = self._upkeep.trouble if self._upkeep is not None else self._following.trouble
        return TimedOut(trouble or self._because or _NOBODY, self._timeout)


def _unusable(error: OSError) -> AccessError:
    return AccessError(f"the state directory cannot be used: {error}; set VALETKEY_STATE_DIRECTORY to another")


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Does something to its end, even where whoever waits for it is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
