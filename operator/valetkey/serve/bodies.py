"""What is sent to the door: bodies and queries, read once and refused with what is wrong and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, Field, ValidationError, model_validator

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import RequestSpec, Task
from valetkey.kinds.base import HEARTBEAT, Duration, Model
from valetkey.kinds.delegation import Delegation, Parent
from valetkey.kinds.delivery import Delivery, SecretDelivery
from valetkey.kube.api import Json
from valetkey.messages import RefusedError
from valetkey.serve.pods import AskingPod

NAME: Final = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LONGEST: Final = 30.0
"""Seconds that a call waits at most."""
_DEFAULT: Final = 10.0

_NOT_HERE: Final = {
    "spec.subject": "it is the pod whose token was sent; the door says so",
    "spec.requester": "it is the pod whose token was sent; the door says so",
    "spec.outcome": "it is said when the task is over, by PATCH",
}

M = TypeVar("M", bound=BaseModel)


class AskedSpec(Model):
    """What of an AccessRequest the pod says; who asks and who receives is the door's to say."""

    task: Task
    access: Access
    ttl: Duration | None = None
    delivery: Delivery = Delivery(secret=SecretDelivery())
    parent: Parent | None = None
    delegation: Delegation | None = None

    @classmethod
    def of(cls, spec: Json) -> AskedSpec | None:
        """What was asked by a request that is there; None where this version cannot read it."""
        try:
            return cls.model_validate({name: value for name, value in spec.items() if name in _SAID})
        except ValidationError:
            return None

    def by(self, pod: AskingPod) -> RequestSpec:
        """The same as a request of a pod."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return RequestSpec(**said, requester=pod.requester, subject=pod.subject)


_SAID: Final = frozenset(str(field.alias) for field in AskedSpec.model_fields.values())


class Asked(Model):
    """The body of POST."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")] | None = None
    spec: AskedSpec


class Change(Model):
    """The body of PATCH."""

    outcome: Literal["Succeeded", "Failed", "Cancelled"] | None = None
    heartbeat: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Change:
        if (self.outcome is None) is (self.heartbeat is None):
            raise ValueError("say outcome or heartbeat, one of the two")
        return self

    @property
    def patch(self) -> Json:
        """What it changes of the object."""
        if self.outcome is not None:
            return {"spec": {"outcome": self.outcome}}
        return {"metadata": {"annotations": {HEARTBEAT: self.heartbeat}}}


def read(kind: type[M], text: bytes) -> M:
    """Reads a body; raises RefusedError."""
    try:
        body = orjson.loads(text)
        orjson.dumps(body)  # what is too deep to be sent on, no task needs
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        raise _bad("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _bad("the body is a JSON object")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        what = _NOT_HERE.get(where, "there is no such field") if first["type"] == "extra_forbidden" else first["msg"]
        raise _bad(f"{where}: {what}") from None


@dataclass(frozen=True, slots=True)
class Query:
    """How long a call waits, and for what."""

    wait: float = _DEFAULT
    after: str | None = None

    @classmethod
    def of(cls, text: str, *allowed: str) -> Query:
        """Reads one; raises RefusedError."""
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=8) if text else []
        except ValueError:
            raise _bad("what is after the question mark is not name=value&name=value") from None
        said = dict(pairs)
        wrong = next((name for name, _ in pairs if name not in allowed), None)
        if wrong is not None or len(said) < len(pairs):
            may = f"only {' and '.join(allowed)}, each once" if allowed else "nothing"
            raise _bad(f"after the question mark there is {may}")
        return cls(_seconds(said["wait"]) if "wait" in said else _DEFAULT, said.get("after"))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        raise _bad(f"wait is a number of seconds, {LONGEST:g} at most")
    return seconds


def _bad(why: str) -> RefusedError:
    return RefusedError("400 Bad Request", why)
