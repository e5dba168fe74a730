"""The keys that sign tokens, as a running service holds them: one signs, all of them verify.

In: keys from the database (auth/tokens/stored_keys.py) or from files (auth/tokens/key_files.py). Out: the key that
signs, and the JWKS (RFC 7517, RFC 8037) that verifies. Keys in the database are read again all the time, so that a
rotation by an operator or another replica needs no restart: a token never names a key that the JWKS of any replica
does not have.
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
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.process import CannotGoOnError

log = logger("auth.tokens.keys")

# With JWKS_AGE_S, a key signs within 1 s of its time everywhere.
REREAD_EVERY_S = 0.75
# Many who ask for the JWKS at once are answered from one look into the database.
JWKS_AGE_S = 0.2


class KeysError(CannotGoOnError):
    """The signing key cannot be used, so no token can be issued; or a key cannot be changed as asked."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The key that signs, and the public parts (a JWK's `x`) of all by `kid`."""

    kid: str
    private_key: Ed25519PrivateKey
    public: dict[str, str]


class KeyRing:
    """The keys of this process."""

    def __init__(self, keys: Keys, reread: Callable[[Keys], Awaitable[Keys]] | None = None) -> None:
        """Hold `keys`; `reread` gives those of now, from the ones before. None: they never change."""
        self._keys = keys
        self._reread = reread
        self._read_at = time.monotonic()
        self._reading = asyncio.Lock()
        self._failing = False

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self._keys.kid

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key that signs."""
        return self._keys.private_key

    async def jwks(self) -> dict[str, Any]:
        """Return the document of `/.well-known/jwks.json`; a `access.tokens.KeySet` of this process fetches it too.

        What it says was true less than 0.2 s before the call; while the database does not answer, it is what was last
        read, and nobody waits.
        """
        asked_at = time.monotonic()
        if self._outdated(asked_at):
            async with self._reading:
                if self._outdated(asked_at):  # of many who waited, the first has read for all
                    await self._read()
        return {"keys": [_jwk(kid, x) for kid, x in self._keys.public.items()]}

    def _outdated(self, now: float) -> bool:
        return self._reread is not None and not self._failing and self._read_at <= now - JWKS_AGE_S

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator["KeyRing"]:
        """Read the keys again all the time as long as the context lasts."""
        task = asyncio.create_task(self._keep_fresh(), name="signing keys")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _keep_fresh(self) -> None:
        while self._reread is not None:
            await asyncio.sleep(REREAD_EVERY_S)
            async with self._reading:
                await self._read()

    async def _read(self) -> None:
        if self._reread is None:
            return
        begun_at = time.monotonic()
        try:
            keys = await self._reread(self._keys)
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys that are known serve until the next try
            if not self._failing:  # told once, not every second of an outage
                why = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
                log.warning("The signing keys could not be read again.", why=why)
            self._failing = True
            return
        if self._failing:
            log.info("The signing keys are read again.")
        self._failing = False
        self._read_at = begun_at  # what was committed later may be missing
        if keys.kid != self._keys.kid:
            # It verifies everywhere before it signs anywhere: after this pause no replica answers with what it had
            # read before the key was there. Else a gateway could refuse a good token for good.
            self._keys = replace(self._keys, public=keys.public)
            await asyncio.sleep(JWKS_AGE_S)
            log.info("Another key signs from now on.", kid=keys.kid, before=self._keys.kid)
        self._keys = keys


def _jwk(kid: str, x: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": ALGORITHM}


def thumbprint(public_key: str) -> str:
    """Return the `kid` of an Ed25519 key: RFC 7638's thumbprint, so the same key has the same id everywhere."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public_key}"}}'
    return base64url(hashlib.sha256(members.encode()).digest())


def base64url(raw: bytes) -> str:
    """Return base64url without padding, as JOSE writes it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
