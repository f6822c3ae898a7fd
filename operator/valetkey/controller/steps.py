"""Steps: what can be done next for a request and its grant, and what is known when that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from valetkey.errors import InvalidError
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.credential import Credential
from valetkey.kinds.delegation import Parent
from valetkey.kinds.delivery import GrantDelivery
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import ApprovalReference, TaskGrant
from valetkey.kube.pods import Pod
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting
from valetkey.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Durations that the platform team sets."""

    pending_ttl: timedelta
    history_ttl: timedelta
    renew_after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the present run has learnt; a crash loses it, and the next run learns it again."""

    identity: Identity | None = None
    requester: Identity | None = None
    """Who asks, where that is another pod than the one that receives."""
    place: GrantDelivery | None = None
    decision: Decision | None = None
    decision_id: str = ""
    credential: Credential | None = None
    failure: InvalidError | None = None
    proof: str | None = None
    read_again: bool = False
    """Whether all that a grant was decided on was read again since it was written."""
    parent_gone: bool = False
    """Whether a live read found that what was granted to its parent is over."""
    listened: bool = False
    """Whether a request whose beat is overdue was read live."""
    denials: Mapping[str, bool] = field(default_factory=dict)
    """Whether who denies a live grant may do so, by the approval's uid, of those that were asked about."""


def learnt(progress: Progress, **changes: object) -> Progress:
    """Progress with what a step has found out."""
    return replace(progress, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One key as it was last read; None where nothing is there."""

    request: AccessRequest | None
    grant: TaskGrant | None
    crowded: bool = False
    """The request's ServiceAccount has more requests than are kept."""
    over: Reason | None = None
    """Why what this request was granted has ended once already, by the log, in a life that the store has forgotten."""
    vanished: bool = False
    """The grant went without its finalizer's leave; what is known of it is the last that was read."""
    pod: Pod | None = None
    """The grant's pod."""
    sharers: tuple[str, ...] = ()
    """Other pods that mount the grant's Secret."""
    taken_back: ApprovalReference | None = None
    """A person's word that the grant rests on and that is gone."""
    denied: AccessApproval | None = None
    """What a person who may has said against another request, on which a word was said that the grant rests on."""
    unknown: tuple[ApprovalReference, ...] = ()
    """Those of which it is not known whether they are there."""
    unheard: tuple[AccessApproval, ...] = ()
    """What people have said against a live grant, where it is not known whether they may."""
    parent_gone: bool = False
    """What was granted to the request that the grant works for is over."""
    parent_unknown: bool = False
    """It is not known whether it is."""
    beat_due: datetime | None = None
    """By when the agent has to be heard of; None where it need not be, or could not be."""
    longest_wait: timedelta = timedelta()
    """How long some policy lets a request wait for people."""
    kept_until: datetime | None = None
    """Until when a word on a finished request may cover others, for which it has to be there."""
    verdict: Decision | None = None
    """What today's policies say to a live grant."""
    progress: Progress = Progress()


@dataclass(frozen=True, slots=True)
class Identify:
    """Read the requester's pod and find it to be the requester."""

    request: AccessRequest


@dataclass(frozen=True, slots=True)
class Decide:
    """Ask policy."""

    request: AccessRequest
    identity: Identity
    place: GrantDelivery


@dataclass(frozen=True, slots=True)
class Open:
    """Write the grant, before anything exists."""

    request: AccessRequest
    identity: Identity
    place: GrantDelivery
    approved: Approved
    requester: Identity | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """Say that people are asked, and wait for them."""

    request: AccessRequest
    waiting: Waiting
    until: datetime


@dataclass(frozen=True, slots=True)
class LookUp:
    """Read live whether what the grant rests on is there, and ask whether those who deny it may."""

    grant: TaskGrant
    unknown: tuple[ApprovalReference, ...]
    unheard: tuple[AccessApproval, ...]
    parent: Parent | None = None
    """The request that it works for, where it is not known whether what that was granted goes on."""
    beat: bool = False
    """Whether its agent is overdue."""


@dataclass(frozen=True, slots=True)
class Issue:
    """Make the credential that the grant names, or the next one of a grant that lives on."""

    grant: TaskGrant
    renewal: bool = False


@dataclass(frozen=True, slots=True)
class Deliver:
    """Put the credential where the pod can read it."""

    grant: TaskGrant
    credential: Credential
    pod: Pod


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before this time."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """It cannot be decided now: say why, and try again."""

    undecided: Undecided


@dataclass(frozen=True, slots=True)
class Refuse:
    """Finish a request that gets no grant."""

    request: AccessRequest
    why: InvalidError | Denied | Reason


@dataclass(frozen=True, slots=True)
class End:
    """Write why the grant ends, then delete it."""

    grant: TaskGrant
    reason: Reason
    message: str
    failure: InvalidError | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """Unmake everything that the grant names, and prove it."""

    grant: TaskGrant


@dataclass(frozen=True, slots=True)
class LetGo:
    """Say so on the request and let the grant's object go."""

    grant: TaskGrant
    proof: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a request whose history is over."""

    request: AccessRequest


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a request unread: its ServiceAccount has made too many."""

    request: AccessRequest


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left of this key."""


Step = (
    Identify
    | Decide
    | Await
    | Open
    | LookUp
    | Issue
    | Deliver
    | Wait
    | Hold
    | Refuse
    | End
    | Revoke
    | LetGo
    | Remove
    | Drop
    | Forget
)
