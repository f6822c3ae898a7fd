"""Intake: what was read or watched goes into the cache, and whoever it concerns is woken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from valetkey.controller import coverage
from valetkey.controller.cache import Cache
from valetkey.controller.queue import Key
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import AGENT_LABEL, FORCED_BY
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import pods
from valetkey.kube.api import Json

_logger = logging.getLogger(__name__)


class Intake:
    """Takes in requests, grants, approvals and pods; what is no news wakes nobody."""

    def __init__(
        self,
        cache: Cache,
        wake: Callable[[Key], None],
        *,
        leads: Callable[[], bool] = lambda: True,
        forced: Callable[[Json], None] = lambda body: None,
    ) -> None:
        """`forced` is called once for each grant that somebody lets go by force, when that is first seen."""
        self._forced = forced
        self._said: set[str] = set()
        """Uids of grants of which that was said and that are there yet."""
        self._cache = cache
        self._wake = wake
        self._leads = leads

    def request(self, body: Json) -> None:
        """Takes in a request; one that cannot be read is left alone, for it can never be granted."""
        if self._cache.requests.has(body):
            return
        before = self._cache.requests.note(_key(body))
        try:
            news = self._cache.requests.put(AccessRequest.model_validate(body))
        except ValidationError as error:
            _unreadable("AccessRequest", body, error)
        else:
            key = _key(body)
            now = self._cache.requests.note(key)
            # A beat wakes nobody: its time is known, and is looked at when the next one is due.
            if news and not (before is not None and now is not None and now.only_beats(before)):
                self._wake(key)
                self._wake_all(coverage.concerned_by_request(self._cache, key, body["metadata"]["uid"]))

    def grant(self, body: Json) -> None:
        """Takes in a grant."""
        if self._cache.grants.has(body):
            return None
        try:
            grant = TaskGrant.model_validate(body)
        except ValidationError as error:
            return _unreadable("TaskGrant", body, error)
        key = _key(body)
        known = self._cache.grants.get(key)
        if not self._cache.grants.put(grant):
            return None
        if known is not None and known.metadata.uid != grant.metadata.uid:
            # Nothing told of the end of the one before it.
            self._lost(key, known)
        return self._wake(key)

    def approval(self, body: Json) -> None:
        """Takes in an approval; one that cannot be read approves nothing."""
        if self._cache.approvals.has(body):
            return
        try:
            approval = AccessApproval.model_validate(body)
        except ValidationError as error:
            _unreadable("AccessApproval", body, error)
        else:
            if approval.metadata.terminating:  # taken back, whatever holds it up
                self.approval_gone(_key(body), approval.metadata.uid)
            elif self._cache.approvals.put(approval):
                self._said_or_taken_back(approval)

    def pod(self, body: Json) -> None:
        """Takes in a pod; one that is no agent's any more is gone."""
        if self._cache.pods.has(body):
            return
        pod = pods.parse(body)
        if pod.labels.get(AGENT_LABEL) != "true":
            self.pod_gone(_key(body), pod.uid)
        elif self._cache.pods.put(pod):
            self._wake_grants_of(_key(body), pod.secrets)

    def request_gone(self, key: Key, uid: str) -> None:
        """Takes out a request."""
        self._cache.requests.remove(key, uid)
        self._wake(key)
        self._wake_all(coverage.resting_on(self._cache, key.namespace, uid))

    def let_go_by_force(self, body: Json) -> None:
        """Tells of a grant that somebody lets go by force, if this one says so and it was not told before."""
        metadata = body["metadata"]
        if FORCED_BY in metadata.get("annotations", {}) and metadata["uid"] not in self._said:
            self._said.add(metadata["uid"])
            self._forced(body)

    def grant_gone(self, key: Key, uid: str) -> None:
        """Takes out a grant; one that went without the leave of our finalizer is still to be revoked."""
        self._said.discard(uid)
        known = self._cache.grants.remove(key, uid)
        if known is not None:
            self._lost(key, known)
        self._wake(key)

    def approval_gone(self, key: Key, uid: str) -> None:
        """Takes out an approval: it was taken back, or went with its request."""
        known = self._cache.approvals.remove(key, uid)
        if known is not None:
            self._said_or_taken_back(known)
        # Whoever has read live that it is gone has taken it out, and has woken nobody.
        self._wake_all(self._cache.grants.of_word(key.namespace, uid))

    def pod_gone(self, key: Key, uid: str) -> None:
        """Takes out a pod."""
        known = self._cache.pods.remove(*key, uid)
        self._wake_grants_of(key, known.secrets if known is not None else frozenset())

    def _said_or_taken_back(self, approval: AccessApproval) -> None:
        asked = Key(approval.metadata.namespace, approval.spec.request.name)
        self._wake(asked)
        self._wake_all(coverage.concerned_by_word(self._cache, asked, approval))

    def _wake_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._wake(key)

    def _lost(self, key: Key, grant: TaskGrant) -> None:
        # Of a grant that another replica let go nothing is left; what did go by force the next leader's sweep finds.
        if self._leads() and grant.metadata.uid not in self._cache.let_go:
            self._cache.vanished[key] = grant

    def _wake_grants_of(self, pod: Key, secrets: frozenset[str]) -> None:
        grants = self._cache.grants
        mounted = (grants.of_secret(pod.namespace, secret) for secret in secrets)
        self._wake_all(grants.of_pod(*pod).union(*mounted))


def _key(body: Json) -> Key:
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])


def _unreadable(kind: str, body: Json, error: ValidationError) -> None:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    metadata = body["metadata"]
    _logger.error("%s %s/%s: %s: %s", kind, metadata.get("namespace"), metadata.get("name"), where, first["msg"])
