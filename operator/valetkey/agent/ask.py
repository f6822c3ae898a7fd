"""What is asked for, and how is it written as an AccessRequest?"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from valetkey.agent import durations, notation
from valetkey.agent.errors import InvalidAccess
from valetkey.agent.pod import Pod, requester

Json = dict[str, Any]
COLLECTION: Final = "/apis/valetkey.dev/v1alpha1/namespaces/{}/accessrequests"
HEARTBEAT: Final = "valetkey.dev/heartbeat"
_LABEL: Final = 50


class Ask(NamedTuple):
    """What one task asks for; two that are equal are the same task to go on with after a crash."""

    purpose: str
    objective: str
    access: Json
    parameters: Json
    task: str | None = None
    ttl: str | None = None
    parent: Json | None = None
    delegation: Json | None = None

    @property
    def fingerprint(self) -> str:
        """Names all of it."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()[:32]

    def name(self) -> str:
        """A name for a new request."""
        label = re.sub(r"[^a-z0-9]+", "-", self.purpose.lower())[:_LABEL].strip("-") or "access"
        return f"{label}-{os.urandom(4).hex()}"

    def body(self, name: str, *, pod: Pod, token: str, public_key: str) -> Json:
        """The AccessRequest, for that token to create; raises NotInAPod."""
        spec = {
            "task": {
                "id": self.task or f"{self.purpose}-{self.fingerprint[:10]}",
                "objective": self.objective,
                "purpose": self.purpose,
                **({"parameters": self.parameters} if self.parameters else {}),
            },
            "access": self.access,
            "ttl": self.ttl,
            "delivery": {"sealed": {"publicKey": public_key}},
            "subject": {"podName": pod.name, "podUID": pod.uid},
            "requester": requester(token),
            "parent": self.parent,
            "delegation": self.delegation,
        }
        return {
            "apiVersion": "valetkey.dev/v1alpha1",
            "kind": "AccessRequest",
            "metadata": {
                "name": name,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}],
            },
            "spec": {field: value for field, value in spec.items() if value is not None},
        }


def ask(
    purpose: str,
    objective: str,
    access: str | Mapping[str, Any],
    *,
    parameters: Mapping[str, Any] | None = None,
    task: str | None = None,
    ttl: timedelta | str | None = None,
    parent: Mapping[str, str] | None = None,
    delegation: Mapping[str, Any] | None = None,
) -> Ask:
    """Reads what a caller says; raises InvalidAccess."""
    return Ask(
        purpose=_text(purpose, "purpose"),
        objective=" ".join(_text(objective, "objective").split()),  # the API wants one line
        access=read_access(access),
        parameters={} if parameters is None else _json(parameters, "parameters"),
        task=None if task is None else _text(task, "task"),
        ttl=None if ttl is None else _ttl(ttl),
        parent=None if parent is None else _json(parent, "parent"),
        delegation=None if delegation is None else _delegation(delegation),
    )


def read_access(access: str | Mapping[str, Any], argument: str = "access") -> Json:
    """`spec.access` from a line, from JSON as a denial has it, or from a mapping; raises InvalidAccess."""
    if not isinstance(access, str):
        return _json(access, argument)
    text = access.strip().removeprefix("access:").lstrip()
    if not text.startswith("{"):
        return notation.read(access)
    try:
        return _json(json.loads(text), argument)
    except ValueError as error:
        raise InvalidAccess(f"{argument}: what begins with {{ is read as JSON, and is none: {error}") from error


def _delegation(delegation: Mapping[str, Any]) -> Json:
    """Each access in it may be one line."""
    read = _json(delegation, "delegation")
    accesses = read.get("access", [])
    if not isinstance(accesses, list):
        raise InvalidAccess(f"delegation: its access is a list, not {type(accesses).__name__}")
    return read | {"access": [read_access(access, "delegation") for access in accesses]} if accesses else read


def _ttl(ttl: timedelta | str) -> str:
    try:
        return durations.write(durations.read(ttl) if isinstance(ttl, str) else ttl)
    except (TypeError, ValueError) as error:
        raise InvalidAccess(f"ttl: {error}") from error


def _text(value: str, argument: str) -> str:
    if not isinstance(value, str):
        raise InvalidAccess(f"{argument}: it is text, not {type(value).__name__}")
    return value


def _json(value: Mapping[str, Any], argument: str) -> Json:
    """A copy that nobody changes, of JSON alone; raises InvalidAccess."""
    if not isinstance(value, Mapping):
        raise InvalidAccess(f"{argument}: it is a mapping, not {type(value).__name__}")
    try:
        copy: Json = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidAccess(f"{argument}: it is not JSON: {error}") from error
    return copy
