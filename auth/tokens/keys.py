"""The key ring of a running service: one key signs tokens, all keys verify them.

In: keys from the database (auth/tokens/stored_keys.py) or from files (auth/tokens/key_files.py). Out: the signing key,
and the JWKS (RFC 7517, RFC 8037) of all keys. Keys in the database are reread continually, so that a rotation by an
operator or another replica needs no restart: a token never names a key that is missing from any replica's JWKS.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from access.tokens import ALGORITHM
from runtime.background import background
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.process import CannotGoOnError

log = logger("auth.tokens.keys")

# Together with JWKS_AGE_S: every replica switches to a key within 1 s of its time.
REREAD_EVERY_S = 0.75
# Concurrent requests for the JWKS share one database query.
JWKS_AGE_S = 0.2


class KeysError(CannotGoOnError):
    """The signing key is unusable, so no token can be issued; or a key cannot be changed as requested."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The signing key, and the public parts (the `x` of a JWK) of all keys by `kid`."""

    kid: str
    private_key: Ed25519PrivateKey
    public: dict[str, str]


class KeyRing:
    """The keys of this process. Enter `kept_fresh` to follow rotations."""

    def __init__(self, keys: Keys, reread: Callable[[Keys], Awaitable[Keys]] | None = None) -> None:
        """Hold `keys`; `reread` takes them and returns the current ones. None: keys never change."""
        self._keys = keys
        self._reread = reread
        self._read_at = time.monotonic()
        self._reading = asyncio.Lock()
        self._failing = False

    @property
    def current(self) -> Keys:
        """The keys of this moment: a signing key and its id that belong together, in any thread."""
        return self._keys

    async def jwks(self) -> dict[str, Any]:
        """Return the document of `/.well-known/jwks.json`, also for an `access.tokens.KeySet` of this process.

        It is less than 0.2 s old at the time of the call. While the database does not answer, it is the last known
        one, returned at once.
        """
        called_at = time.monotonic()
        if self._outdated(called_at):
            async with self._reading:
                if self._outdated(called_at):  # not if another call has reread them meanwhile
                    await self._read()
        return {"keys": [_jwk(kid, x) for kid, x in self._keys.public.items()]}

    def _outdated(self, now: float) -> bool:
        return self._reread is not None and not self._failing and self._read_at <= now - JWKS_AGE_S

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["KeyRing"]:
        """Reread the keys every 0.75 s until the context ends."""
        async with background(self._keep_fresh(), name="signing keys"):
            yield self

    async def _keep_fresh(self) -> None:
        while self._reread is not None:
            await asyncio.sleep(REREAD_EVERY_S)
            async with self._reading:
                await self._read()

    async def _read(self) -> None:
        if self._reread is None:
            return
        started_at = time.monotonic()
        try:
            keys = await self._reread(self._keys)
        except Exception as error:  # noqa: BLE001 - the known keys stay in use until the next try
            if not self._failing:  # logged once, not every second of an outage
                why = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
                log.warning("The signing keys could not be read again.", why=why)
            self._failing = True
            return
        if self._failing:
            log.info("The signing keys are read again.")
        self._failing = False
        self._read_at = started_at  # commits after that may be missing
        if keys.kid != self._keys.kid:
            # A key must verify everywhere before it signs anywhere: after this pause, no replica serves a JWKS that was
            # read before the key existed. Otherwise a gateway could refuse a valid token permanently.
            self._keys = replace(self._keys, public=keys.public)
            await asyncio.sleep(JWKS_AGE_S)
            log.info("Another key signs from now on.", kid=keys.kid, before=self._keys.kid)
        self._keys = keys


def _jwk(kid: str, x: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": ALGORITHM}


def thumbprint(public_key: str) -> str:
    """Return the `kid` of an Ed25519 key: its RFC 7638 thumbprint, so that a key has the same id everywhere."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public_key}"}}'
    return base64url(hashlib.sha256(members.encode()).digest())


def base64url(raw: bytes) -> str:
    """Return base64url without padding, as JOSE uses it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
