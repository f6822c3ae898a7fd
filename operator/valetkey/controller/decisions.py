"""Decisions: the step that asks policy, and what keeps it from being asked; what it said is on record at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import orjson

from valetkey.controller import parents, status
from valetkey.controller.approvals import Approvals
from valetkey.controller.backends import Backends, about
from valetkey.controller.beginnings import MARGIN
from valetkey.controller.grant import ends
from valetkey.controller.ledgers import Ledgers
from valetkey.controller.pace import Agent
from valetkey.controller.queue import Key
from valetkey.controller.steps import Decide, Progress, learnt
from valetkey.controller.surroundings import Surroundings
from valetkey.controller.views import Views
from valetkey.errors import InvalidError, NotReadyError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_duration, whole_seconds
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting
from valetkey.policy.facts import Facts
from valetkey.policy.rehearsal import Rehearsal
from valetkey.reasons import Reason

SLOW: Final = timedelta(seconds=1)
AT_ONCE: Final = timedelta(milliseconds=50)
_REST_OF_A_GRANT: Final = 4
"""KiB of the log that follow a decision until all is over."""

_Told = tuple[Reason, str | None, str]
"""Reason, policy and message of the record of a decision."""


class Decisions:
    """Decides requests whose identity was verified."""

    def __init__(self, backends: Backends, surroundings: Surroundings, views: Views, ledgers: Ledgers) -> None:
        self._backends, self._surroundings, self._views, self._ledgers = backends, surroundings, views, ledgers
        self._approvals = Approvals(backends)

    async def decide(self, step: Decide, progress: Progress) -> Progress:
        """Asks policy; what it said is written down with all that it read, before anything follows from it."""
        request, secret, account = step.request, step.place.secret_name, step.identity.service_account
        self._backends.log.demand_room()
        self._refuse_more_than_a_days_log(request)
        key = Key.of(request.metadata)
        await parents.demand_known(self._backends, request.spec.parent)
        approvals = await self._approvals.heard(request)
        policies = self._surroundings.policies.of_namespace(key.namespace)
        covering = await self._approvals.heard_beside(request, policies, self._held_since())
        # The last thing that is waited for: whoever is granted from here on counts for whoever comes next.
        opened = await self._ledgers.opened(request, account, policies) if policies.needs_ledger else {}
        unreviewed = self._ledgers.unreviewed(request, account) if policies.needs_ledger else {}
        now = self._backends.clock()
        decision, facts, rehearsed = self._views.decide(
            key,
            request,
            step.identity,
            now,
            requester=progress.requester,
            approvals=approvals,
            covering=covering,
            opened=opened,
            unreviewed=unreviewed,
        )
        if secret is not None and not isinstance(decision, Waiting):  # what waits for people takes no Secret yet
            self._refuse_taken_secret(key, secret)
        if isinstance(decision, Approved):
            self._views.hold(key, decision, step.identity, secret)
            if decision.remembers or decision.review_within is not None:
                used = await self._ledgers.enter(request, account, decision, now)
                decision = replace(decision, review_by=None if used is None else used.review_by)
                if decision.remembers and self._backends.clock() - now > SLOW:
                    # Its time is that of the decision: a grant that is opened much later might be too near the next.
                    message = "how often was granted took long to be written down; it is decided again"
                    raise NotReadyError(Reason.POLICIES_NOT_READY, message, after=AT_ONCE)
        self._backends.metrics.decided(decision)
        decision_id = secrets.token_hex(8)
        told = _told(request, decision)
        if told is None:
            pass
        elif isinstance(decision, Denied) and self._backends.slowed(request):
            await self._backends.count_refusal(request, told[0], told[2])
        else:
            await self._write_down(request, facts, rehearsed, decision_id, told)
        return learnt(progress, decision=decision, decision_id=decision_id)

    def _held_since(self) -> datetime | None:
        """From when on who speaks is who they were: guards stood then, and the store has not been restored since."""
        guarded = self._surroundings.guards_in_force(self._backends.clock()).since
        restored = self._backends.cache.restored
        if guarded is None:
            return None
        return max(guarded + MARGIN, restored) if restored is not None else guarded + MARGIN

    async def _write_down(
        self, request: AccessRequest, facts: Facts, rehearsed: Iterable[Rehearsal], decision: str, told: _Told
    ) -> None:
        """Records a decision with all that it read."""
        reason, policy, message = told
        backends, audit = self._backends, tuple(rehearsed)
        read = {"asked": request.spec.to_api(), "facts": facts} | ({"audit": audit} if audit else {})
        kib = _REST_OF_A_GRANT + len(orjson.dumps(read)) // 1024
        backends.daily_log.spend(Agent.of(request), backends.clock(), kib)
        fields = about(request) | {"decision": decision, "policy": policy} | read
        await backends.log.write(reason, **fields, message=message)

    def _refuse_more_than_a_days_log(self, request: AccessRequest) -> None:
        agent = Agent.of(request)
        short = self._backends.daily_log.short_for(agent, self._backends.clock())
        if short > timedelta():
            again = format_duration(whole_seconds(short))
            raise InvalidError(
                Reason.LIMIT_REACHED,
                f"what ServiceAccount {agent.account} asks has filled as much of valetkey's log as one account may in "
                f"a day (limits.dailyLog); ask again in {again}",
            )

    def _refuse_taken_secret(self, key: Key, secret: str) -> None:
        there = self._views.holder(key, secret)
        if there is None:
            return
        now = self._backends.clock()
        if ends(self._views.of(there, Progress(), now), now):
            raise NotReadyError(
                Reason.PREVIOUS_GRANT_ENDING,
                f"Secret {secret} still holds the credential of {there.name}, which is being taken away; then it is "
                "this one's turn",
                after=AT_ONCE,
            )
        raise InvalidError(
            Reason.DELIVERY_CONFLICT,
            f"Secret {secret} holds the credential of {there.name}; "
            "end that task first, or mount another Secret and name it in spec.delivery.secret.name",
        )


def _whose(approved: Approved) -> str:
    """By whose word on another request."""
    return "".join(f", by the word of {one.username} on {one.request}" for one in approved.approvals if one.request)


def _told(request: AccessRequest, decision: Decision) -> _Told | None:
    """Reason, policy and message of the record of a decision; None where there is nothing new to write down."""
    match decision:
        case Approved(policy=policy, entry=entry, review_by=review_by):
            by = "" if review_by is None else f"; {status.to_be_reviewed(request, policy.name, review_by)}"
            return decision.reason, policy.name, f"entry {entry}{_whose(decision)}{by}"
        case Denied(denial=denial, policy=denied_by):
            return Reason(denial.reason), denied_by, denial.message
        case Waiting(policy=asks):
            message = status.of_waiting(request, decision)
            return None if status.says(request, message, "Approved") else (Reason.AWAITING_APPROVAL, asks, message)
        case Undecided():
            return None
