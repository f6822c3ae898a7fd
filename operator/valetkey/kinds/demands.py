"""What a policy demands beside its ceilings: rules that must be true, and people who agree first or look afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from valetkey.kinds.base import Duration, Model, cel


class Validation(Model):
    """One more rule, in CEL."""

    name: str = Field(min_length=1, max_length=63, description="A name for this rule.")
    expression: str = Field(
        min_length=1,
        max_length=4096,
        description=(
            "A CEL expression that gives true where the policy applies. It reads identity.{namespace, serviceAccount, "
            "podName, podUID, nodeName, labels}: the pod, verified; claims.task.{id, objective, purpose, parameters}: "
            "what the agent says, not verified; access.kubernetes.scopes[].{namespace, rules, clusterRole}, with "
            "rules[].{apiGroups, resources, resourceNames, nonResourceURLs, verbs}: what is asked for; "
            "namespaces[name].labels: of each namespace asked for, and of every one where cluster scope is; cluster: "
            "this cluster's name; approvals[].{policy, verdict, approver, at}, with approver.{username, groups}: what "
            "people have said on the request, or with covers: Task on one of its task, each for a policy that they may "
            "approve for, never an agent of the work; "
            "parent.{namespace, name, identity, task}, with identity.{namespace, serviceAccount} and the fields of "
            "claims.task: the live request that this one works for, or no field at all; now: the time. What a request "
            "leaves out is not there: ask has() first. Another "
            "field, a type that does not fit and a result that is no boolean are errors, which the condition Ready "
            "shows with line and column. Of the macros map is refused: use all, exists, exists_one or filter. A rule "
            "that has one of these builds nothing with +, lists or maps of what it reads, and has no matches; the "
            "pattern of matches is one string. An expression that cannot be evaluated for a request, or takes more "
            "than 10000 steps, grants nothing under Allow and counts as true under Deny."
        ),
    )
    message: str = Field(
        min_length=1,
        max_length=1024,
        description="What an agent reads where it is false, under Allow.",
    )


class BreakGlass(Model):
    """For emergencies: nobody is asked before, and somebody looks at each use afterwards."""

    review_within: Duration | None = Field(
        default=None,
        description="By when after the decision somebody has to say that they have looked at it, by an AccessApproval "
        "with the verdict Reviewed; from then on the policy grants that account nothing more until they have. At most "
        "168h. Default 24h.",
        json_schema_extra=cel(
            ("duration(self) >= duration('1s')", "at least 1s"), ("duration(self) <= duration('168h')", "at most 168h")
        ),
    )
    max_ttl: Duration | None = Field(
        default=None,
        alias="maxTTL",
        description="How long a grant lives at most, whatever ttl says. At most 1h. Default 15m.",
        json_schema_extra=cel(
            ("duration(self) >= duration('1s')", "at least 1s"), ("duration(self) <= duration('1h')", "at most 1h")
        ),
    )

    @property
    def review(self) -> timedelta:
        """By when after the decision it has to be looked at."""
        return timedelta(hours=24) if self.review_within is None else self.review_within

    @property
    def longest(self) -> timedelta:
        """How long a grant lives at most."""
        return timedelta(minutes=15) if self.max_ttl is None else self.max_ttl


class Approval(Model):
    """People who must agree before the policy grants; each speaks by an AccessApproval."""

    when: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description=(
            "A CEL expression, as those of validations: where it is true, people are asked; where it is false, the "
            "policy grants without them. One that cannot be evaluated for a request grants nothing. Left out: always."
        ),
    )
    approvals: int | None = Field(
        default=None, ge=1, le=10, description="How many people must approve; each counts once. Default 1."
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long a request waits for them after its creation, at most 24h; then it expires. Default 30m.",
        json_schema_extra=cel(
            ("duration(self) >= duration('1s')", "at least 1s"), ("duration(self) <= duration('24h')", "at most 24h")
        ),
    )
    covers: Literal["Request", "Task"] | None = Field(
        default=None,
        description=(
            "What one person's word may cover at most: the Request that it was said on, or its Task, which is further "
            "requests of the same pod for the same purpose and parameters, within that request's access, until the "
            "person says and for 24h at most. Default Request."
        ),
    )

    @property
    def needed(self) -> int:
        """How many people must approve."""
        return self.approvals or 1

    @property
    def covers_task(self) -> bool:
        """Whether a person's word may cover further requests of a task."""
        return self.covers == "Task"

    @property
    def wait(self) -> timedelta:
        """How long a request waits for them after its creation."""
        return timedelta(minutes=30) if self.timeout is None else self.timeout
