"""Watched: what each event of the API server means; every replica takes in all of them."""

from __future__ import annotations

from collections.abc import Callable

from valetkey.audit import history
from valetkey.audit.record import Log
from valetkey.controller.intake import Intake
from valetkey.controller.queue import Key
from valetkey.controller.surroundings import Surroundings
from valetkey.kinds.base import FORCED_BECAUSE, FORCED_BY, REQUEST_LABEL
from valetkey.kube import guards
from valetkey.kube.api import Json
from valetkey.reasons import Reason


class Watched:
    """Takes in what watches bring."""

    def __init__(self, intake: Intake, surroundings: Surroundings, log: Log, *, leads: Callable[[], bool]) -> None:
        self._intake, self._surroundings, self._log, self._leads = intake, surroundings, log, leads

    def on_request(self, body: Json, *, deleted: bool) -> None:
        """An AccessRequest was made, changed or deleted."""
        if deleted:
            self._intake.request_gone(_key(body), body["metadata"]["uid"])
        else:
            self._intake.request(body)

    def on_grant(self, body: Json, *, deleted: bool) -> None:
        """A TaskGrant was made, changed or deleted."""
        if deleted:
            self._intake.let_go_by_force(body)
            self._intake.grant_gone(_key(body), body["metadata"]["uid"])
            if not self._leads() and FORCED_BY not in body["metadata"].get("annotations", {}):
                self._log.note(history.GONE, **_about_gone(body))
        else:
            self._intake.grant(body)

    def on_approval(self, body: Json, *, deleted: bool) -> None:
        """An AccessApproval was made or taken back."""
        if deleted:
            self._intake.approval_gone(_key(body), body["metadata"]["uid"])
        else:
            self._intake.approval(body)

    def on_pod(self, body: Json, *, deleted: bool) -> None:
        """A pod of an agent was made, changed or deleted."""
        if deleted:
            self._intake.pod_gone(_key(body), body["metadata"]["uid"])
        else:
            self._intake.pod(body)

    def on_policy(self, body: Json, *, deleted: bool) -> None:
        """An AgentPolicy was made, changed or deleted."""
        metadata = body["metadata"]
        if deleted:
            self._surroundings.remove_policy(metadata["name"], metadata["uid"])
        else:
            self._surroundings.put_policy(body)

    def on_namespace(self, body: Json, *, deleted: bool) -> None:
        """A namespace was made, changed or deleted."""
        metadata = body["metadata"]
        if deleted:
            self._surroundings.remove_namespace(metadata["name"])
        else:
            self._surroundings.put_namespace(metadata["name"], dict(metadata.get("labels") or {}))

    def on_guard(self, body: Json, *, deleted: bool) -> None:
        """An admission policy or a binding was made, changed or deleted."""
        if deleted:
            self._surroundings.remove_guard(*guards.identify(body))
        else:
            self._surroundings.put_guard(body)


def note_forced(log: Log, body: Json) -> None:
    """Puts on record that somebody lets a grant go by force, who and why."""
    annotations = body["metadata"]["annotations"]
    by, because = annotations[FORCED_BY], annotations.get(FORCED_BECAUSE, "")
    log.note("RevocationForced", **_about_gone(body), by=by, message=because)


def _about_gone(body: Json) -> Json:
    """What this replica must know of a grant that another let go, should it lead when an old store is restored."""
    metadata = body["metadata"]
    return {
        "request": f"{metadata['namespace']}/{metadata['name']}",
        "request_uid": metadata.get("labels", {}).get(REQUEST_LABEL, ""),
        "grant": metadata["uid"],
        "end": body.get("status", {}).get("end", {}).get("reason", Reason.GRANT_DELETED),
    }


def _key(body: Json) -> Key:
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])
