"""Surroundings: policies, namespaces, roles and guards, kept fresh; too old, and nothing is granted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from valetkey.kinds.agentpolicy import AgentPolicy, PolicySpec
from valetkey.kinds.base import Metadata
from valetkey.kinds.subjects import SubjectSelector
from valetkey.kube import crds, guards, paths
from valetkey.kube.api import Api, ApiError, Json
from valetkey.policy.compile import CompiledPolicy, Policies, Uncompiled, compile_policy
from valetkey.policy.facts import RoleRule
from valetkey.reasons import Reason

EVERY: Final = timedelta(seconds=5)
AGAIN_AFTER: Final = timedelta(seconds=1)
STALE: Final = timedelta(seconds=10)
_SUBJECTS: Final = TypeAdapter(tuple[SubjectSelector, ...])

_logger = logging.getLogger(__name__)


class Surroundings:
    """What decisions read beside the request itself."""

    def __init__(
        self,
        api: Api,
        *,
        expected: Iterable[Json],
        schemas: Mapping[str, Json],
        cluster_roles: Iterable[str],
        changed: Callable[[], None],
        clock: Callable[[], datetime],
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """`expected` are the guards, `schemas` the kinds by their CRDs' names.

        `changed` is called where what decisions read has changed, `answered` after each reading in full.
        """
        self._api = api
        self._expected = tuple(expected)
        self._schemas = schemas
        self._role_names = tuple(cluster_roles)
        self._changed = changed
        self._clock = clock
        self._answered = answered
        self._policies: dict[str, CompiledPolicy | Uncompiled] = {}
        self._versions: dict[str, tuple[str, int]] = {}
        self._live_guards: dict[guards.Id, Json] = {}
        self._policies_read: datetime | None = None
        self._guards_read: datetime | None = None
        self.answered_since: datetime | None = None
        """Since when the API server has answered again and again."""
        self.policies = Policies.of(())
        self.namespaces: dict[str, dict[str, str]] = {}
        self.cluster_roles: dict[str, tuple[RoleRule, ...]] = {}
        self.guards = guards.Guards(wrong=("guards were not read yet",), since=None)
        self._crds: dict[str, tuple[str, str | None]] = {}
        """The version of each CRD as last read, and what it lacks."""

    def policies_fresh(self, now: datetime) -> bool:
        """Whether the policies were read in full within the last seconds."""
        return self._policies_read is not None and now - self._policies_read <= STALE

    def guards_in_force(self, now: datetime) -> guards.Guards:
        """The guards as last read; wrong where that is too long ago."""
        if self._guards_read is None or now - self._guards_read > STALE:
            return guards.Guards(wrong=("the guards could not be read",), since=None)
        return self.guards

    def outdated_crds(self) -> tuple[str, ...]:
        """What this operator counts on and the CRDs have not."""
        unread = ((name, "was not read yet") for name in self._schemas.keys() - self._crds.keys())
        lacking = ((name, f"lacks {lacks}") for name, (_, lacks) in self._crds.items() if lacks is not None)
        return tuple(f"{name} {what}" for name, what in sorted((*unread, *lacking)))

    async def refresh(self) -> None:
        """Reads everything in full; raises ApiError."""
        began = self._clock()
        found = [body["metadata"] async for body in self._api.list(paths.collection("Namespace"), metadata_only=True)]
        namespaces = {metadata["name"]: metadata.get("labels") or {} for metadata in found}
        if namespaces != self.namespaces:
            self.namespaces = namespaces
            self._changed()
        before = dict(self._versions)
        self._replace_policies([body async for body in self._api.list(paths.collection("AgentPolicy"))], before)
        if not self.policies_fresh(began):
            self.answered_since = self._clock()
        self._policies_read = began
        await self._read_roles()
        live = {}
        for kind in guards.KINDS:
            async for body in self._api.list(paths.collection(kind)):
                live[kind, body["metadata"]["name"]] = body
        self._live_guards = live
        self._guards_read = began
        self._judge_guards()
        await self._read_crds()

    async def keep_fresh(self) -> None:
        """Refreshes for ever, and soon again where that fails: what is too old grants nothing."""
        pause = EVERY
        while True:
            await asyncio.sleep(pause.total_seconds())
            try:
                await self.refresh()
            except ApiError as error:
                _logger.warning("policies and guards could not be read: %s", error)
                pause = AGAIN_AFTER
            else:
                pause = EVERY
                self._answered()

    def put_policy(self, body: Json) -> None:
        """Takes in a policy that a watch or a read brought."""
        if self._take_policy(body):
            self._publish()

    def remove_policy(self, name: str, uid: str) -> None:
        """Takes out a policy that is gone."""
        if self._drop(name, uid):
            self._publish()

    def put_namespace(self, name: str, labels: dict[str, str]) -> None:
        """Takes in a namespace that a watch brought."""
        if self.namespaces.get(name) != labels:
            self.namespaces[name] = labels
            self._changed()

    def remove_namespace(self, name: str) -> None:
        """Takes out a namespace that is gone."""
        if self.namespaces.pop(name, None) is not None:
            self._changed()

    def put_guard(self, body: Json) -> None:
        """Takes in a guard that a watch brought."""
        self._live_guards[guards.identify(body)] = body
        self._judge_guards()

    def remove_guard(self, kind: str, name: str) -> None:
        """Takes out a guard that is gone."""
        self._live_guards.pop((kind, name), None)
        self._judge_guards()

    def compiled(self) -> Iterable[CompiledPolicy | Uncompiled]:
        """Every policy, compiled or not."""
        return tuple(self._policies.values())

    def _replace_policies(self, bodies: Iterable[Json], before: Mapping[str, tuple[str, int]]) -> None:
        """Takes in all there are; what a watch brought while they were read is not missing from them."""
        seen, changed = set(), False
        for body in bodies:
            seen.add(body["metadata"]["name"])
            changed |= self._take_policy(body)
        for name in before.keys() - seen:
            changed |= self._drop(name, before[name][0])
        if changed:
            self._publish()

    def _take_policy(self, body: Json) -> bool:
        metadata = body["metadata"]
        name, version = metadata["name"], (metadata["uid"], int(metadata["generation"]))
        if "deletionTimestamp" in metadata and _allows(body):
            # It allows no more from the moment of its deletion; a Deny forbids until it is gone.
            return self._drop(name, version[0])
        known = self._versions.get(name)
        if known is not None and known[0] == version[0] and known[1] >= version[1]:
            return False
        try:
            compiled = compile_policy(AgentPolicy.model_validate(body))
        except ValidationError as error:
            compiled = _unreadable(body, error)
        self._policies[name] = compiled
        self._versions[name] = version
        return True

    def _drop(self, name: str, uid: str) -> bool:
        if self._versions.get(name, ("",))[0] != uid:
            return False
        del self._policies[name]
        del self._versions[name]
        return True

    def _publish(self) -> None:
        self.policies = Policies.of(self._policies.values())
        self._changed()

    def _judge_guards(self) -> None:
        before, self.guards = self.guards, guards.compare(self._expected, self._live_guards)
        if before.wrong != self.guards.wrong:
            level = logging.WARNING if self.guards.wrong else logging.INFO
            _logger.log(level, "guards: %s", "; ".join(self.guards.wrong) or "all in force")
            self._changed()

    async def _read_crds(self) -> None:
        before = self.outdated_crds()
        for name, schema in self._schemas.items():
            try:
                body = await self._api.get(paths.item("CustomResourceDefinition", None, name))
            except ApiError as error:
                if not (error.refused or error.not_found):
                    raise
                self._crds[name] = "", f"everything: {error}"  # to revoke needs none of it
                continue
            version = body["metadata"]["resourceVersion"]
            if version != self._crds.get(name, ("",))[0]:
                self._crds[name] = version, crds.lacks(schema, body)
        if before != (now := self.outdated_crds()):
            level = logging.WARNING if now else logging.INFO
            _logger.log(level, "CRDs: %s", "; ".join(now) or "as this version knows them, or newer")
            self._changed()

    async def _read_roles(self) -> None:
        roles = {}
        for name in self._role_names:
            try:
                body = await self._api.get(paths.item("ClusterRole", None, name))
            except ApiError as error:
                if error.not_found:
                    continue
                raise
            roles[name] = tuple(_rule(rule) for rule in body.get("rules") or ())
        if roles != self.cluster_roles:
            self.cluster_roles = roles
            self._changed()


def _allows(body: Json) -> bool:
    return bool((body.get("spec") or {}).get("effect") == "Allow")


def _unreadable(body: Json, error: ValidationError) -> Uncompiled:
    """A policy that this version cannot read.

    An Allow is skipped, and named to those whom it is about as far as that can be read, and so is what is not enforced;
    anything else may be a Deny about everyone.
    """
    effect: Literal["Allow", "Deny"] = "Allow" if _allows(body) else "Deny"
    mode: Literal["Audit"] | None = "Audit" if (body.get("spec") or {}).get("mode") == "Audit" else None
    subjects = _subjects(body) if effect == "Allow" else None
    spec = PolicySpec(effect=effect, mode=mode, subjects=subjects)
    policy = AgentPolicy(metadata=Metadata.model_validate(body["metadata"]), spec=spec)
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return Uncompiled(policy, Reason.EXPRESSION_INVALID, f"{field}: {first['msg']}")


def _subjects(body: Json) -> tuple[SubjectSelector, ...] | None:
    try:
        return _SUBJECTS.validate_python((body.get("spec") or {}).get("subjects"))
    except ValidationError:
        return None


def _rule(rule: Json) -> RoleRule:
    return RoleRule(
        api_groups=tuple(rule.get("apiGroups") or ()),
        resources=tuple(rule.get("resources") or ()),
        resource_names=tuple(rule.get("resourceNames") or ()),
        non_resource_urls=tuple(rule.get("nonResourceURLs") or ()),
        verbs=tuple(rule.get("verbs") or ()),
    )
