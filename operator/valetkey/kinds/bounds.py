"""How long a policy's grants live and what keeps them alive, how many there are at once, and how often another."""

from __future__ import annotations

from pydantic import Field

from valetkey.kinds.base import AT_LEAST_A_SECOND, Duration, Model, cel, ruled


class TTL(Model):
    """How long a grant lives."""

    model_config = ruled(
        (
            "!has(self.max) || !has(self.default) || duration(self.max) >= duration(self.default)",
            "max is at least default",
        )
    )

    default: Duration | None = Field(
        default=None, description="Where the request says nothing. Default 5m.", json_schema_extra=AT_LEAST_A_SECOND
    )
    max: Duration | None = Field(
        default=None, description="At most. Default: the default.", json_schema_extra=AT_LEAST_A_SECOND
    )


class Heartbeat(Model):
    """How often an agent has to say that it still works."""

    within: Duration = Field(
        description="Its pod changes the annotation valetkey.dev/heartbeat of the request at least so often, else the "
        "grant ends. At least 15s and at most 1h.",
        json_schema_extra=cel(
            ("duration(self) >= duration('15s') && duration(self) <= duration('1h')", "at least 15s and at most 1h")
        ),
    )


class Limits(Model):
    """How much at once, and how often; counted for each of the agents' ServiceAccounts."""

    active: int | None = Field(
        default=None,
        ge=1,
        le=10000,
        description="Live or opening grants per ServiceAccount. Default: the chart's value.",
    )
    per_hour: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description=(
            "Grants per ServiceAccount within any hour, whatever has become of them and of their requests. "
            "Left out: as many as are asked for."
        ),
    )
    cooldown: Duration | None = Field(
        default=None,
        description=(
            "How long after one grant of a ServiceAccount was opened the next may be, at most 1h. Left out: at once."
        ),
        json_schema_extra=cel(
            ("duration(self) >= duration('1s') && duration(self) <= duration('1h')", "at least 1s and at most 1h")
        ),
    )

    @property
    def remembers(self) -> int:
        """How many of an account's latest grants have to be known; 0 where nothing says how often."""
        return self.per_hour or (0 if self.cooldown is None else 1)
