"""Issues tokens: JWTs (RFC 9068) with the claims of `access.claims.Claims`, and opaque refresh tokens.

In: a user or a device from the database. Out: a signed JWT, which `access.tokens` verifies in every service.
"""

import hashlib
import hmac
import secrets
import time

import jwt
import msgspec

from access.claims import Claims
from access.tokens import ALGORITHM, AUDIENCE, TOKEN_TYPE
from auth.accounts import User
from auth.devices import Device
from auth.errors import ExpiredKeyError
from auth.tokens.keys import KeyRing
from database.ids import new_id

MANAGE_DEVICES = "devices:manage"
READ = "readings:read"
USER_SCOPE = f"readings:write {READ} {MANAGE_DEVICES} alarms:manage"
DEVICE_SCOPE = "readings:write"
# RFC 9068, 2.2, requires the client (RFC 8693, 4.3) that a token was issued to. Clients are not registered here: all
# programs that log users in count as one first-party client, and each device is a client of its own.
FIRST_PARTY_CLIENT = "tidegate"


class NewApiKey(msgspec.Struct, frozen=True):
    """What an API key permits; times are in seconds since 1970, `scope` is separated by spaces."""

    name: str
    scope: str
    devices: tuple[str, ...] | None
    created_at: int
    expires_at: int


class IssuingKey(msgspec.Struct, frozen=True):
    """The API key that a device's token is issued with, and when it expires (seconds since 1970)."""

    id: str
    expires_at: int


class IssuedToken(msgspec.Struct, frozen=True):
    """A signed JWT, its claims, and the id of the key that signed it."""

    token: str
    claims: Claims
    kid: str

    @property
    def expires_in(self) -> int:
        """The token's lifetime in seconds."""
        return self.claims.exp - self.claims.iat


class TokenIssuer:
    """Signs tokens with the current signing key, in any thread."""

    def __init__(self, keys: KeyRing, *, issuer: str, access_s: int, device_s: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._access_s = access_s
        self._device_s = device_s

    def for_user(self, user: User, sid: str) -> IssuedToken:
        """Return an access token of the session `sid`."""
        now = int(time.time())
        return self._sign(
            Claims(
                iss=self._issuer,
                aud=AUDIENCE,
                sub=user.id,
                iat=now,
                exp=now + self._access_s,
                jti=new_id(),
                owner=user.id,
                scope=USER_SCOPE,
                gen=user.gen,
                sid=sid,
                client_id=FIRST_PARTY_CLIENT,
            )
        )

    def for_api_key(self, key_id: str, new: NewApiKey, owner_id: str) -> IssuedToken:
        """Return an API key of a user."""
        return self._sign(
            Claims(
                iss=self._issuer,
                aud=AUDIENCE,
                sub=owner_id,
                iat=new.created_at,
                exp=new.expires_at,
                jti=key_id,
                owner=owner_id,
                scope=new.scope,
                gen=0,
                key=key_id,
                devices=new.devices,
                client_id=key_id,
            )
        )

    def for_device(self, device: Device, issuing_key: IssuingKey | None = None) -> IssuedToken:
        """Return a device's token, with its sensor type and location as registered.

        Issued with an API key, it expires with the key at the latest; ExpiredKeyError if that is now.
        """
        now = int(time.time())
        expires_at = now + self._device_s
        if issuing_key is not None:
            expires_at = min(expires_at, issuing_key.expires_at)
            if expires_at <= now:
                raise ExpiredKeyError
        return self._sign(
            Claims(
                iss=self._issuer,
                aud=AUDIENCE,
                sub=device.id,
                iat=now,
                exp=expires_at,
                jti=new_id(),
                owner=device.owner_id,
                scope=DEVICE_SCOPE,
                gen=device.gen,
                device=device.id,
                sensor_type=device.sensor_type,
                location=device.location,
                issuing_key=None if issuing_key is None else issuing_key.id,
                client_id=device.id,
            )
        )

    def _sign(self, claims: Claims) -> IssuedToken:
        keys = self._keys.current
        header = {"typ": TOKEN_TYPE, "kid": keys.kid}
        payload = msgspec.to_builtins(claims)
        token = jwt.encode(payload, keys.private_key, algorithm=ALGORITHM, headers=header)
        return IssuedToken(token, claims, keys.kid)


def new_secret() -> str:
    """Return 256 random bits as text, which reveal nothing about the owner: a refresh token or provisioning key."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """Return the hash to store of a random secret: SHA-256, as nobody can guess it, and no slow hash helps."""
    return hashlib.sha256(secret.encode()).hexdigest()


def used_by_hash(token: str, network: str, user_agent: str) -> str:
    """Return the fingerprint of the client that used a refresh token: HMAC-SHA-256 of network and User-Agent, in hex.

    The HMAC key is the token, which is not stored: a reader of the database can neither find the address by trying all
    of them nor link two sessions to one person.
    """
    return hmac.new(token.encode(), f"{network}\n{user_agent}".encode(errors="surrogateescape"), "sha256").hexdigest()
