"""AgentPolicy: who may get what, for which purpose."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from valetkey.kinds.access import Rule
from valetkey.kinds.accessrequest import PurposeName, Via
from valetkey.kinds.base import Condition, Metadata, Model, Name, Time, cel, ruled
from valetkey.kinds.bounds import TTL, Heartbeat, Limits
from valetkey.kinds.delegation import DelegationLimits
from valetkey.kinds.delivery import Way
from valetkey.kinds.demands import Approval, BreakGlass, Validation
from valetkey.kinds.subjects import NamespaceName, SubjectSelector

_AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Risk(StrEnum):
    """A right that outlives or outgrows its grant; refused unless the ceiling names it."""

    WATCH = "Watch"
    EXEC = "Exec"
    POD_TEMPLATES = "PodTemplates"
    SECRETS = "Secrets"
    TOKENS = "Tokens"
    RBAC = "RBAC"
    IMPERSONATE = "Impersonate"
    NODES = "Nodes"


class Parameter(Model):
    """The type of one parameter of a purpose."""

    model_config = ruled(
        (
            "self.type in ['string', 'array'] || !(has(self.pattern) || has(self.enum) || has(self.maxLength))",
            "pattern, enum and maxLength are for strings and arrays of strings",
        ),
        (
            "self.type in ['integer', 'number'] || !(has(self.minimum) || has(self.maximum))",
            "minimum and maximum are for numbers",
        ),
    )

    type: Literal["string", "integer", "number", "boolean", "array"] = Field(
        description="The JSON type; an array is one of strings."
    )
    description: str | None = Field(default=None, max_length=1024, description="What it means.")
    required: bool = Field(default=False, description="Whether it must be given.")
    # Without the length, whoever may write one policy has every request wait while a huge pattern is compiled for it.
    pattern: str | None = Field(
        default=None, max_length=512, description="An RE2 expression that the whole string (each of an array) matches."
    )
    enum: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(min_length=1, max_length=64)] | None = (
        Field(default=None, description="The strings that it may be.")
    )
    minimum: float | None = Field(default=None, description="The least number.")
    maximum: float | None = Field(default=None, description="The greatest number.")
    max_length: int | None = Field(
        default=None, ge=0, le=16384, description="The most characters of a string (each of an array). Default 253."
    )


class Purpose(Model):
    """What a task may be for."""

    name: PurposeName = Field(description="The word that requests use.")
    description: str | None = Field(default=None, max_length=1024, description="What it means.")
    parameters: dict[str, Parameter] = Field(
        default_factory=dict, max_length=32, description="The parameters that a request gives, and their types."
    )


class CeilingScope(Model):
    """The most that may be asked in some namespaces, or in the cluster's scope."""

    model_config = ruled(
        ("has(self.namespaces) != has(self.cluster)", "a scope has namespaces or cluster, one of the two"),
        ("has(self.rules) || has(self.clusterRoles)", "a scope has rules, clusterRoles or both"),
        (
            "!has(self.namespaces) || !has(self.rules) || !self.rules.exists(r, has(r.nonResourceURLs))",
            "nonResourceURLs exist in cluster scope only",
        ),
    )

    namespaces: Annotated[tuple[NamespaceName, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="In these namespaces; $name stands for a parameter. One of namespaces and cluster."
    )
    cluster: Literal[True] | None = Field(
        default=None, description="In cluster scope, which includes every namespace. One of namespaces and cluster."
    )
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="At most these rights; $name in resourceNames stands for a parameter."
    )
    cluster_roles: Annotated[tuple[Name, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="Any of these ClusterRoles, whole."
    )


class KubernetesCeiling(Model):
    """The most that may be asked at this cluster's own API server."""

    scopes: Annotated[tuple[CeilingScope, ...], Field(min_length=1, max_length=16)] = Field(
        description="Where, and which rights there."
    )
    risks: Annotated[tuple[Risk, ...], Field(max_length=8)] = Field(
        default=(),
        description="Risks that are accepted; a right that carries another is refused.",
        json_schema_extra=_AS_SET,
    )


class AccessCeiling(Model):
    """One entry: a request lies within one entry of one policy, never the union of two."""

    model_config = ruled(
        ("[has(self.kubernetes)].filter(x, x).size() == 1", "an access entry has exactly one member: kubernetes")
    )

    name: str = Field(min_length=1, max_length=63, description="A name for this entry.")
    handed_on: Literal["Only"] | None = Field(
        default=None,
        description="Only: what lies within this entry may be handed on by a request's spec.delegation, and not asked "
        "for. Left out: both.",
    )
    kubernetes: KubernetesCeiling | None = Field(default=None, description="Rights at this cluster's own API server.")


class PolicySpec(Model):
    """Who may get what, for which purpose."""

    model_config = ruled(
        ("self.effect != 'Allow' || has(self.subjects)", "an Allow names its subjects; everybody is {any: true}"),
        ("self.effect != 'Allow' || has(self.purposes)", "an Allow names its purposes"),
        ("self.effect != 'Allow' || has(self.access)", "an Allow names the access that it gives at most"),
        (
            "self.effect == 'Allow' || !has(self.approval)",
            "approval belongs to an Allow; a Deny may read approvals in its validations",
        ),
        ("self.effect == 'Allow' || !has(self.breakGlass)", "breakGlass belongs to an Allow"),
        (
            "!has(self.breakGlass) || !has(self.approval)",
            "breakGlass is for when nobody can be asked: leave approval out, and have it reviewed",
        ),
        (
            "self.effect == 'Allow' || !has(self.delegation)",
            "delegation belongs to an Allow; a Deny about a right holds for whoever hands it on, too",
        ),
        ("self.effect == 'Allow' || !has(self.limits)", "limits belong to an Allow; a Deny grants nothing to count"),
    )

    effect: Literal["Allow", "Deny"] = Field(
        description="Allow or Deny; a matching Deny always wins. Does not change.",
        json_schema_extra=cel(("self == oldSelf", "effect does not change: create another AgentPolicy")),
    )
    mode: Literal["Enforce", "Audit"] | None = Field(
        default=None,
        description=(
            "Enforce, or Audit: it never takes part in a decision, but the log's record of each decision on an agent "
            "that it is about holds what it would have said and whether that would have changed the outcome. "
            "Default Enforce."
        ),
    )
    contact: str | None = Field(default=None, max_length=256, description="Whom to ask; quoted in denials.")
    subjects: Annotated[tuple[SubjectSelector, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="Whom it is about. Left out under Deny: everyone.", json_schema_extra=_BY_NAME
    )
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="For which purposes. Left out under Deny: any.", json_schema_extra=_BY_NAME
    )
    access: Annotated[tuple[AccessCeiling, ...], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="At most which access. Left out under Deny: any.", json_schema_extra=_BY_NAME
    )
    # Each is evaluated for every request: without it, whoever may write one policy slows down all decisions.
    validations: Annotated[tuple[Validation, ...], Field(max_length=16)] = Field(
        default=(), description="Rules that must all be true for the policy to apply.", json_schema_extra=_BY_NAME
    )
    ttl: TTL = Field(default=TTL(), description="How long a grant lives.")
    until: Time | None = Field(
        default=None,
        description=(
            "When the policy ends, such as 2026-12-31T18:00:00Z. From then on an Allow grants nothing, and what it "
            "granted has ended by then; a Deny forbids nothing. Left out, it does not end."
        ),
    )
    delivery: Annotated[tuple[Way, ...], Field(min_length=1, max_length=2)] | None = Field(
        default=None,
        description="By which ways a credential may reach the pod. Left out: any.",
        json_schema_extra=_AS_SET,
    )
    approval: Approval | None = Field(
        default=None, description="Whether people must approve first. Left out: policy alone decides."
    )
    break_glass: BreakGlass | None = Field(
        default=None,
        description="For emergencies: never used for a purpose that another policy about the agent knows; short, loud, "
        "and reviewed afterwards. Left out: a policy as any other.",
    )
    limits: Limits = Field(default=Limits(), description="How much at once, and how often.")
    delegation: DelegationLimits | None = Field(
        default=None,
        description="Whether requests may hand on what is granted (to, maxDepth), and whether only those that name a "
        "spec.parent are granted (required). Left out: they may not, and need not.",
    )
    on_behalf_of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16, json_schema_extra=_AS_SET)] | None = (
        Field(
            default=None,
            description="The ServiceAccounts, of the pod's own namespace, whose pods may ask for the pods that this "
            "policy is about: launchers of pods that have no API token. Left out: a pod asks for itself.",
        )
    )
    via: Annotated[tuple[Via, ...], Field(min_length=1, max_length=2)] | None = Field(
        default=None,
        description="By which ways a request may come in: API, as the pod's own, or Door, by the door that the chart "
        "installs. Left out: any.",
        json_schema_extra=_AS_SET,
    )
    heartbeat: Heartbeat | None = Field(
        default=None,
        description="Whether agents have to say again and again that they still work. Left out: they need not. A grant "
        "keeps what it began with.",
    )
    container_restart: Literal["End", "Keep"] | None = Field(
        default=None,
        description="What becomes of a grant when a container of its pod dies and is started again: whoever asked may "
        "be gone. Default End. A grant keeps what it began with.",
    )
    backstop: Literal["None", "Job"] | None = Field(
        default=None,
        description=(
            "What ends a grant at its time while the operator is gone. None: its token's own expiry, up to 670 s late. "
            "Job: a timer Job that runs no pod, within tens of seconds. A grant keeps what it began with. Default None."
        ),
    )

    @property
    def ttl_default(self) -> timedelta:
        """The ttl where a request names none."""
        return self._within_emergency(self.ttl.default or timedelta(minutes=5))

    @property
    def ttl_max(self) -> timedelta:
        """The longest ttl that a request may name."""
        return self._within_emergency(self.ttl.max or self.ttl_default)

    def _within_emergency(self, ttl: timedelta) -> timedelta:
        return ttl if self.break_glass is None else min(ttl, self.break_glass.longest)

    @property
    def enforced(self) -> bool:
        """Whether the policy takes part in decisions."""
        return self.mode != "Audit"

    def over(self, at: datetime) -> bool:
        """Whether the policy has ended by then; at the very moment of `until` it has."""
        return self.until is not None and at >= self.until


class PolicyStatus(Model):
    """Whether the policy can be used."""

    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class AgentPolicy(BaseModel):
    """A policy as code: who may get what, for which purpose."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metadata: Metadata
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
