"""Words: what people have said on requests, as last read."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Final, NamedTuple

from valetkey.controller.objects import Objects, version_of
from valetkey.controller.queue import Key
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.policy.coverage import end

MOST_WORDS: Final = 64
"""Of what people have said on one request, as many are read."""


class ApprovalNote(NamedTuple):
    """What is known of an approval without looking at it."""

    uid: str
    version: int
    created: datetime
    request: str
    """The uid of the request that it is about."""
    name: str
    """That request's name."""
    denies: bool
    reviews: bool
    """Whether it is of what was done, and so none that a decision reads."""
    word: tuple[str, str]
    """Who speaks, and for which policy."""
    until: datetime | None
    """When it ends to cover other requests of its task; None where it is of its own alone."""
    generation: int
    """The generation of the policy that whoever speaks has seen, where it covers others."""


class Approvals(Objects[AccessApproval, ApprovalNote]):
    """Approvals by key, and which of them are about a request."""

    def __init__(self) -> None:
        super().__init__(AccessApproval, _of_approval)
        self._about: defaultdict[str, set[Key]] = defaultdict(set)
        self._reviews: defaultdict[str, set[Key]] = defaultdict(set)

    def about(self, key: Key, request_uid: str) -> tuple[AccessApproval, ...]:
        """What was said on this very request: of each person the first word of either kind for a policy.

        Denials come first, then the earliest; 64 in all, so that nobody's words without end are read each time.
        """
        said = self.notes_about(key, request_uid)
        first: dict[tuple[bool, str, str], Key] = {}
        for there, note in sorted(said, key=lambda one: (not one[1].denies, one[1].created, one[0])):
            first.setdefault((note.denies, *note.word), there)
        read = (self.get(there) for there in list(first.values())[:MOST_WORDS])
        return tuple(approval for approval in read if approval is not None)

    def reviews_of(self, key: Key, request_uid: str, policy: str, since: datetime) -> tuple[AccessApproval, ...]:
        """What was said after a moment of what a policy granted this very request: each one's latest, 64 at most."""
        of_request = (there for there in self._reviews.get(request_uid, ()) if there.namespace == key.namespace)
        known = ((there, note) for there in of_request if (note := self.note(there)) is not None)
        about = (one for one in known if (one[1].name, one[1].word[1]) == (key.name, policy) and one[1].created > since)
        latest = {note.word[0]: there for there, note in sorted(about, key=lambda one: (one[1].created, one[0]))}
        read = (self.get(there) for there in list(latest.values())[-MOST_WORDS:])
        return tuple(approval for approval in read if approval is not None)

    def notes_about(self, key: Key, request_uid: str) -> list[tuple[Key, ApprovalNote]]:
        """What is known of all that was said on this very request."""
        known = ((there, self.note(there)) for there in self._about.get(request_uid, ()) if there[0] == key.namespace)
        return [(there, note) for there, note in known if note is not None and note.name == key.name]

    def uids_about(self, namespace: str, request_uid: str) -> set[str]:
        """The uids of all that was said in a namespace on a request of that uid."""
        known = (self.note(there) for there in self._about.get(request_uid, ()) if there[0] == namespace)
        return {note.uid for note in known if note is not None}

    def _enter(self, key: Key, note: ApprovalNote) -> None:
        self._of(note)[note.request].add(key)

    def _leave(self, key: Key, note: ApprovalNote) -> None:
        said = self._of(note)
        said[note.request].discard(key)
        if not said[note.request]:
            del said[note.request]

    def _of(self, note: ApprovalNote) -> defaultdict[str, set[Key]]:
        return self._reviews if note.reviews else self._about


def _of_approval(approval: AccessApproval) -> ApprovalNote:
    return ApprovalNote(
        uid=approval.metadata.uid,
        version=version_of(approval.metadata.resource_version),
        created=approval.metadata.creation_timestamp,
        request=approval.spec.request.uid,
        name=approval.spec.request.name,
        denies=approval.spec.verdict == "Deny",
        reviews=approval.spec.verdict == "Reviewed",
        word=(approval.spec.approver.username, approval.spec.policy),
        until=end(approval.spec, approval.metadata.creation_timestamp),
        generation=approval.spec.policy_generation or 0,
    )
