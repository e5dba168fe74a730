r"""The types of request and response bodies. `runtime/http/fields.py` decodes the requests.

Patterns end in `$(?!\n)`, as Python's `$` also matches before a final newline. ECMAScript, the dialect of JSON Schema,
matches them alike.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from access.tokens import MAX_TOKEN_CHARS
from auth.accounts import User
from auth.devices import Device, DevicePage, Location
from auth.passwords import MAX_PASSWORD_BYTES, MIN_PASSWORD_CHARS
from auth.sessions import TokenPair
from auth.tokens.revocations import Kind, RevocationBatch
from database.ids import ID
from readings.place import Place
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE, Body
from runtime.http.wording import rule
from runtime.times import TimeText, rfc3339

# Devices in one response.
MAX_PAGE = 1000
NAME = r"^[A-Za-z0-9_.:-]+$(?!\n)"
NAME_RULE = rule("made of A-Z a-z 0-9 _ . : - only")
_CURSOR_RULE = rule("a cursor from an earlier response")
DeviceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=NAME, extra=NAME_RULE, examples=["press-1"])]
SensorType = Annotated[str, Meta(min_length=1, max_length=64, pattern=NAME, extra=NAME_RULE, examples=["temperature"])]
LocationText = Annotated[str, Meta(max_length=256, pattern=ONE_LINE, extra=ONE_LINE_RULE, examples=["hall 3"])]
PersonName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)",
        extra=ONE_LINE_RULE,
        examples=["Ada Lovelace"],
    ),
]
# The rule of `<input type=email>` (HTML, 4.10.5.1.5) with RFC 5321's limits: ASCII, international domains in punycode.
Email = Annotated[
    str,
    Meta(
        max_length=254,
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$(?!\n)",
        extra=rule("an e-mail address, for example ada@example.org, in ASCII (a domain as xn--…)"),
        examples=["ada@example.org"],
    ),
]
# At a log-in, any text that fits into a form is accepted: a wrong address is 401, not 422.
TypedEmail = Annotated[str, Meta(max_length=254, pattern=ONE_LINE, extra=ONE_LINE_RULE, examples=["ada@example.org"])]
# The rules are checked in auth/passwords.py, which names each violation; here they are only documented. Lengths count
# the composed form, in which a letter and its accent are one character.
NewPassword = Annotated[
    str,
    Meta(
        examples=["correct horse battery staple"],
        extra_json_schema={
            "format": "password",
            "minLength": MIN_PASSWORD_CHARS,
            "maxLength": MAX_PASSWORD_BYTES,
            "description": f"At most {MAX_PASSWORD_BYTES} bytes of UTF-8; common passwords are refused. Compared as "
            "RFC 8265's OpaqueString: composed letters (NFC) and plain spaces, however they were typed.",
        },
    ),
]
TypedPassword = Annotated[
    str, Meta(examples=["correct horse battery staple"], extra_json_schema={"format": "password"})
]
# Refresh tokens have 43 characters, but any other token is answered with 401, not 422.
RefreshToken = Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]


class Position(Place, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A position as clients send it: degrees within their bounds, altitude in metres."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]
    alt: float | None = None


class SignUp(Body):
    """Body of `POST /user/signup`."""

    name: PersonName
    email: Email
    password: NewPassword


class LogIn(Body):
    """Body of `POST /user/login`."""

    email: TypedEmail
    password: TypedPassword


class Refresh(Body):
    """Body of `POST /user/refresh`."""

    refresh_token: RefreshToken


class LogOut(Body):
    """Body of `POST /user/logout`, which may be omitted."""

    refresh_token: RefreshToken | UnsetType = UNSET


class ProfileChange(Body):
    """Body of `PATCH /user/me`. `endKeys`, with a new password: whether it ends every API key, too."""

    name: PersonName | UnsetType = UNSET
    password: NewPassword | UnsetType = UNSET
    current_password: TypedPassword | UnsetType = UNSET
    end_keys: bool = False


class NewDevice(Body):
    """Body of `POST /devices`."""

    sensor_type: SensorType
    location: LocationText | Position
    name: DeviceName | None = None


class BatchDevice(Body):
    """A row of `POST /devices/batch`. The name is required: by it a repeated row is recognized."""

    name: DeviceName
    sensor_type: SensorType
    location: LocationText | Position


class DeviceChange(Body):
    """Body of `PATCH /devices/{id}`."""

    sensor_type: SensorType | UnsetType = UNSET
    location: LocationText | Position | UnsetType = UNSET
    name: DeviceName | UnsetType = UNSET


class RevocationQuery(msgspec.Struct):
    """Query of `GET /revocations`: the cursor of an earlier response."""

    since: Annotated[str, Meta(pattern=r"^[0-9]{1,18}$(?!\n)", extra=_CURSOR_RULE)] | UnsetType = UNSET


class DeviceQuery(msgspec.Struct):
    """Query of `GET /devices`; the cursor is the last id of the previous page."""

    # Not None: `null` in a query would become None, and it is a valid name.
    name: DeviceName | UnsetType = UNSET
    cursor: Annotated[str, Meta(pattern=ID, extra=_CURSOR_RULE)] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100


class UserAnswer(msgspec.Struct, rename="camel"):
    """A user, as shown to clients."""

    id: str
    name: str
    email: str
    created_at: TimeText

    @classmethod
    def of(cls, user: User) -> "UserAnswer":
        """Return the response for a user."""
        return cls(user.id, user.name, user.email, rfc3339(user.created_at_ms))


class SessionAnswer(msgspec.Struct, rename="camel"):
    """Response to a log-in; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6750's name of the scheme

    @classmethod
    def of(cls, session: TokenPair) -> "SessionAnswer":
        """Return the response for a session."""
        return cls(session.access.token, session.access.expires_in, session.refresh_token)


class DeviceAnswer(msgspec.Struct, rename="camel"):
    """A device, as shown to its owner."""

    id: str
    name: str
    sensor_type: str
    location: Location
    created_at: TimeText

    @classmethod
    def of(cls, device: Device) -> "DeviceAnswer":
        """Return the response for a device."""
        return cls(device.id, device.name, device.sensor_type, device.location, rfc3339(device.created_at_ms))


class DevicesAnswer(msgspec.Struct, rename="camel"):
    """A page of devices; without `nextCursor`, it is the last."""

    items: list[DeviceAnswer]
    next_cursor: str | UnsetType = UNSET

    @classmethod
    def of(cls, page: DevicePage) -> "DevicesAnswer":
        """Return the response for a page."""
        items = [DeviceAnswer.of(device) for device in page.items]
        return cls(items, UNSET if page.next_cursor is None else page.next_cursor)


class DeviceTokenAnswer(msgspec.Struct, rename="camel"):
    """A device's token and its lifetime in seconds."""

    token: str
    expires_in: int


class RevocationItem(msgspec.Struct, omit_defaults=True):
    """Revoked tokens, to be refused until they expire; auth/tokens/revocations.py defines which."""

    kind: Kind
    id: str
    until: TimeText
    gen: int | None = None


class RevocationsAnswer(msgspec.Struct):
    """The revocations since the request's cursor, and the cursor for the next request."""

    items: list[RevocationItem]
    cursor: str

    @classmethod
    def of(cls, revoked: RevocationBatch) -> "RevocationsAnswer":
        """Return the response for a batch of revocations."""
        items = [RevocationItem(it.kind, it.id, rfc3339(it.until_ms), it.gen) for it in revoked.items]
        return cls(items, str(revoked.number))


class Jwk(msgspec.Struct):
    """A public key (RFC 8037), Ed25519."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]


class JwksAnswer(msgspec.Struct):
    """The public keys that verify tokens (RFC 7517)."""

    keys: list[Jwk]
