"""The keys that sign tokens: Ed25519, kept in the database, the private part sealed.

In: rows of `signing_keys` and SIGNING_KEY_SECRET. Out: the key that signs, and the JWKS (RFC 7517, RFC 8037) that
checks. The first start makes the first key; replicas that start together agree on one.
"""

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from auth.database import Database
from auth.sealing import SealError, seal, unseal
from auth.tables import signing_keys
from auth.times import now_ms
from runtime.logs import logger
from runtime.tokens import ALGORITHM

log = logger("auth.keys")


class KeysError(Exception):
    """The signing key cannot be used, so no token can be issued."""


class StoredKey(msgspec.Struct, frozen=True):
    """A row of `signing_keys`."""

    number: int
    kid: str
    public_key: str
    sealed_private_key: str

    def jwk(self) -> dict[str, str]:
        """Return the public part as a JWK."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": self.public_key,
            "kid": self.kid,
            "use": "sig",
            "alg": ALGORITHM,
        }


class KeyRing:
    """All keys: the newest signs, every one of them checks."""

    def __init__(self, kid: str, private_key: Ed25519PrivateKey, stored: Sequence[StoredKey]) -> None:
        self.kid = kid
        self.private_key = private_key
        self._stored = tuple(stored)

    async def jwks(self) -> dict[str, Any]:
        """Return the document of `/.well-known/jwks.json`; a `runtime.tokens.KeySet` of this process fetches it too."""
        return {"keys": [key.jwk() for key in self._stored]}


async def load_keys(database: Database, secret: str) -> KeyRing:
    """Read the keys, or make the first one; KeysError when `secret` does not open the one that signs."""
    stored = await _read(database)
    if not stored:
        await _make_first(database, secret)
        stored = await _read(database)
    newest = stored[-1]
    try:
        plain = await asyncio.to_thread(unseal, secret, newest.kid, newest.sealed_private_key)
    except SealError as error:
        raise KeysError(f"SIGNING_KEY_SECRET does not open the signing key {newest.kid}.") from error
    return KeyRing(newest.kid, Ed25519PrivateKey.from_private_bytes(plain), stored)


async def _read(database: Database) -> list[StoredKey]:
    columns = signing_keys.c
    query = select(columns.number, columns.kid, columns.public_key, columns.sealed_private_key)
    async with database.reading() as connection:
        return [StoredKey(*row) for row in await connection.execute(query.order_by(columns.number))]


async def _make_first(database: Database, secret: str) -> None:
    private_key = Ed25519PrivateKey.generate()
    public_key = _base64url(private_key.public_key().public_bytes_raw())
    kid = thumbprint(public_key)
    row = {
        "number": 1,
        "kid": kid,
        "public_key": public_key,
        "sealed_private_key": await asyncio.to_thread(seal, secret, kid, private_key.private_bytes_raw()),
        "created_at_ms": now_ms(),
    }
    try:
        async with database.writing() as connection:
            await connection.execute(insert(signing_keys).values(row))
    except IntegrityError:
        log.info("Another replica has made the first signing key.")
    else:
        log.info("The first signing key was made.", kid=kid)


def thumbprint(public_key: str) -> str:
    """Return the `kid` of an Ed25519 key: RFC 7638's thumbprint, so the same key has the same id everywhere."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public_key}"}}'
    return _base64url(hashlib.sha256(members.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
