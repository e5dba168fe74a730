"""The bodies of the calls about provisioning keys and claims."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from auth.device_claims import Claimed
from auth.devices import Location
from auth.http.api_key_bodies import KeyName
from auth.http.bodies import NAME, NAME_RULE, SensorType
from auth.http.expiry import Expiry
from auth.provisioning import MAX_PER_OWNER, ProvisioningKey
from auth.tokens.issuer import IssuedToken
from runtime.http.fields import Body
from runtime.http.wording import rule
from runtime.times import TimeText, rfc3339

MAX_DEVICES = 1_000_000
# As random hex: 128 bits.
MIN_SECRET_CHARS, MAX_SECRET_CHARS = 32, 256

HardwareId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=NAME,
        extra=NAME_RULE,
        examples=["00:1b:44:11:3a:b7"],
    ),
]
ClaimSecret = Annotated[
    str,
    Meta(
        min_length=MIN_SECRET_CHARS,
        max_length=MAX_SECRET_CHARS,
        pattern=r"^[\x21-\x7e]+$(?!\n)",
        extra=rule("made of visible ASCII characters only"),
        description="Random text of the device's own, at least 128 bits: for example 32 random hexadecimal digits.",
        examples=["8c1f0a5d3b7e49268c1f0a5d3b7e4926"],
    ),
]


class ProvisioningRequest(Body):
    """Body of `POST /provisioning`. Without `expiresAt` the key works until it is deleted."""

    name: KeyName
    max_devices: Annotated[int, Meta(ge=1, le=MAX_DEVICES, examples=[500])]
    expires_at: (
        Annotated[Expiry, Meta(description="RFC 3339 with a zone, or milliseconds since 1970; in the future.")]
        | UnsetType
    ) = UNSET


class ProvisioningItem(msgspec.Struct, rename="camel"):
    """A provisioning key in a list. `claimed`: how many devices there are that were claimed with it."""

    id: str
    name: str
    max_devices: int
    claimed: int
    created_at: TimeText
    expires_at: TimeText | UnsetType = UNSET

    @classmethod
    def of(cls, key: ProvisioningKey) -> "ProvisioningItem":
        """Return a key's item."""
        created_at = rfc3339(key.created_at_ms)
        return cls(key.id, key.name, key.max_devices, key.claimed, created_at, _expiry(key))


class ProvisioningAnswer(msgspec.Struct):
    """All provisioning keys of a user, the oldest first."""

    items: Annotated[list[ProvisioningItem], Meta(max_length=MAX_PER_OWNER)]


class NewProvisioningAnswer(msgspec.Struct, rename="camel"):
    """A new provisioning key. `key` is what devices claim with, and is never shown again."""

    id: str
    name: str
    max_devices: int
    created_at: TimeText
    key: str
    expires_at: TimeText | UnsetType = UNSET

    @classmethod
    def of(cls, key: ProvisioningKey, text: str) -> "NewProvisioningAnswer":
        """Return the response for a new key."""
        return cls(key.id, key.name, key.max_devices, rfc3339(key.created_at_ms), text, _expiry(key))


class ClaimRequest(Body):
    """Body of `POST /devices/claim`."""

    provisioning_key: Annotated[str, Meta(max_length=100, examples=["tgp_0d5Vn0bG9y3gQ2mXo8yqkK1rI6tZ7uLhWcEaJfPsRxA"])]
    hardware_id: HardwareId
    sensor_type: SensorType
    claim_secret: ClaimSecret


class ClaimAnswer(msgspec.Struct, rename="camel"):
    """A claimed device as registered, and a token for it with its lifetime in seconds."""

    id: str
    name: str
    sensor_type: str
    location: Location
    token: str
    expires_in: int

    @classmethod
    def of(cls, claimed: Claimed, issued: IssuedToken) -> "ClaimAnswer":
        """Return the response to a claim."""
        device = claimed.device
        return cls(device.id, device.name, device.sensor_type, device.location, issued.token, issued.expires_in)


def _expiry(key: ProvisioningKey) -> TimeText | UnsetType:
    return UNSET if key.expires_at_ms is None else rfc3339(key.expires_at_ms)
