"""Signing keys in the database, the private part sealed with SIGNING_KEY_SECRET.

The newest signs. A rotation gives the older ones a time to retire: when the last token that they signed has expired.
Until then they verify, so nobody is dropped. The first start makes the first key; replicas that start together, and
operators who rotate together, agree on one.
"""

import asyncio
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from auth.database import Database, database_now_ms
from auth.keys import Keys, KeysError, base64url, thumbprint
from auth.revocations import end_key
from auth.sealing import SealError, seal, unseal
from auth.tables import signing_keys
from runtime.logs import logger
from runtime.times import now_ms

log = logger("auth.keys")

# A replica may sign with the key before for a second more, and clocks differ: as runtime.tokens.CLOCK_AHEAD_S.
_LATE_S = 60

State = Literal["signing", "verifying", "retired"]


def new_key() -> tuple[Ed25519PrivateKey, str, str]:
    """Make a key; return it, its public part and its `kid`.

    One thumbprint in 64 begins with a dash, and every command line would take it for an option: then another key.
    """
    while True:
        private_key = Ed25519PrivateKey.generate()
        public_key = base64url(private_key.public_key().public_bytes_raw())
        kid = thumbprint(public_key)
        if not kid.startswith("-"):
            return private_key, public_key, kid


class StoredKey(msgspec.Struct, frozen=True):
    """A row of `signing_keys`; times in milliseconds since 1970."""

    number: int
    kid: str
    public_key: str
    sealed_private_key: str
    created_at_ms: int
    retires_at_ms: int | None

    def retired(self) -> bool:
        """Say whether it verifies nothing any more."""
        return self.retires_at_ms is not None and self.retires_at_ms <= now_ms()


class StoredKeys:
    """The keys of one database under one secret."""

    def __init__(self, database: Database, secret: str) -> None:
        self._database = database
        self._secret = secret

    async def load(self) -> Keys:
        """Read the keys, or make the first; KeysError when the secret does not open the one that signs."""
        if not await self._rows() and not await self._insert(await self._new_row(1)):
            log.info("Another process has made the first signing key.")
        return await self.reread(None)

    async def reread(self, before: Keys | None) -> Keys:
        """Read the keys again; the one that signs is unsealed only when it is another than `before`."""
        rows = await self._rows()
        if not rows:
            raise KeysError("There is no signing key in the database.")
        newest = rows[-1]
        public = {row.kid: row.public_key for row in rows if not row.retired() or row is newest}
        if before is not None and before.kid == newest.kid:
            return Keys(newest.kid, before.private_key, public)
        return Keys(newest.kid, await self._unsealed(newest), public)

    async def rotate(self, keep_s: int) -> str:
        """Make the key that signs from now on and return its `kid`; the older ones verify for `keep_s` more seconds.

        KeysError when the secret is not that of the keys, and when another rotation was faster.
        """
        rows = await self._rows()
        if rows:
            await self._unsealed(rows[-1])  # with another secret the service could not open what is made here
        row = await self._new_row(rows[-1].number + 1 if rows else 1)
        if not await self._insert(row, keep_s):
            raise KeysError("Another rotation was faster; there is a new key already.")
        return str(row["kid"])

    async def retire(self, kid: str) -> None:
        """End a key and every token that it signed; KeysError for the one that signs, and one that does not exist."""
        rows = await self._rows()
        if kid not in {row.kid for row in rows}:
            raise KeysError(f"There is no key {kid}.")
        if rows[-1].kid == kid:
            raise KeysError("This key signs; rotate first.")
        now, columns = database_now_ms(), signing_keys.c
        # One that retired before keeps its time.
        in_force = or_(columns.retires_at_ms.is_(None), columns.retires_at_ms > now)
        async with self._database.writing() as connection:
            await connection.execute(update(signing_keys).where(columns.kid == kid, in_force).values(retires_at_ms=now))
            await end_key(connection, kid)

    async def listed(self) -> list[tuple[StoredKey, State]]:
        """Return all keys, the oldest first, each with what it does."""
        rows = await self._rows()
        return [(row, "signing" if row is rows[-1] else "retired" if row.retired() else "verifying") for row in rows]

    async def _rows(self) -> list[StoredKey]:
        columns = signing_keys.c
        query = select(
            columns.number,
            columns.kid,
            columns.public_key,
            columns.sealed_private_key,
            columns.created_at_ms,
            columns.retires_at_ms,
        )
        async with self._database.reading() as connection:
            return [StoredKey(*row) for row in await connection.execute(query.order_by(columns.number))]

    async def _unsealed(self, row: StoredKey) -> Ed25519PrivateKey:
        try:
            plain = await asyncio.to_thread(unseal, self._secret, row.kid, row.sealed_private_key)
        except SealError as error:
            raise KeysError(f"SIGNING_KEY_SECRET does not open the signing key {row.kid}.") from error
        return Ed25519PrivateKey.from_private_bytes(plain)

    async def _new_row(self, number: int) -> dict[str, str | int]:
        private_key, public_key, kid = new_key()
        sealed = await asyncio.to_thread(seal, self._secret, kid, private_key.private_bytes_raw())
        return {
            "number": number,
            "kid": kid,
            "public_key": public_key,
            "sealed_private_key": sealed,
            "created_at_ms": now_ms(),
        }

    async def _insert(self, row: dict[str, str | int], keep_s: int = 0) -> bool:
        """Add a key and let the ones before it retire in time; False when another has taken its number."""
        columns = signing_keys.c
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(signing_keys).values(row))
                older = update(signing_keys).where(columns.number < row["number"], columns.retires_at_ms.is_(None))
                await connection.execute(older.values(retires_at_ms=now_ms() + (keep_s + _LATE_S) * 1000))
        except IntegrityError:
            return False
        log.info("A signing key was made.", kid=row["kid"], number=row["number"])
        return True
