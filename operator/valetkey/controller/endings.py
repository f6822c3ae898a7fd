"""Endings: the steps that take a grant away; each may run again after a crash at any point, and none is given up."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final, Literal

from valetkey.audit import history
from valetkey.controller import status
from valetkey.controller.backends import Backends, about_grant, in_time
from valetkey.controller.deliveries import Deliveries
from valetkey.controller.queue import Key
from valetkey.controller.steps import End, LetGo, Progress, Remove, Revoke, learnt
from valetkey.errors import AccessError
from valetkey.kinds.base import REVOKE_FINALIZER
from valetkey.kinds.taskgrant import GrantEnd, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import ApiError
from valetkey.kube.concurrency import both
from valetkey.kube.pods import parse
from valetkey.reasons import Reason, place_of, word

_logger = logging.getLogger(__name__)

TRIES: Final = 8
"""After so many, some 6 s, a revocation is said to have failed; it is tried again for ever all the same."""
DISABLED_WITHIN: Final = timedelta(seconds=2)
"""How long disabling a grant may hold up the rest of its end."""
_IRREVERSIBLE: Final = frozenset({Reason.TASK_RELEASED, Reason.TTL_REACHED, Reason.POD_FINISHED})
"""What was read and nobody can undo, so whoever reads it after a crash ends the grant for it again.

A policy may be set back, a beat may come, a pod may get its label back, a request may only not have been read yet.
"""
_SEVERITIES: Final[dict[Reason, Literal["Normal", "Warning"]]] = {
    Reason.POLICY_CHANGED: "Warning",
    Reason.DELIVERY_FAILED: "Warning",
    Reason.ISSUE_FAILED: "Warning",
}
"""Of the Events about ends that nobody asked for."""


class Endings:
    """Carries grants from End to LetGo."""

    def __init__(self, backends: Backends, deliveries: Deliveries) -> None:
        self._backends = backends
        self._deliveries = deliveries
        self._failed: set[str] = set()
        """Uids of grants whose revocation was said to have failed, until they are let go."""
        self._disabled: set[str] = set()
        """Uids of grants whose credential authorizes nothing any more, until they are let go."""
        self._gave_way: set[str] = set()
        """Uids of grants that have let others go first, until they are let go."""

    async def end(self, step: End, progress: Progress) -> Progress:
        """Puts why on record and writes it, once, then deletes the grant; revocation is its finalizer."""
        grant = step.grant
        if grant.status.end is not None:
            return await self._delete(grant, progress)
        reason, message = await self._checked(step)
        end = GrantEnd(reason=reason, message=message[:2048], at=self._backends.clock())
        await self._write_down(reason, grant, message)
        written = self._write_end(step, end, progress)
        if step.reason not in _IRREVERSIBLE and not grant.metadata.terminating:
            return await written
        # Beside it, not after it: no credential works for as long as it takes to say everywhere why it does not.
        ended, _ = await both(written, self.disable(grant))
        return ended

    async def disable(self, grant: TaskGrant) -> None:
        """Tries to take away what a grant is authorized by, unless that is done; its revocation tries again."""
        uid, issuer = grant.metadata.uid, self._backends.issuer(grant.spec.order)
        if uid in self._disabled:
            return
        try:
            async with asyncio.timeout(DISABLED_WITHIN.total_seconds()):
                await issuer.disable(grant.spec.plan, grant.status.made)
        except (AccessError, TimeoutError) as error:
            why = str(error) or f"no answer within {DISABLED_WITHIN.total_seconds():.0f} s"
            _logger.info("%s: not disabled ahead of its revocation: %s", Key.of(grant.metadata), why)
        else:
            self._disabled.add(uid)

    def gives_way(self, grant: TaskGrant) -> bool:
        """Whether others are disabled first; once, for what cannot be disabled is revoked, account and all."""
        first = grant.metadata.uid not in self._gave_way
        self._gave_way.add(grant.metadata.uid)
        return first

    async def _write_end(self, step: End, end: GrantEnd, progress: Progress) -> Progress:
        grant, backends = step.grant, self._backends
        key = Key.of(grant.metadata)
        says = [(step.failure.reason, step.failure.message)] if step.failure else []
        shown = status.of_ending(grant, end, says, end.at)
        if key in backends.cache.vanished:
            backends.cache.vanished[key] = grant.model_copy(update={"status": shown})
            backends.metrics.ended(Reason(end.reason))
            return progress
        try:
            grant = await backends.write_grant(grant, {"status": shown.to_api()}, subresource="/status")
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise
            return await self._read_again(grant, progress)
        backends.metrics.ended(Reason(end.reason))
        return await self._delete(grant, progress)

    async def _delete(self, grant: TaskGrant, progress: Progress) -> Progress:
        if not grant.metadata.terminating:
            path = paths.item("TaskGrant", grant.metadata.namespace, grant.metadata.name)
            answer = await self._backends.api.delete(path, uid=grant.metadata.uid)
            if answer.get("kind") != "TaskGrant":
                return await self._read_again(grant, progress)
            self._backends.cache.grants.put(TaskGrant.model_validate(answer))
        return progress

    async def revoke(self, step: Revoke, progress: Progress) -> Progress:
        """Unmakes credential and delivery side by side; both run to their end, then the first failure is raised."""
        grant, backends = step.grant, self._backends
        await self.disable(grant)
        unmade = backends.issuer(grant.spec.order).revoke(grant.spec.plan, grant.status.made)
        proof, _ = await both(in_time(unmade, Reason.REVOCATION_PENDING), self._deliveries.take_away(grant))
        return learnt(progress, proof=proof)

    async def let_go(self, step: LetGo, progress: Progress) -> Progress:
        """Says on the request that it is over, then lets the grant's object go."""
        grant, backends = step.grant, self._backends
        key = Key.of(grant.metadata)
        assert grant.status.end is not None
        reason, message = word(grant.status.end.reason) or Reason.GRANT_DELETED, grant.status.end.message
        took = (backends.clock() - grant.status.end.at).total_seconds()
        await self._write_down(history.REVOKED, grant, f"{reason}; proof: {step.proof}", end=reason, took=took)
        for known in (self._failed, self._disabled, self._gave_way):
            known.discard(grant.metadata.uid)
        request = backends.request_of(grant)
        if request is not None:
            await backends.write_request_status(request, status.of_ended(request, reason, message, backends.clock()))
        if key in backends.cache.vanished:
            del backends.cache.vanished[key]
        else:
            left = [name for name in grant.metadata.finalizers if name != REVOKE_FINALIZER]
            backends.cache.let_go.add(grant.metadata.uid)
            try:
                await backends.write_grant(grant, {"metadata": {"finalizers": left}})
            except ApiError as error:
                if error.conflict:
                    return await self._read_again(grant, progress)
                if not error.not_found:
                    raise
            finally:
                backends.cache.let_go.discard(grant.metadata.uid)
            backends.cache.grants.remove(key, grant.metadata.uid)
        backends.metrics.revoked(reason, step.proof, took)
        about = (
            request.metadata
            if request is not None
            else grant.metadata.model_copy(update={"uid": grant.spec.request.uid, "resource_version": ""})
        )
        backends.events.post("AccessRequest", about, reason, message, severity=_SEVERITIES.get(reason, "Normal"))
        return progress

    async def show_failure(self, grant: TaskGrant, reason: Reason, message: str, *, tries: int) -> None:
        """Shows on a grant why it is held up, once for each reason; and on its request that the end has begun."""
        backends, now = self._backends, self._backends.clock()
        key = Key.of(grant.metadata)
        request = backends.request_of(grant)
        if grant.status.end is not None:
            reason = await self._pending_or_failed(grant, message, tries)
        elif place_of(reason)[0] != "TaskGrant":  # what no request may be decided by holds up an issue too
            reason, message = Reason.ISSUE_PENDING, f"{reason}: {message}"
        if not any((c.reason, c.message) == (reason, message) for c in grant.status.conditions):
            shown = status.of_held(grant, [(reason, message)], now)
            if key in backends.cache.vanished:
                backends.cache.vanished[key] = grant.model_copy(update={"status": shown})
            else:
                await backends.write_grant(grant, {"status": shown.to_api()}, subresource="/status")
        if request is not None and grant.status.end is not None and not status.shows_end(request):
            await backends.write_request_status(request, status.of_ending_request(request, now))

    async def remove(self, step: Remove, progress: Progress) -> Progress:
        """Deletes a request whose history is over; the log has it."""
        await self._backends.remove_request(step.request)
        return progress

    async def _checked(self, step: End) -> tuple[Reason, str]:
        """Whether a request went by itself or with its pod, of which the pod's own watch may not have told yet."""
        if step.reason is not Reason.REQUEST_DELETED:
            return step.reason, step.message
        subject = step.grant.spec.order.subject
        try:
            pod = parse(await self._backends.api.get(paths.item("Pod", subject.namespace, subject.pod_name)))
        except ApiError as error:
            if not error.not_found:  # no end waits for the wording of its reason
                return step.reason, step.message
        else:
            if pod.uid == subject.pod_uid and not pod.terminating:
                return step.reason, step.message
        return Reason.POD_DELETED, f"pod {subject.pod_name} was deleted, and its AccessRequest with it"

    async def _read_again(self, grant: TaskGrant, progress: Progress) -> Progress:
        """Somebody changed or removed the grant since it was read."""
        cache, metadata = self._backends.cache, grant.metadata
        key = Key.of(metadata)
        try:
            body = await self._backends.api.get(paths.item("TaskGrant", metadata.namespace, metadata.name))
        except ApiError as error:
            if not error.not_found:
                raise
            found = None
        else:
            found = TaskGrant.model_validate(body)
        if found is not None and found.metadata.uid == metadata.uid:
            cache.grants.put(found)
        else:
            known = cache.grants.remove(key, metadata.uid)
            if progress.proof is None:
                cache.vanished[key] = known or grant
        return progress

    async def _pending_or_failed(self, grant: TaskGrant, message: str, tries: int) -> Reason:
        """What is said of a revocation that is held up; that it has failed, in the log and in an Event too, once."""
        failed = Reason.REVOCATION_FAILED
        if any(c.reason == failed for c in grant.status.conditions):
            return failed
        if tries < TRIES:
            return Reason.REVOCATION_PENDING
        if grant.metadata.uid in self._failed:  # but its condition could not be written
            return failed
        self._failed.add(grant.metadata.uid)
        await self._write_down(failed, grant, message)
        self._backends.events.post("TaskGrant", grant.metadata, failed, message, severity="Warning")
        return failed

    async def _write_down(self, reason: str, grant: TaskGrant, message: str, **more: Any) -> None:
        await self._backends.write_regardless(reason, **(about_grant(grant) | more), message=message)
