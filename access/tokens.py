"""Token verification: from a JWT and the issuer's public keys to typed claims, or to an error code.

The rules are those of RFC 8725: one algorithm (EdDSA), the explicit type `at+jwt`, every claim required and typed, a
maximum lifetime and a maximum length. Keys come from the issuer's JWKS and are looked up by `kid` in a dict, never by
path or URL.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Literal

import aiohttp
import jwt
import msgspec

from access.claims import Claims, Verified, fault_of
from runtime.background import background
from runtime.logs import logger
from runtime.lru_cache import LRUCache

log = logger("access.tokens")

AUDIENCE = "tidegate"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068's media type, no secret
ALGORITHM = "EdDSA"
# A device token whose fields all have their maximum length takes about 3 kB.
MAX_TOKEN_CHARS = 8192
# Tokens that were verified before, in characters: some 1,500 usual ones. Clients of HTTP send one with every request,
# and to verify it takes 160 us. They are known by their SHA-256: a token is a secret that need not be kept.
_REMEMBERED_CHARS = 1024 * 1024
# How far the issuer's clock may be ahead of this host's. Expiry gets no such leeway.
CLOCK_AHEAD_S = 60
# A wrong clock is logged at most once in this interval, not for every token.
_WARN_EVERY_S = 60.0

REFRESH_EVERY_S = 60.0
# An unknown `kid` triggers a refresh at once, but not more often than this.
REFRESH_AT_MOST_EVERY_S = 2.0
RETRY_EVERY_S = 1.0

Code = Literal["unauthorized", "expired", "revoked", "forbidden", "unavailable"]
FetchJwks = Callable[[], Awaitable[dict[str, Any]]]
PublicKey = Any  # cryptography's Ed25519PublicKey, as PyJWT returns it


class TokenError(Exception):
    """A token was not accepted. `code` goes to the client; the message holds nothing that helps an attacker."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


class KeySet:
    """The public keys of one issuer, by `kid`. Known keys are kept while the issuer is unreachable."""

    def __init__(self, fetch: FetchJwks, *, every_s: float | None = None, at_most_every_s: float | None = None) -> None:
        """Refresh with `fetch`: by default every minute, and at most every 2 s for an unknown key."""
        self._fetch = fetch
        self._every_s = REFRESH_EVERY_S if every_s is None else every_s
        self._at_most_every_s = REFRESH_AT_MOST_EVERY_S if at_most_every_s is None else at_most_every_s
        self._answered = False
        self._outage_logged = False
        self._keys: dict[str, PublicKey] = {}
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    @property
    def loaded(self) -> bool:
        """True once keys have been fetched."""
        return bool(self._keys)

    @property
    def up_to_date(self) -> bool:
        """True when the last refresh succeeded: then a key that is missing here does not exist."""
        return self._answered

    def get(self, kid: str) -> PublicKey | None:
        """Return the key with that id, or None."""
        return self._keys.get(kid)

    async def find(self, kid: str) -> PublicKey | None:
        """Return the key, or None; an unknown key triggers a refresh first, as the issuer may have rotated its keys.

        Lookups within 2 s of the last refresh wait for the next one and share it; otherwise forged key ids could keep a
        rotated key from being found, and its tokens would be refused permanently. While the issuer is unreachable,
        lookups do not wait.
        """
        if kid in self._keys:
            return self._keys[kid]
        arrived = time.monotonic()
        async with self._refreshing:
            while kid not in self._keys and self._refreshed_at < arrived:
                pause = self._refreshed_at + self._at_most_every_s - time.monotonic()
                if pause <= 0:
                    await self.refresh()
                elif self._answered:
                    await asyncio.sleep(pause)
                else:
                    break
        return self._keys.get(kid)

    async def ensure_fetched(self) -> bool:
        """Return whether there are keys; fetch them first if that was never tried, so only the first callers wait."""
        if not self._keys and self._refreshed_at == float("-inf"):
            async with self._refreshing:
                if self._refreshed_at == float("-inf"):
                    await self.refresh()
        return self.loaded

    async def refresh(self) -> bool:
        """Fetch the issuer's keys; return False if it is unreachable, which leaves the keys unchanged."""
        self._refreshed_at = time.monotonic()
        try:
            self._keys = public_keys(await self._fetch())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError, jwt.PyJWTError) as error:
            if not self._outage_logged:
                self._outage_logged = True
                log.warning("The issuer's keys could not be fetched.", error=f"{type(error).__name__}: {error}")
            self._answered = False
            return False
        if self._outage_logged:
            self._outage_logged = False
            log.info("The issuer's keys are fetched again.")
        self._answered = True
        return True

    async def check(self) -> None:
        """Raise TokenError while there is no key: for `/readyz`."""
        if not self.loaded:
            raise TokenError("unavailable", "no keys have been fetched yet")

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["KeySet"]:
        """Fetch the keys now, and again every minute until the context ends."""
        await self.refresh()
        async with background(self._keep_fresh(), name="keys"):
            yield self

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._every_s if self.loaded else RETRY_EVERY_S)
            try:
                await self.refresh()
            except Exception:  # a bug: the known keys go on verifying
                log.exception("The issuer's keys could not be read.")


def public_keys(jwks: dict[str, Any]) -> dict[str, PublicKey]:
    """Return the usable Ed25519 keys of a JWKS by `kid`; raise ValueError if it is no JWKS or has no such key."""
    items = jwks.get("keys")
    if not isinstance(items, list):
        raise ValueError("the issuer's answer is not a JWKS")  # noqa: TRY004 - a bad document, not a bad call
    keys = {}
    for item in items:
        if isinstance(item, dict) and item.get("kty") == "OKP" and item.get("crv") == "Ed25519" and item.get("kid"):
            keys[str(item["kid"])] = jwt.PyJWK(item, algorithm=ALGORITHM).key
    if not keys:  # an issuer that lost its keys must not make its verifiers drop them
        raise ValueError("the issuer's answer holds no usable key")
    return keys


def fetch_jwks_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchJwks:
    """Return a function that fetches the JWKS of the auth service at `auth_url`."""

    async def fetch() -> dict[str, Any]:
        url = auth_url.rstrip("/") + "/.well-known/jwks.json"
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=dict[str, Any])

    return fetch


class TokenVerifier:
    """Verifies the tokens of one issuer. If `issuer` is empty, `iss` may be any text."""

    def __init__(self, keys: KeySet, issuer: str = "") -> None:
        self._keys = keys
        self._issuer = issuer
        self._warn_at = float("-inf")
        # The header of the last valid token, and the key that it names: all tokens of a key have the same header, and
        # PyJWT takes a whole token apart, at a third of a verification's time, to read it.
        self._known_header = ""
        self._known_kid = ""
        self._verified: LRUCache[bytes, tuple[Verified, PublicKey]] = LRUCache(_REMEMBERED_CHARS)

    async def ready(self) -> bool:
        """Return whether there are keys to verify tokens with."""
        return await self._keys.ensure_fetched()

    async def verify(self, token: object) -> Verified:
        """Return the claims of a valid token; raise TokenError otherwise.

        The code `unavailable` says nothing about the token: its key or its time of issue cannot be checked here yet.
        """
        if not isinstance(token, str) or not token:
            raise TokenError("unauthorized", "a token is required")
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError("unauthorized", "the token is too long")
        digest = sha256(token.encode(errors="surrogatepass")).digest()
        verified = self._verified_before(digest)
        if verified is None:
            verified, key, is_lasting = await self._verify(token)
            if is_lasting:
                self._verified.put(digest, (verified, key), len(token))
        self._require_issued_in_the_past(verified)
        return verified

    def _verified_before(self, digest: bytes) -> Verified | None:
        """Return the claims of a token that was verified with a key which still is the issuer's, and has not expired.

        After each refresh of the keys it is verified again.
        """
        verified, key = self._verified.get(digest) or (None, None)
        if verified is None or verified.exp <= time.time() or self._keys.get(verified.kid) is not key:
            return None
        return verified

    async def _verify(self, token: str) -> tuple[Verified, PublicKey, bool]:
        """Return the claims, the key that signed them, and whether they hold until the key or they themselves end.

        Those with `nbf` may not: they would begin again if this clock were set back.
        """
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
        if fault := fault_of(claims):
            raise TokenError("unauthorized", fault)
        self._known_header, self._known_kid = token.partition(".")[0], kid
        verified = Verified(**{name: getattr(claims, name) for name in Claims.__struct_fields__}, kid=kid)
        return verified, key, "nbf" not in payload

    def _require_issued_in_the_past(self, claims: Claims) -> None:
        """Refuse, for now, a token issued in the future: one of the two clocks is wrong, and the token may be valid."""
        ahead_s = claims.iat - time.time()
        if ahead_s <= CLOCK_AHEAD_S:
            return
        if time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + _WARN_EVERY_S
            event = "A valid token was issued in the future: this clock is behind, or the issuer's is ahead."
            log.warning(event, seconds=round(ahead_s))
        raise TokenError("unavailable", "the token was issued in the future, by the clock of this server")

    async def _key(self, token: str) -> tuple[str, PublicKey]:
        """Return the id that the token names as its signing key, and that key."""
        if self._known_header and token.partition(".")[0] == self._known_header:
            kid = self._known_kid
        else:
            kid = _key_id(token)
        key = await self._keys.find(kid)
        if key is None and not self._keys.loaded:
            raise TokenError("unavailable", "no keys have been fetched yet")
        if key is None and not self._keys.up_to_date:
            raise TokenError("unavailable", "the key is not known here, and the issuer is unreachable")
        if key is None:
            raise TokenError("unauthorized", "the token is signed with an unknown key")
        return sys.intern(kid), key  # sessions keep it: all sessions of one key share one string


def _key_id(token: str) -> str:
    """Return the id of the key that the token's header names; TokenError if it is no header of these tokens."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenError("unauthorized", "the token is not a JWT") from error
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or header.get("typ") != TOKEN_TYPE or not isinstance(kid, str):
        raise TokenError("unauthorized", "the token is of another type")
    if "crit" in header:  # RFC 7515: extensions that are not understood must be refused
        raise TokenError("unauthorized", "the token requires an extension that is not supported here")
    return kid
