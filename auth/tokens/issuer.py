"""Issues tokens: JWTs with exactly the claims of DESIGN.md 5.1 and RFC 9068's `client_id`, and opaque refresh tokens.

In: a user or a device from the database. Out: signed text. `access.tokens` checks it, here and in every service.
"""

import hashlib
import hmac
import secrets
import time

import jwt
import msgspec

from access.tokens import ALGORITHM, AUDIENCE, TOKEN_TYPE, Claims
from auth.accounts import User
from auth.devices import Device
from auth.ids import new_id
from auth.tokens.keys import KeyRing

MANAGE_DEVICES = "devices:manage"
USER_SCOPE = f"readings:write readings:read {MANAGE_DEVICES}"
DEVICE_SCOPE = "readings:write"
# RFC 9068, 2.2, asks for the client (RFC 8693, 4.3) that a token was issued to. Nobody registers clients here: whoever
# logs in a user is one first-party client, and a device is a client of its own.
FIRST_PARTY_CLIENT = "tidegate"


class Issued(msgspec.Struct, frozen=True):
    """A signed token and what it says."""

    token: str
    claims: Claims

    @property
    def expires_in(self) -> int:
        """Its life in seconds."""
        return self.claims.exp - self.claims.iat


class TokenIssuer:
    """Signs with the newest key."""

    def __init__(self, keys: KeyRing, *, issuer: str, access_s: int, device_s: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._access_s = access_s
        self._device_s = device_s

    def for_user(self, user: User, sid: str) -> Issued:
        """Return an access token of the refresh family `sid`."""
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

    def for_device(self, device: Device) -> Issued:
        """Return a device's token, with its sensor type and location as registered."""
        now = int(time.time())
        return self._sign(
            Claims(
                iss=self._issuer,
                aud=AUDIENCE,
                sub=device.id,
                iat=now,
                exp=now + self._device_s,
                jti=new_id(),
                owner=device.owner_id,
                scope=DEVICE_SCOPE,
                gen=device.gen,
                device=device.id,
                sensor_type=device.sensor_type,
                location=device.location,
                client_id=device.id,
            )
        )

    def _sign(self, claims: Claims) -> Issued:
        header = {"typ": TOKEN_TYPE, "kid": self._keys.kid}
        payload = msgspec.to_builtins(claims)
        return Issued(jwt.encode(payload, self._keys.private_key, algorithm=ALGORITHM, headers=header), claims)


def new_refresh_token() -> str:
    """Return 256 random bits as text; it says nothing of its owner."""
    return secrets.token_urlsafe(32)


def refresh_token_hash(token: str) -> str:
    """Return what is stored. A plain hash is enough: nobody guesses 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def used_by_hash(token: str, network: str, user_agent: str) -> str:
    """Return by whom a refresh token was used, as it is stored: HMAC-SHA-256 of network and User-Agent in hex.

    The key is the token, which is stored nowhere: whoever reads the database can neither learn the address, of which
    there are few enough to try all, nor tell that two sessions are of one person.
    """
    return hmac.new(token.encode(), f"{network}\n{user_agent}".encode(errors="surrogateescape"), "sha256").hexdigest()
