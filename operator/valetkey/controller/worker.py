"""Workers: take a key, ask next_step, do what it says, until it says to wait."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import assert_never

from valetkey.controller import heartbeats, parents
from valetkey.controller.approvals import Approvals
from valetkey.controller.backends import Backends
from valetkey.controller.beginnings import Beginnings
from valetkey.controller.decisions import Decisions
from valetkey.controller.deliveries import Deliveries
from valetkey.controller.endings import Endings
from valetkey.controller.grant import next_step
from valetkey.controller.pace import Agent
from valetkey.controller.queue import Key, Queue
from valetkey.controller.refusals import Refusals
from valetkey.controller.steps import (
    Await,
    Decide,
    Deliver,
    Drop,
    End,
    Forget,
    Hold,
    Identify,
    Issue,
    LetGo,
    LookUp,
    Open,
    Progress,
    Refuse,
    Remove,
    Revoke,
    Step,
    Times,
    Wait,
    learnt,
)
from valetkey.controller.views import Views
from valetkey.errors import AccessError, InvalidError, NotReadyError, UnavailableError
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube.api import ApiError, RewoundError, unavailable
from valetkey.policy.decide import Undecided
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)


class Worker:
    """Carries one key at a time as far as it goes."""

    def __init__(
        self,
        *,
        queue: Queue,
        views: Views,
        backends: Backends,
        decisions: Decisions,
        beginnings: Beginnings,
        deliveries: Deliveries,
        endings: Endings,
        times: Times,
    ) -> None:
        self._queue = queue
        self._views = views
        self._backends = backends
        self._decisions = decisions
        self._beginnings = beginnings
        self._deliveries = deliveries
        self._endings = endings
        self._refusals = Refusals(backends)
        self._approvals = Approvals(backends)
        self._times = times
        self._away = False
        """Whether the API server did not answer lately."""

    def recovered(self) -> None:
        """The API server answers again: what waits for it need not wait any longer."""
        if self._away:
            self._away = False
            self._queue.hurry()

    async def work(self, *, endings_alone: bool = False) -> None:
        """Takes keys for ever, or those of grants that end; raises RewoundError: then everything is to be read anew."""
        while True:
            # What needs nothing waits for nothing: ten thousand such keys would keep the lease from being renewed.
            await asyncio.sleep(0)
            key = await self._queue.get(endings_alone=endings_alone)
            try:
                await self.run(key, endings_alone=endings_alone)
            except RewoundError:
                raise
            except Exception:
                # A bug must not stop the others, nor make this key's revocation be forgotten.
                _logger.exception("%s: unexpected", key)
                self._backends.metrics.failed(None)
                cache = self._backends.cache
                self._queue.retry(key, ending=key in cache.grants or key in cache.vanished)
            finally:
                self._views.release(key)
                self._queue.done(key)

    async def run(self, key: Key, *, endings_alone: bool = False) -> None:
        """Runs the steps of one key until there is nothing to do now; with `endings_alone`, none of a beginning."""
        progress = Progress()
        while True:
            now = self._backends.clock()
            view = self._views.of(key, progress, now)
            step = next_step(view, now, self._times)
            ending = view.grant is not None
            try:
                match step:
                    case Wait(until=until):
                        self._queue.succeeded(key)
                        return self._queue.add_at(key, until, ending=ending)
                    case Forget():
                        self._backends.pace.forget(key)
                        return self._queue.forget(key)
                    case Identify(request=request) | Refuse(request=request) if progress == Progress() and (
                        turn := self._backends.pace.turn(key, Agent.of(request), now)
                    ):
                        return self._queue.add_at(key, turn, ending=False)
                    case Await(until=until):
                        await self._refusals.ask_people(step, progress)
                        self._queue.succeeded(key)
                        return self._queue.add_at(key, until, ending=False)
                    case Hold(undecided=undecided):
                        return await self._hold(key, undecided, view.grant)
                    case Identify() | Decide() | Open() | Issue() | Deliver() if endings_alone:
                        # A backend that hangs would hold every worker there is, and with them all revocations.
                        return self._queue.add(key, ending=False)
                    case Revoke(grant=grant) if self._queue.more_end and self._endings.gives_way(grant):
                        # Many end at once: all are disabled before any is cleared up and proved.
                        await self._endings.disable(grant)
                        return self._queue.add(key, ending=True)
                    case _:
                        progress = await self._do(step, progress)
                        if isinstance(step, End):
                            self._queue.succeeded(key)  # the tries of the revocation are counted by themselves
            except InvalidError as error:
                self._backends.metrics.failed(error.reason)
                progress = learnt(progress, failure=error)
            except (AccessError, ApiError) as error:
                return await self._put_off(key, error, view.grant)

    async def _do(self, step: Step, progress: Progress) -> Progress:
        match step:
            case Identify():
                return await self._beginnings.identify(step, progress)
            case Decide():
                return await self._decisions.decide(step, progress)
            case Open():
                return await self._beginnings.open(step, progress)
            case LookUp():
                progress = await heartbeats.look_up(self._backends, step, progress)
                return await parents.look_up(self._backends, step, await self._approvals.look_up(step, progress))
            case Issue():
                return await self._beginnings.issue(step, progress)
            case Deliver():
                return await self._deliveries.deliver(step, progress)
            case Refuse():
                return await self._refusals.refuse(step, progress)
            case Drop():
                return await self._refusals.drop(step, progress)
            case End():
                return await self._endings.end(step, progress)
            case Revoke():
                return await self._endings.revoke(step, progress)
            case LetGo():
                return await self._endings.let_go(step, progress)
            case Remove():
                return await self._endings.remove(step, progress)
            case Wait() | Await() | Hold() | Forget():
                raise AssertionError(step)
            case _:
                assert_never(step)

    async def _hold(self, key: Key, undecided: Undecided, grant: TaskGrant | None) -> None:
        self._backends.metrics.failed(undecided.reason)
        await self._show(key, undecided.reason, undecided.message)
        self._queue.retry(key, ending=grant is not None, by=_time_is_up(grant))

    async def _put_off(self, key: Key, error: AccessError | ApiError, grant: TaskGrant | None) -> None:
        told = unavailable(error, Reason.BACKEND_UNAVAILABLE) if isinstance(error, ApiError) else error
        cause = error if isinstance(error, ApiError) else error.__cause__
        self._away |= isinstance(cause, ApiError) and cause.away
        if not (isinstance(error, ApiError) and error.conflict):  # that is another writer, and read again at once
            self._backends.metrics.failed(told.reason)
            await self._show(key, told.reason, told.message)
        level = logging.WARNING if grant is not None else logging.INFO
        _logger.log(level, "%s: %s%s", key, error, f" ({error.__cause__})" if error.__cause__ else "")
        after = told.after if isinstance(told, NotReadyError | UnavailableError) else None
        self._queue.retry(key, after, ending=grant is not None, by=_time_is_up(grant))

    async def _show(self, key: Key, reason: Reason, message: str) -> None:
        cache = self._backends.cache
        request, grant = cache.requests.get(key), cache.vanished.get(key) or cache.grants.get(key)
        try:
            if grant is not None:
                tries = self._queue.failures(key) + 1
                await self._endings.show_failure(grant, reason, message, tries=tries)
            elif request is not None and request.finished is None:
                await self._refusals.wait(request, reason, message)
        except ApiError as error:
            _logger.info("%s: status not shown: %s", key, error)


def _time_is_up(grant: TaskGrant | None) -> datetime | None:
    """When a grant ends at the latest, though its next credential could not be made."""
    return None if grant is None or grant.status.end is not None else grant.spec.order.not_after
