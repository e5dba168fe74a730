"""The bodies of the calls about API keys."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from auth.api_keys import MAX_PER_OWNER, ApiKey
from auth.http.expiry import Expiry
from auth.tokens.issuer import IssuedToken, NewApiKey
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE, Body
from runtime.times import TimeText, rfc3339

MAX_DEVICES = 100

Scope = Literal["readings:read", "readings:write", "devices:manage", "alarms:manage"]
KeyName = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=ONE_LINE, extra=ONE_LINE_RULE, examples=["nightly export"])
]
DeviceId = Annotated[str, Meta(max_length=64, examples=["0199d3c4-7a20-7c1e-9f4b-5d2a8e6b1c37"])]


class ApiKeyRequest(Body):
    """Body of `POST /keys`. Without `devices` the key is for all of your devices, later ones included."""

    name: KeyName
    scope: Annotated[list[Scope], Meta(min_length=1, max_length=10, examples=[["readings:read"]])]
    devices: Annotated[list[DeviceId], Meta(min_length=1, max_length=MAX_DEVICES)] | UnsetType = UNSET
    expires_at: (
        Annotated[
            Expiry,
            Meta(
                description="RFC 3339 with a zone, or milliseconds since 1970; cut to the second. At most 366 days "
                "ahead, which is the default."
            ),
        ]
        | UnsetType
    ) = UNSET


class ApiKeyItem(msgspec.Struct, rename="camel"):
    """An API key in a list; expired ones are listed until they are deleted, or their place is needed."""

    id: str
    name: str
    scope: list[str]
    created_at: TimeText
    expires_at: TimeText
    devices: list[str] | UnsetType = UNSET

    @classmethod
    def of(cls, key: ApiKey) -> "ApiKeyItem":
        """Return a key's item."""
        devices = UNSET if key.devices is None else key.devices
        created_at, expires_at = rfc3339(key.created_at_ms), rfc3339(key.expires_at_ms)
        return cls(key.id, key.name, key.scope, created_at, expires_at, devices)


class ApiKeysAnswer(msgspec.Struct):
    """All API keys of a user, the oldest first."""

    items: Annotated[list[ApiKeyItem], Meta(max_length=MAX_PER_OWNER)]


class NewApiKeyAnswer(msgspec.Struct, rename="camel"):
    """A new API key. `key` is the token itself, which is never shown again."""

    id: str
    name: str
    scope: list[str]
    created_at: TimeText
    expires_at: TimeText
    key: str
    devices: list[str] | UnsetType = UNSET

    @classmethod
    def of(cls, new: NewApiKey, issued: IssuedToken) -> "NewApiKeyAnswer":
        """Return the response for a new key."""
        return cls(
            issued.claims.jti,
            new.name,
            new.scope.split(" "),
            rfc3339(new.created_at * 1000),
            rfc3339(new.expires_at * 1000),
            issued.token,
            UNSET if new.devices is None else list(new.devices),
        )
