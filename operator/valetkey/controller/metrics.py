"""Metrics: what happens is counted where it happens; what is so now is read off the parts at each scrape.

Labels are words of fixed vocabularies: reasons, outcomes, lanes. Nothing that an agent chooses is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from valetkey.audit.record import Log
from valetkey.controller.cache import Cache, of_grant
from valetkey.controller.ledgers import Ledgers
from valetkey.controller.queue import Queue
from valetkey.controller.surroundings import Surroundings
from valetkey.policy.decide import Approved, Decision, Denied, Waiting
from valetkey.reasons import CONDITIONS, Reason, Status

UNEXPECTED: Final = "Unexpected"
"""Stands where a reason would, for a failure that nobody foresaw: a bug."""
_ISSUE: Final = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_REVOCATION: Final = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_OUTCOMES: Final[dict[Status, str]] = {"True": "Approved", "False": "Denied", "Unknown": "Undecided"}
_NEVER_GRANTED: Final = {Reason.REQUEST_INVALID, Reason.REQUEST_DENIED, Reason.REQUEST_EXPIRED}

# They are gauges beside each counter that tell when it was made: nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What happens; `registry` has it for whoever shows it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._issues = Histogram(
            "valetkey_issue_duration_seconds",
            "From a request's creation to its credential in the pod's Secret; renewals are not counted.",
            buckets=_ISSUE,
            registry=self.registry,
        )
        self._revocations = Histogram(
            "valetkey_revocation_duration_seconds",
            "From the writing of a grant's end to the proof that its credential is gone.",
            ("reason", "proof"),
            buckets=_REVOCATION,
            registry=self.registry,
        )
        self._decisions = Counter(
            "valetkey_decisions",
            "What policy said to new requests; one that cannot be decided is asked again.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self._failures = Counter(
            "valetkey_failures",
            "Steps that could not be done, for now or for good.",
            ("reason",),
            registry=self.registry,
        )
        self._ends = Counter(
            "valetkey_grants_ended", "Grants whose end was written.", ("reason",), registry=self.registry
        )
        self._drops = Counter(
            "valetkey_requests_dropped",
            "Requests deleted unread, for their agent has too many.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self._begin_at_zero()

    def issued(self, seconds: float) -> None:
        """A request has its first credential, so long after its creation."""
        self._issues.observe(seconds)

    def decided(self, decision: Decision) -> None:
        """Policy was asked about a new request."""
        match decision:
            case Approved():
                self._decisions.labels("Approved", decision.reason).inc()
            case Denied(denial=denial):
                self._decisions.labels("Denied", Reason(denial.reason)).inc()
            case Waiting():
                self._decisions.labels("Pending", Reason.AWAITING_APPROVAL).inc()
            case _:
                self._decisions.labels("Undecided", decision.reason).inc()

    def failed(self, reason: Reason | None) -> None:
        """A step could not be done; without a reason, it was a bug."""
        self._failures.labels(reason or UNEXPECTED).inc()

    def dropped(self) -> None:
        """A request was deleted unread."""
        self._drops.inc()

    def ended(self, reason: Reason) -> None:
        """A grant's end was written."""
        self._ends.labels(reason).inc()

    def revoked(self, reason: Reason, proof: str, seconds: float) -> None:
        """A grant's credential is proved gone, so long after its end was written."""
        self._revocations.labels(reason, proof).observe(seconds)

    def _begin_at_zero(self) -> None:
        """Shows what is to be alerted on before it first happens: from nothing to one is no increase."""
        for status, outcome in _OUTCOMES.items():
            for reason in CONDITIONS["AccessRequest", "Approved"][status]:
                self._decisions.labels("Pending" if reason is Reason.AWAITING_APPROVAL else outcome, reason)
        for by_status in CONDITIONS.values():
            for reason in by_status["Unknown"] - {Reason.AWAITING_APPROVAL}:
                self._failures.labels(reason)
        self._failures.labels(UNEXPECTED)
        for reason in CONDITIONS["AccessRequest", "Finished"]["True"] - _NEVER_GRANTED:
            self._ends.labels(reason)


class Now:
    """What is so at the moment of a scrape; looks at each grant once."""

    def __init__(
        self,
        *,
        cache: Cache,
        queue: Queue,
        surroundings: Surroundings,
        log: Log,
        ledgers: Ledgers,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._surroundings = surroundings
        self._log = log
        self._ledgers = ledgers
        self._leads = leads
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Reads it all, as prometheus_client's registry asks for it."""
        now = self._clock()
        yield from self._grants(now)
        yield from self._lanes()
        yield self._emergencies(now)
        guarded = self._surroundings.guards_in_force(now).since is not None
        yield _gauge("guards_in_force", "Whether all guards are in force, as last read.", guarded)
        fresh = self._surroundings.policies_fresh(now)
        yield _gauge("policies_fresh", "Whether the policies were read within the last seconds.", fresh)
        yield _gauge("leader", "Whether this replica leads.", self._leads())
        yield _gauge(
            "log_nearly_full", "Whether what is left of the log's volume is kept for endings.", self._log.nearly_full
        )
        yield CounterMetricFamily("valetkey_log_records", "Records that are on disk.", self._log.written)
        yield CounterMetricFamily("valetkey_log_write_failures", "Records that are not.", self._log.unwritten)

    def _grants(self, now: datetime) -> Iterator[Metric]:
        live = ending = failed = 0
        first = now
        notes = (note for _, note in self._cache.grants.notes())
        for note in (*notes, *map(of_grant, self._cache.vanished.values())):
            live += not note.ending
            ending += note.ending
            failed += note.ending and note.failed
            first = min(first, note.due)
        states = GaugeMetricFamily(
            "valetkey_grants", "TaskGrants that are there: their credentials may be alive.", labels=("state",)
        )
        states.add_metric(("Live",), live)
        states.add_metric(("Ending",), ending)
        yield states
        yield _gauge("revocations_failed", "Grants whose Revoked condition says RevocationFailed.", failed)
        yield _gauge(
            "revocation_overdue_seconds",
            "How long the grant that should have gone first has been there since; 0 where there is none.",
            (now - first).total_seconds(),
        )

    def _emergencies(self, now: datetime) -> Metric:
        uses = [use for _, use in self._ledgers.emergencies()]
        overdue = sum(use.review_by <= now for use in uses)
        shown = GaugeMetricFamily(
            "valetkey_break_glass_unreviewed",
            "Grants of policies with breakGlass that nobody has reviewed, as the leader knows them.",
            labels=("state",),
        )
        shown.add_metric(("Due",), len(uses) - overdue)
        shown.add_metric(("Overdue",), overdue)
        return shown

    def _lanes(self) -> Iterator[Metric]:
        keys = GaugeMetricFamily("valetkey_queue_keys", "Keys that wait for a worker.", labels=("lane",))
        oldest = GaugeMetricFamily(
            "valetkey_queue_oldest_seconds", "How long the first of them has waited.", labels=("lane",)
        )
        for lane, ending in (("endings", True), ("beginnings", False)):
            waiting = self._queue.waiting(ending=ending)
            keys.add_metric((lane,), waiting.keys)
            oldest.add_metric((lane,), waiting.seconds)
        yield keys
        yield oldest


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"valetkey_{name}", says, value)
