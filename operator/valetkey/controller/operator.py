"""The operator: its parts put together.

Every replica watches; the one that leads writes. What a replica knows is the same either way, so that a new
leader goes on from where it looks, not from a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from valetkey.audit import history
from valetkey.audit.events import Events
from valetkey.audit.record import Log
from valetkey.controller import listener
from valetkey.controller.backends import Backends
from valetkey.controller.beginnings import Beginnings
from valetkey.controller.cache import Cache
from valetkey.controller.decisions import Decisions
from valetkey.controller.deliveries import Deliveries
from valetkey.controller.endings import Endings
from valetkey.controller.health import Health
from valetkey.controller.intake import Intake
from valetkey.controller.ledgers import Ledgers
from valetkey.controller.metrics import Metrics, Now
from valetkey.controller.notices import Notices
from valetkey.controller.pace import daily
from valetkey.controller.policies import PolicyStatuses
from valetkey.controller.queue import Key, Queue
from valetkey.controller.relist import Relist
from valetkey.controller.restored import Restored
from valetkey.controller.reviews import Reviews
from valetkey.controller.steps import Times
from valetkey.controller.surroundings import Surroundings
from valetkey.controller.sweep import Sweep
from valetkey.controller.takeover import look_at_all
from valetkey.controller.views import Views
from valetkey.controller.watched import Watched, note_forced
from valetkey.controller.worker import Worker
from valetkey.delivery.secret import SecretDelivery
from valetkey.errors import UnavailableError
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kube import crds, guards
from valetkey.kube.api import Api, RewoundError
from valetkey.kube.clock import Clock
from valetkey.kube.leader import Leadership
from valetkey.settings import Settings

_logger = logging.getLogger(__name__)


class Operator:
    """Holds the parts; `start` fills them, and the workers run once this replica leads.

    `api` writes only while `leadership` is held.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        leadership: Leadership,
        clock: Clock,
        *,
        instance: str,
        server: str,
        certificate_authority: str,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._leadership = leadership
        self._leads = False
        self._health = Health(settings.run_directory)
        self._queue = Queue(clock=clock, share=max(1, settings.workers // 4))
        clock.corrected = self._surroundings_changed
        self._cache = Cache(self._wake, clock)
        self._surroundings = Surroundings(
            api,
            expected=guards.load(settings.guards),
            schemas=crds.load(),
            cluster_roles=settings.cluster_roles,
            changed=self._surroundings_changed,
            clock=clock,
            answered=self._answered,
        )
        self._log = Log(
            settings.log_directory, writer=instance, cluster=settings.cluster, clock=clock, keep=settings.log_keep
        )
        intake = Intake(
            self._cache, self._wake, leads=lambda: self._leads, forced=lambda body: note_forced(self._log, body)
        )
        self.watched = Watched(intake, self._surroundings, self._log, leads=lambda: self._leads)
        self._relist = Relist(api, self._cache, intake, self._surroundings, settings.agent_namespaces)
        self._events = Events(api, instance=instance, clock=clock)
        self._statuses = PolicyStatuses(api, served=settings.agent_namespaces, clock=clock)
        self._metrics = Metrics()
        ledgers = Ledgers(api, namespace=settings.namespace, clock=clock, served=settings.agent_namespaces)
        self._metrics.registry.register(
            Now(
                cache=self._cache,
                queue=self._queue,
                surroundings=self._surroundings,
                log=self._log,
                ledgers=ledgers,
                leads=lambda: leadership.held,
                clock=clock,
            )
        )
        views = Views(
            self._cache,
            self._surroundings,
            cluster=settings.cluster,
            limit_active=settings.limits_active,
            limit_requests=settings.limits_requests,
        )
        issuer = KubernetesIssuer(
            api,
            namespace=settings.grants_namespace,
            targets=settings.targets,
            audience=settings.audience,
            server=settings.server or server,
            certificate_authority=certificate_authority,
            clock=clock,
        )
        webhook = settings.approvals_webhook
        self._notices = Notices(webhook, cluster=settings.cluster, clock=clock) if webhook else None
        notices = self._notices
        backends = Backends(
            api=api,
            cache=self._cache,
            issuers={issuer.name: issuer},
            delivery=SecretDelivery(api),
            log=self._log,
            events=self._events,
            metrics=self._metrics,
            clock=clock,
            daily_log=daily(settings.limits_daily_log << 10),
            tell_people=notices.post if notices else lambda request, waiting: None,
            tell_reviewers=notices.post_used if notices else lambda request, grant: None,
        )
        self._restored = Restored(backends, leadership, settings.log_directory, self._surroundings_changed)
        self._reviews = Reviews(backends, ledgers, namespaces=lambda: self._surroundings.namespaces)
        deliveries = Deliveries(backends)
        self._sweep = Sweep(backends, every=settings.sweep_every)
        self._worker = Worker(
            queue=self._queue,
            views=views,
            backends=backends,
            decisions=Decisions(backends, self._surroundings, views, ledgers),
            beginnings=Beginnings(backends, self._surroundings, views),
            deliveries=deliveries,
            endings=Endings(backends, deliveries),
            times=Times(
                pending_ttl=settings.pending_ttl,
                history_ttl=settings.history_ttl,
                renew_after=settings.renew_after,
            ),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, died: Callable[[], None]) -> None:
        """Reads everything, however long the API server is away, then serves.

        `died` is called where a part stops by itself: half an operator is none, and a fresh one is soon there.
        """
        self._run(died, "health", self._health.keep_showing())
        self._run(died, "log", self._health.keep_trying(self._log.check))
        if self._settings.metrics_port:
            served = self._settings.metrics_host, self._settings.metrics_port
            # Whatever becomes of it, revocation goes on.
            self._run(lambda: None, "metrics", listener.serve(self._metrics.registry, *served))
        await self._relist.read_all()
        self._health.answered()
        await self._restored.look()
        await self._log.drop_old()
        self._run(died, "surroundings", self._surroundings.keep_fresh())
        self._run(died, "relist", self._relist.keep_looking())
        self._run(died, "leadership", self._lead(died))
        _logger.info("watching %s", ", ".join(self._settings.agent_namespaces))

    async def stop(self) -> None:
        """Stops serving and lets another replica lead; what is half done is done again by whoever leads next."""
        self._health.leave()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._log.close)
            stack.push_async_callback(self._leadership.release)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answered(self) -> None:
        self._health.answered()
        self._worker.recovered()

    async def _lead(self, died: Callable[[], None]) -> None:
        """Waits to lead, and works for as long as it does; whatever ends that, the process ends with it."""
        await self._leadership.acquire()
        async with asyncio.TaskGroup() as leading:
            leading.create_task(self._leadership.keep(), name="renewals")
            await self._begin_to_lead(died)

    async def _begin_to_lead(self, died: Callable[[], None]) -> None:
        self._leads = True
        try:
            await self._log.write("LeaderElected", message=self._leadership.identity)
        except UnavailableError as error:
            _logger.error("LeaderElected: not in the log: %s", error.message)  # revocation needs a leader, log or not
        await self._restored.look()
        for number in range(self._settings.workers):
            kept_free = number < self._settings.workers // 4
            self._run(died, f"worker-{number}", self._worker.work(endings_alone=kept_free))
        self._run(died, "events", self._events.run())
        if self._notices is not None:
            self._run(lambda: None, "notices", self._notices.run())
        self._run(died, "policy-statuses", self._statuses.run())
        self._run(died, "reviews", self._reviews.run())
        self._run(died, "sweep", self._sweep.keep_sweeping())
        self._statuses.show(self._surroundings.compiled(), self._surroundings.namespaces)
        _logger.info("leading as %s", self._leadership.identity)
        await look_at_all(self._cache, self._queue, self._clock())

    def _run(self, died: Callable[[], None], name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda task: None if task.cancelled() else _give_up(task, died, self._log))
        self._tasks.append(task)

    def _wake(self, key: Key) -> None:
        if self._leads:
            self._queue.add(key, ending=key in self._cache.grants or key in self._cache.vanished)

    def _surroundings_changed(self) -> None:
        if not self._leads:
            return
        self._statuses.show(self._surroundings.compiled(), self._surroundings.namespaces)
        for key in self._cache.grants:
            self._queue.add(key, ending=True)
        for key, note in self._cache.requests.notes():
            if not note.finished:
                self._queue.add(key, ending=False)


def _give_up(task: asyncio.Task[None], died: Callable[[], None], log: Log) -> None:
    if isinstance(task.exception(), RewoundError):
        log.note(history.RESTORED, message=str(task.exception()))
    _logger.critical("%s stopped by itself", task.get_name(), exc_info=task.exception())
    died()
