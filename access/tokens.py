"""Token verification: from a JWT and the issuer's public keys to typed claims, or to the code of a refusal.

The rules are RFC 8725's: one algorithm (EdDSA), the explicit type `at+jwt`, every claim required and typed, a maximum
lifetime and a maximum length. Keys come from the issuer's JWKS and are looked up by `kid` in a dict, never by path or
address.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import jwt
import msgspec

from readings.place import Place
from runtime.background import background
from runtime.logs import logger

log = logger("access.tokens")

AUDIENCE = "tidegate"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068's media type, no secret
ALGORITHM = "EdDSA"
# A device token with every field at its longest has some 3 kB.
MAX_TOKEN_CHARS = 8192
# Device tokens live for 30 days; no honest issuer goes beyond.
MAX_LIFETIME_S = 31 * 86400
# How far the issuer's clock may be ahead of ours. An expiry gets no such leeway: expired is expired.
CLOCK_AHEAD_S = 60
# A clock that is wrong is told of once in this time, not with every token.
_TELL_EVERY_S = 60.0

REFRESH_EVERY_S = 60.0
# An unknown `kid` asks the issuer at once, but not more often than this.
REFRESH_AT_MOST_EVERY_S = 2.0
RETRY_EVERY_S = 1.0

Code = Literal["unauthorized", "expired", "revoked", "forbidden", "unavailable"]
FetchJwks = Callable[[], Awaitable[dict[str, Any]]]
PublicKey = Any  # cryptography's Ed25519PublicKey, held as PyJWT holds it


class TokenError(Exception):
    """Why a token is not taken. `code` goes to the client; the message tells what no attacker can use."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


class Claims(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a verified token says. `device` is set in a device's token and there only; times are seconds since 1970.

    `client_id` is RFC 9068's: for whom the token was issued. Tokens of before it was given have none.
    """

    iss: str
    aud: str
    sub: str
    iat: int
    exp: int
    jti: str
    owner: str
    scope: str
    gen: int
    sid: str | None = None
    device: str | None = None
    sensor_type: str | None = None
    location: str | Place | None = None
    client_id: str | None = msgspec.field(default=None, name="client_id")

    def allows(self, scope: str) -> bool:
        """Say whether `scope` is among the space-separated scopes."""
        return scope in self.scope.split(" ")


class Verified(Claims, frozen=True, kw_only=True):
    """Claims whose signature was checked. `kid` is the key's that signed them; it comes from the token's header."""

    kid: str

    def payload(self) -> Claims:
        """Return what the token itself says."""
        return Claims(**{name: getattr(self, name) for name in Claims.__struct_fields__})


class KeySet:
    """The public keys of one issuer, by `kid`. Keeps what it has while the issuer is away."""

    def __init__(self, fetch: FetchJwks, *, every_s: float | None = None, at_most_every_s: float | None = None) -> None:
        """Ask with `fetch` every minute, and for an unknown key at most every 2 s, unless told otherwise."""
        self._fetch = fetch
        self._every_s = REFRESH_EVERY_S if every_s is None else every_s
        self._at_most_every_s = REFRESH_AT_MOST_EVERY_S if at_most_every_s is None else at_most_every_s
        self._answered = False
        self._told = False
        self._keys: dict[str, PublicKey] = {}
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    @property
    def loaded(self) -> bool:
        """True once the issuer has answered."""
        return bool(self._keys)

    @property
    def answered(self) -> bool:
        """True when the issuer answered the last question: a key that is not here does not exist."""
        return self._answered

    def get(self, kid: str) -> PublicKey | None:
        """Return the key of that id, or None."""
        return self._keys.get(kid)

    async def find(self, kid: str) -> PublicKey | None:
        """Return the key, or None; when it is unknown, ask the issuer first: it may have rotated.

        Whoever comes too soon after the last question waits for the next, which is asked for all: else made-up ids
        would keep a new key from being found, and its tokens would be refused for good. While the issuer is away
        nobody waits.
        """
        if kid in self._keys:
            return self._keys[kid]
        arrived = time.monotonic()
        async with self._asking:
            while kid not in self._keys and self._asked_at < arrived:
                pause = self._asked_at + self._at_most_every_s - time.monotonic()
                if pause <= 0:
                    await self.refresh()
                elif self._answered:
                    await asyncio.sleep(pause)
                else:
                    break
        return self._keys.get(kid)

    async def had(self) -> bool:
        """Say whether there are keys; the issuer is asked first if it never was, and nobody waits for it again."""
        if not self._keys and self._asked_at == float("-inf"):
            async with self._asking:
                if self._asked_at == float("-inf"):
                    await self.refresh()
        return self.loaded

    async def refresh(self) -> bool:
        """Ask the issuer for its keys; False when it does not answer, and the keys stay as they are."""
        self._asked_at = time.monotonic()
        try:
            self._keys = public_keys(await self._fetch())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError, jwt.PyJWTError) as error:
            if not self._told:  # once an outage
                self._told = True
                log.warning("The issuer's keys could not be fetched.", error=f"{type(error).__name__}: {error}")
            self._answered = False
            return False
        if self._told:
            self._told = False
            log.info("The issuer's keys are fetched again.")
        self._answered = True
        return True

    async def check(self) -> None:
        """Raise when there is no key yet: for `/readyz`."""
        if not self.loaded:
            raise TokenError("unavailable", "no keys have been fetched yet")

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["KeySet"]:
        """Ask for the keys now, and again every minute as long as the context lasts."""
        await self.refresh()
        async with background(self._keep_fresh(), name="keys"):
            yield self

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._every_s if self.loaded else RETRY_EVERY_S)
            try:
                await self.refresh()
            except Exception:  # a fault of ours: the keys that are known go on verifying
                log.exception("The issuer's keys could not be read.")


def public_keys(jwks: dict[str, Any]) -> dict[str, PublicKey]:
    """Return the usable Ed25519 keys of a JWKS by `kid`; ValueError when the document is not one."""
    items = jwks.get("keys")
    if not isinstance(items, list):
        raise ValueError("the issuer's answer is not a JWKS")  # noqa: TRY004 - a bad document, not a bad call
    keys = {}
    for item in items:
        if isinstance(item, dict) and item.get("kty") == "OKP" and item.get("crv") == "Ed25519" and item.get("kid"):
            keys[str(item["kid"])] = jwt.PyJWK(item, algorithm=ALGORITHM).key
    if not keys:  # an issuer that has lost its keys must not make us forget them
        raise ValueError("the issuer's answer holds no usable key")
    return keys


def fetch_jwks_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchJwks:
    """Fetch the keys from the auth service at `auth_url`."""

    async def fetch() -> dict[str, Any]:
        url = auth_url.rstrip("/") + "/.well-known/jwks.json"
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=dict[str, Any])

    return fetch


class TokenVerifier:
    """Checks tokens of one issuer. With `issuer` empty, whoever signs with the issuer's keys may name itself freely."""

    def __init__(self, keys: KeySet, issuer: str = "") -> None:
        self._keys = keys
        self._issuer = issuer
        self._tell_at = float("-inf")

    async def ready(self) -> bool:
        """Say whether there are keys to check a token with."""
        return await self._keys.had()

    async def verify(self, token: object) -> Verified:
        """Return the claims of a token in force; TokenError says why not.

        `unavailable` is no word on the token: its key, or the time that it was issued at, cannot be judged here yet.
        """
        if not isinstance(token, str) or not token:
            raise TokenError("unauthorized", "a token is required")
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError("unauthorized", "the token is too long")
        kid, key = await self._key(token)
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._issuer or None,
                options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"], "verify_iat": False},
            )
            claims = msgspec.convert(payload, Claims)
        except jwt.ExpiredSignatureError as error:
            raise TokenError("expired", "the token has expired") from error
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError, OverflowError) as error:
            raise TokenError("unauthorized", "the token is not valid") from error
        _require_sense(claims)
        self._require_issued(claims)
        return Verified(**{name: getattr(claims, name) for name in Claims.__struct_fields__}, kid=kid)

    def _require_issued(self, claims: Claims) -> None:
        """Refuse for now what was issued in the future: one of two clocks is wrong, and the token may be good."""
        ahead_s = claims.iat - time.time()
        if ahead_s <= CLOCK_AHEAD_S:
            return
        if time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + _TELL_EVERY_S
            told = "A good token was issued in the future: this clock is behind, or the issuer's is ahead."
            log.warning(told, seconds=round(ahead_s))
        raise TokenError("unavailable", "the token was issued at a time that has not come here yet")

    async def _key(self, token: str) -> tuple[str, PublicKey]:
        """Return the key that is to have signed the token, and its id."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenError("unauthorized", "the token is not a JWT") from error
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or header.get("typ") != TOKEN_TYPE or not isinstance(kid, str):
            raise TokenError("unauthorized", "the token is of another kind")
        if "crit" in header:  # RFC 7515: extensions that are not understood must be refused
            raise TokenError("unauthorized", "the token demands an extension that is not known here")
        key = await self._keys.find(kid)
        if key is None and not self._keys.loaded:
            raise TokenError("unavailable", "no keys have been fetched yet")
        if key is None and not self._keys.answered:
            raise TokenError("unavailable", "the key is not known here, and the issuer does not answer")
        if key is None:
            raise TokenError("unauthorized", "the token is signed with a key that is not known")
        return sys.intern(kid), key  # sessions keep it: all of one key share one text


def _require_sense(claims: Claims) -> None:
    if not (claims.sub and claims.jti and claims.owner and claims.iss):
        raise TokenError("unauthorized", "the token has empty claims")
    if not 0 < claims.exp - claims.iat <= MAX_LIFETIME_S:
        raise TokenError("unauthorized", "the token's lifetime is not acceptable")
    if (claims.device is None) == (claims.sid is None):
        raise TokenError("unauthorized", "the token is neither a user's nor a device's")
