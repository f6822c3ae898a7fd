"""What all kinds share: frozen camel-cased models, durations, conditions, metadata."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP: Final = "valetkey.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

REVOKE_FINALIZER: Final = f"{GROUP}/revoke"
AGENT_LABEL: Final = f"{GROUP}/agent"
REQUEST_LABEL: Final = f"{GROUP}/request"
HEARTBEAT: Final = f"{GROUP}/heartbeat"
GRANT_ANNOTATION: Final = f"{GROUP}/grant"
FORCED_BY: Final = f"{GROUP}/forced-by"
FORCED_BECAUSE: Final = f"{GROUP}/forced-because"
LOCK_LABEL: Final = f"{GROUP}/lock"
LOCKED_BY: Final = f"{GROUP}/locked-by"
LOCKED_BECAUSE: Final = f"{GROUP}/locked-because"
SECRET_TYPE: Final = f"{GROUP}/credential"
SECRET_PREFIX: Final = "valetkey-"  # noqa: S105 - the beginning of a name, not a password

# Also what separates lines or turns the direction of text: it is shown to people who approve.
CONTROL: Final = r"[\p{Cc}\p{Zl}\p{Zp}\x{061C}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}]"

_DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_UNIT = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def ruled(*rules: tuple[str, str]) -> ConfigDict:
    """A model's configuration that carries CEL rules, each with its message, into the CRD."""
    return ConfigDict(json_schema_extra=cel(*rules))


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """CEL rules, each with its message, for the CRD."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


class Model(BaseModel):
    """A frozen value of the API; unknown fields are refused, so that a newer field is never silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_api(self) -> dict[str, Any]:
        """The JSON object that the API server stores; absent fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_duration(text: object) -> timedelta:
    """Reads a GEP-2257 duration such as `5m` or `1h30m`.

    Raises ValueError for anything else. https://gateway-api.sigs.k8s.io/geps/gep-2257/
    """
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or len(text) > 32 or not re.fullmatch(_DURATION[1:-1], text):
        raise ValueError("not a duration: write it as 30s, 5m or 1h30m")
    return sum((int(number) * _UNIT[unit] for number, unit in _PART.findall(text)), timedelta())


def format_duration(duration: timedelta) -> str:
    """Writes a duration as GEP-2257 does, largest unit first."""
    rest = int(duration / timedelta(milliseconds=1))
    if rest <= 0:
        return "0s"
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def whole_seconds(duration: timedelta) -> timedelta:
    """A duration in whole seconds, rounded up: who waits for so long is not too early."""
    return timedelta(seconds=math.ceil(duration.total_seconds()))


def _with_zone(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time needs a zone: write it as 2026-12-31T18:00:00Z")
    return at


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as metav1.MicroTime writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_seconds(at: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time writes it; rounded down."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "maxLength": 32}),
]
Time = Annotated[
    datetime,
    AfterValidator(_with_zone),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Seconds = Annotated[
    datetime,
    AfterValidator(_with_zone),
    PlainSerializer(format_seconds, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

AT_LEAST_A_SECOND: Final = cel(("duration(self) >= duration('1s')", "at least 1s"))

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
Uid = Annotated[str, Field(min_length=1, max_length=64)]


class Condition(Model):
    """One aspect of an object's state, as metav1.Condition has it."""

    type: str = Field(max_length=64, description="Which aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(max_length=64, description="One word for why; it belongs to this condition and status alone.")
    message: str = Field(max_length=4096, description="What it means and what to change.")
    last_transition_time: Seconds = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        default=None, description="The generation of the object that this is about."
    )


class Owner(BaseModel):
    """An owner reference, as far as valetkey looks at it."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    api_version: str
    kind: str
    name: str
    uid: str


class Metadata(BaseModel):
    """Object metadata, as far as valetkey looks at it."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Owner, ...] = ()

    @property
    def terminating(self) -> bool:
        """Whether somebody has asked for its deletion."""
        return self.deletion_timestamp is not None
