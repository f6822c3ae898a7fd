"""How a credential reaches its pod: what is asked, where a grant puts it, and what its request says of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from valetkey.kinds.base import Model, Name, ruled

Way = Literal["Secret", "Sealed"]
"""As policies name them."""

_ONE_WAY: Final = (
    "[has(self.secret), has(self.sealed)].filter(x, x).size() == 1",
    "delivery has exactly one member: secret or sealed",
)


class SecretDelivery(Model):
    """Delivery by a Secret that the pod mounts as an optional volume."""

    name: (
        Annotated[str, Field(min_length=10, max_length=253, pattern=r"^valetkey-[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
        | None
    ) = Field(
        default=None,
        description="The Secret's name, beginning with valetkey-; left out, the one that the pod's volume"
        " `valetkey` names.",
    )


class Sealed(Model):
    """Delivery to one key: who holds its private half opens what the request's status says, and nobody else."""

    public_key: str = Field(
        min_length=44,
        max_length=44,
        pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
        description="The public half of an X25519 key that the agent made for this request: its 32 bytes in base64.",
    )


class Delivery(Model):
    """How the credential reaches the pod: exactly one way."""

    model_config = ruled(_ONE_WAY)

    secret: SecretDelivery | None = Field(default=None, description="By a Secret that the pod mounts.")
    sealed: Sealed | None = Field(
        default=None, description="Sealed to a key that the agent's process holds, in the request's status."
    )

    @property
    def way(self) -> Way | None:
        """As policies name it; None where it is none."""
        if self.sealed is not None:
            return "Sealed"
        return None if self.secret is None else "Secret"


class PlacedSecret(Model):
    """The Secret that the credential is delivered in."""

    name: Name = Field(description="Its name; its namespace is the grant's.")


class GrantDelivery(Model):
    """Where the credential goes: exactly one way."""

    model_config = ruled(_ONE_WAY)

    secret: PlacedSecret | None = Field(default=None, description="Into the Secret that the pod mounts.")
    sealed: Sealed | None = Field(default=None, description="Sealed to this key, into the request's status.")

    @property
    def secret_name(self) -> str | None:
        """The Secret's name, where it is one."""
        return None if self.secret is None else self.secret.name

    def __str__(self) -> str:
        return "sealed to its key" if self.secret is None else f"in Secret {self.secret.name}"


class SecretDelivered(Model):
    """The Secret that holds the credential."""

    name: Name = Field(description="The Secret's name.")


class SealedDelivered(Model):
    """The credential, for the holder of one key."""

    ciphertext: str = Field(
        max_length=65536,
        description="HPKE (RFC 9180) of the files as a JSON object, in base64: the encapsulated key, the sealed text.",
    )
    sequence: int = Field(
        ge=1, description="Higher with each credential that is delivered; a reader opens none that is not higher."
    )


class DeliveryStatus(Model):
    """Where the credential is."""

    secret: SecretDelivered | None = Field(default=None, description="In this Secret.")
    sealed: SealedDelivered | None = Field(default=None, description="Here, sealed to the key that the request names.")
