"""What can a decision be?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from valetkey.kinds.accessrequest import Denial
from valetkey.kinds.delegation import Account
from valetkey.kinds.taskgrant import ApprovalReference, PolicyReference
from valetkey.reasons import Reason


@dataclass(frozen=True, slots=True)
class Approved:
    """A policy grants the request as it is."""

    policy: PolicyReference
    entry: str
    """The entry of the policy's access that the request lies within."""
    ttl: timedelta
    until: datetime | None
    """When the policy ends, what the request works for, or a word that covers it, and with that what is granted; None
    if none does."""
    pod_templates: bool
    """Whether that entry accepts the risk PodTemplates."""
    backstop: bool
    """Whether the policy wants a timer Job for it."""
    heartbeat: timedelta | None = None
    """How often the agent has to say that it still works."""
    outlives_restarts: bool = False
    """Whether it goes on when a container of its pod dies and is started again."""
    remembers: int = 0
    """How many of this account's latest grants the policy looks at, this one among them; 0 where it limits no pace."""
    review_within: timedelta | None = None
    """By when after the decision somebody has to look at it; None where the policy is not for emergencies."""
    review_by: datetime | None = None
    """The same as a time, once it is on the ledger."""
    act: tuple[Account, ...] = ()
    """Whose work it is: the accounts that handed it on, the nearest first."""
    among: tuple[Account, ...] = ()
    """Every account that may have got some of that work."""
    launchers: tuple[Account, ...] = ()
    """The accounts that ask for it, or have for work before it, on behalf of others."""
    delegates_pod_templates: bool = False
    """Whether the risk PodTemplates goes with what is handed on."""
    approvals: tuple[ApprovalReference, ...] = ()
    """By whose word, where the policy asks for people."""
    wait: timedelta | None = None
    """How long after its creation the request may be granted, where people were asked; None: as long as any other."""

    @property
    def reason(self) -> Reason:
        """The word for it."""
        if self.review_within is not None:
            return Reason.BREAK_GLASS_USED
        return Reason.PERSON_APPROVED if self.approvals else Reason.POLICY_MATCHED

    def not_after(self, opened_at: datetime) -> datetime:
        """When a grant that was opened then ends at the latest."""
        end = opened_at + self.ttl
        return end if self.until is None else min(end, self.until)


@dataclass(frozen=True, slots=True)
class Denied:
    """No policy grants the request, or one denies it; never as written."""

    denial: Denial
    policy: str | None
    """The policy that denies it or came nearest to granting it; None if none is about this agent."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """It cannot be known now; it never grants."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A policy grants the request once people have approved it."""

    policy: str
    needed: int
    approved_by: tuple[str, ...]
    """Who has; fewer than are needed."""
    void: tuple[str, ...]
    """Whose word does not count and why, for people."""
    timeout: timedelta
    """How long after its creation the request waits."""
    policy_generation: int = 0
    """The policy's generation, which a word for the whole task names."""
    covers: Literal["Request", "Task"] | None = None
    """What a word may cover at most, as the policy says."""


Decision = Approved | Denied | Undecided | Waiting
