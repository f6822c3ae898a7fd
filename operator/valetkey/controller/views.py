"""Views: everything that next_step looks at for one key, put together from what was last read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from valetkey.controller import coverage, heartbeats, parents
from valetkey.controller.cache import Cache
from valetkey.controller.parents import Standing
from valetkey.controller.queue import Key
from valetkey.controller.steps import Progress, View
from valetkey.controller.surroundings import Surroundings
from valetkey.identity import of_verified, requester_of
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest, Denial
from valetkey.kinds.base import Metadata, format_duration
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import ApprovalReference, Order, TaskGrant
from valetkey.policy.approvals import statement
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, decide
from valetkey.policy.facts import Facts, Statement, TaskWord, Unreviewed
from valetkey.policy.rehearsal import Rehearsal, rehearse
from valetkey.reasons import Reason

_STALE: Final = Undecided(Reason.POLICIES_STALE, "the policies could not be read lately; it is tried again")


@dataclass(frozen=True, slots=True)
class _Opening:
    """A request that was approved and has no grant yet."""

    policy: str
    namespace: str
    service_account: str
    secret: str | None


class Views:
    """Puts views together, and asks policy about them."""

    def __init__(
        self, cache: Cache, surroundings: Surroundings, *, cluster: str, limit_active: int, limit_requests: int
    ) -> None:
        self._cache = cache
        self._surroundings = surroundings
        self._cluster = cluster
        self._limit_active, self._limit_requests = limit_active, limit_requests
        self._opening: dict[Key, _Opening] = {}

    def of(self, key: Key, progress: Progress, now: datetime) -> View:
        """One key as it was last read."""
        request = self._cache.requests.get(key)
        vanished = self._cache.vanished.get(key)
        grant = vanished or self._cache.grants.get(key)
        if grant is None:
            if request is None:
                return View(request=None, grant=None, progress=progress)
            crowded = self._cache.requests.beside(request) > self._limit_requests
            over = self._over(request.metadata.uid, request.metadata)
            longest = self._surroundings.policies.longest_wait
            kept = coverage.kept_until(self._cache, request, self._surroundings.policies) if request.finished else None
            return View(
                request=request,
                grant=None,
                crowded=crowded,
                over=over,
                longest_wait=longest,
                kept_until=kept,
                progress=progress,
            )
        subject, secret = grant.spec.order.subject, grant.spec.delivery.secret_name
        pod = self._cache.pods.get(key.namespace, subject.pod_name)
        same = pod is not None and pod.uid == subject.pod_uid
        live = not grant.metadata.terminating and vanished is None and request is not None and same
        taken_back, unknown = self._approvals(grant)
        parent = parents.standing(self._cache, grant.spec.order.parent)
        gone = progress.parent_gone or parent is Standing.GONE
        return View(
            request=request,
            grant=grant,
            taken_back=taken_back,
            unknown=unknown,
            over=self._over(grant.spec.request.uid, grant.metadata),
            vanished=vanished is not None,
            pod=pod,
            sharers=self.sharers(key.namespace, secret, subject.pod_uid),
            denied=self._denied(request, grant, progress) if live and request else None,
            unheard=self._unheard(request, grant, progress) if live and request else (),
            beat_due=heartbeats.due(self._cache, self._surroundings, grant, now) if live else None,
            parent_gone=gone,
            parent_unknown=parent is Standing.UNKNOWN,
            verdict=self._verdict(request, of_verified(pod), grant, now, progress)
            if live and request and pod and not gone and parent is Standing.LIVE
            else None,
            progress=progress,
        )

    def sharers(self, namespace: str, secret: str | None, pod_uid: str) -> tuple[str, ...]:
        """Other pods that mount a Secret."""
        if secret is None:
            return ()
        return tuple(pod.name for pod in self._cache.pods.mounting(namespace, secret) if pod.uid != pod_uid)

    def decide(
        self,
        key: Key,
        request: AccessRequest,
        identity: Identity,
        now: datetime,
        *,
        requester: Identity | None,
        approvals: tuple[Statement, ...],
        covering: tuple[TaskWord, ...],
        opened: Mapping[str, tuple[datetime, ...]],
        unreviewed: Mapping[str, tuple[Unreviewed, ...]],
    ) -> tuple[Decision, Facts, tuple[Rehearsal, ...]]:
        """Asks policy about a new request, with what people have said on it and what was granted lately."""
        active = self._active(key, identity)
        facts = self._facts(
            request,
            identity,
            now,
            approvals,
            requester=requester,
            covering=covering,
            active=active,
            opened=opened,
            unreviewed=unreviewed,
            live=False,
        )
        if not self._surroundings.policies_fresh(now):
            return _STALE, facts, ()
        policies = self._surroundings.policies
        decision = decide(request.spec, policies, facts)
        return decision, facts, rehearse(request.spec, policies, facts, decision)

    def hold(self, key: Key, approved: Approved, identity: Identity, secret: str | None) -> None:
        """Holds the Secret and the place under limits of a request that was approved, until `release`."""
        self._opening[key] = _Opening(approved.policy.name, identity.namespace, identity.service_account, secret)

    def release(self, key: Key) -> None:
        """Gives back what an approval held: the grant itself counts now, or there is none."""
        self._opening.pop(key, None)

    def holder(self, key: Key, secret: str) -> Key | None:
        """Another request whose credential is in a Secret, or is about to be."""
        gone = (there for there, grant in self._cache.vanished.items() if grant.spec.delivery.secret_name == secret)
        soon = (there for there, opening in self._opening.items() if opening.secret == secret)
        held = (*self._cache.grants.of_secret(key.namespace, secret), *gone, *soon)
        return next((there for there in held if there != key and there.namespace == key.namespace), None)

    def _approvals(self, grant: TaskGrant) -> tuple[ApprovalReference | None, tuple[ApprovalReference, ...]]:
        """Of the words that a grant rests on, one that is gone, and those of which that is not known."""
        approvals, namespace = self._cache.approvals, grant.metadata.namespace
        gone: ApprovalReference | None = None
        unknown = []
        for one in grant.spec.order.approvals:
            note = approvals.note(Key(namespace, one.name))
            if approvals.known_gone(one.uid) or coverage.goes(self._cache, namespace, one):
                gone = one
            elif note is None or note.uid != one.uid or coverage.unread(self._cache, namespace, one):
                unknown.append(one)
        return gone, tuple(unknown)

    def _unheard(self, request: AccessRequest, grant: TaskGrant, progress: Progress) -> tuple[AccessApproval, ...]:
        about = self._cache.approvals.about(Key.of(grant.metadata), grant.spec.request.uid)
        own = (one for one in about if one.spec.verdict == "Deny")
        beside = coverage.denials_beside(self._cache, grant, request)
        return tuple(one for one in (*own, *beside) if one.metadata.uid not in progress.denials)

    def _denied(self, request: AccessRequest, grant: TaskGrant, progress: Progress) -> AccessApproval | None:
        beside = coverage.denials_beside(self._cache, grant, request)
        return next((one for one in beside if progress.denials.get(one.metadata.uid)), None)

    def _over(self, request_uid: str, made: Metadata) -> Reason | None:
        """Why something that looks alive is over: a restored store has brought it back."""
        known, restored = self._cache.over.get(request_uid), self._cache.restored
        if known is None and restored is not None and made.creation_timestamp < restored:
            return Reason.GRANT_DELETED
        return known

    def _verdict(
        self, request: AccessRequest, identity: Identity, grant: TaskGrant, now: datetime, progress: Progress
    ) -> Decision:
        if not self._surroundings.policies_fresh(now):
            return _STALE
        # The grant's own policy must still allow it, and no Deny forbid it; limits held it once, at the start.
        policy = grant.spec.order.policy
        policies = self._surroundings.policies.of_namespace(identity.namespace).narrowed(policy.uid)
        of_grant = (one.policy.metadata for one in policies.all if one.policy.metadata.uid == policy.uid)
        if not grant.delivered and any(metadata.generation != policy.generation for metadata in of_grant):
            # What it asks of a new request, people or limits, is not asked of one that it was opened for before.
            message = "it was changed while access was being granted; ask again"
            return Denied(Denial(reason=Reason.NO_POLICY_MATCHED, message=message), policy.name)
        # Who approved held the right once, at the start; who denies must hold it now.
        approvals = tuple(
            statement(one, allowed=one.spec.verdict == "Approve" or progress.denials.get(one.metadata.uid, False))
            for one in self._cache.approvals.about(Key.of(request.metadata), request.metadata.uid)
        )
        beside = (
            replace(statement(word, allowed=True), request=one.request)
            for one, word in coverage.rests_on(self._cache, grant)
        )
        covering = tuple(beside)
        covered = {(one.username, one.policy) for one in covering}
        # What they have said on this very request since adds nobody to those whom it rests on.
        own = (one for one in approvals if one.verdict == "Deny" or (one.username, one.policy) not in covered)
        said = (*own, *covering)
        asks = requester_of(grant, self._cache.pods.get(identity.namespace, request.spec.requester.pod_name))
        facts = self._facts(
            request, identity, now, said, requester=asks, active={}, opened={}, unreviewed={}, live=True
        )
        verdict = decide(request.spec, policies, facts)
        order = grant.spec.order
        if isinstance(verdict, Approved) and _pod_templates_lost(order, verdict):
            message = "it no longer accepts the risk PodTemplates, which this grant was given"
            return Denied(Denial(reason=Reason.RISK_NOT_ALLOWED, message=message), policy.name)
        if isinstance(verdict, Approved) and verdict.not_after(order.opened_at) < order.not_after:
            allowed = format_duration(verdict.not_after(order.opened_at) - order.opened_at)
            denial = Denial(reason=Reason.TTL_TOO_LONG, message=f"it allows {allowed} now", allowed=f"ttl: {allowed}")
            return Denied(denial, policy.name)
        return verdict

    def _facts(
        self,
        request: AccessRequest,
        identity: Identity,
        now: datetime,
        approvals: tuple[Statement, ...],
        *,
        requester: Identity | None,
        covering: tuple[TaskWord, ...] = (),
        active: Mapping[str, int],
        opened: Mapping[str, tuple[datetime, ...]],
        unreviewed: Mapping[str, tuple[Unreviewed, ...]],
        live: bool,
    ) -> Facts:
        scopes = request.spec.scopes
        # Cluster scope reaches every namespace: a rule about namespaces sees them all.
        everywhere = any(scope.namespace is None for scope in scopes)
        named = {scope.namespace for scope in scopes} | {identity.namespace}
        roles = {scope.cluster_role for scope in scopes if scope.cluster_role}
        return Facts(
            identity=identity,
            namespaces={
                name: labels for name, labels in self._surroundings.namespaces.items() if everywhere or name in named
            },
            cluster=self._cluster,
            cluster_roles={name: rules for name, rules in self._surroundings.cluster_roles.items() if name in roles},
            approvals=approvals,
            requester=requester,
            covering=covering,
            active=active,
            opened=opened,
            unreviewed=unreviewed,
            parent=parents.facts(self._cache, request.spec.parent),
            limit_active=self._limit_active,
            live=live,
            now=now,
        )

    def _active(self, key: Key, identity: Identity) -> dict[str, int]:
        counts: dict[str, int] = {}
        for other in self._cache.grants.of_account(identity.namespace, identity.service_account):
            note = self._cache.grants.note(other)
            if other != key and note is not None:
                counts[note.policy] = counts.get(note.policy, 0) + 1
        for other, opening in self._opening.items():
            same = (opening.namespace, opening.service_account) == (identity.namespace, identity.service_account)
            if same and other != key and other not in self._cache.grants:
                counts[opening.policy] = counts.get(opening.policy, 0) + 1
        return counts


def _pod_templates_lost(order: Order, verdict: Approved) -> bool:
    """Whether policy accepted that pod templates are changed, by the agent or by those it hands on to, and does not."""
    return (order.pod_templates and not verdict.pod_templates) or (
        bool(order.delegates_pod_templates) and not verdict.delegates_pod_templates
    )
