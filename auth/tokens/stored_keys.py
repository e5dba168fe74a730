"""Signing keys in the database, the private part sealed with SIGNING_KEY_SECRET.

A rotation publishes a new key at once, and the key signs later: who verifies tokens may keep a key set for a while, and
must have the key before the first token of it comes. The newest whose time has come signs. A rotation gives the older
ones a time to retire: when the last token that they signed has expired. Until then they verify, so nobody is dropped.
The first start makes the first key, which signs at once; replicas that start together, and operators who rotate
together, agree on one.

Times are the database server's, so that every replica changes to a new key within the second in which it reads. What an
operator has ended stays ended when that clock is set back: the time of it is stored with a minus, before all others.
"""

import asyncio
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from auth.database import Database, database_now_ms, server_time_ms
from auth.tables import signing_keys
from auth.tokens.keys import Keys, KeysError, base64url, thumbprint
from auth.tokens.revocations import end_key
from auth.tokens.sealing import SealError, seal, unseal
from runtime.logs import logger
from runtime.times import rfc3339

log = logger("auth.tokens.keys")

# A replica may sign with the key before for a second more, and clocks differ: as runtime.tokens.CLOCK_AHEAD_S.
_LATE_S = 60

_STILL_SIGNS = (
    "This key signs until the published one does: let that sign at once with `keys rotate --now`, then retire."
)

State = Literal["published", "signing", "verifying", "retired"]


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
    signs_at_ms: int | None
    retires_at_ms: int | None

    def pending(self, now: int) -> bool:
        """Say whether it is published and does not sign yet."""
        return self.signs_at_ms is not None and self.signs_at_ms > now and not self.retired(now)

    @property
    def ends_at_ms(self) -> int | None:
        """When it verifies nothing any more, whether it is at its end or an operator has ended it."""
        return None if self.retires_at_ms is None else abs(self.retires_at_ms)

    def retired(self, now: int) -> bool:
        """Say whether it verifies nothing any more."""
        return self.retires_at_ms is not None and self.retires_at_ms <= now

    def may_sign(self, now: int) -> bool:
        """Say whether its time to sign has come and has not been withdrawn."""
        return not self.pending(now) and not self.retired(now)


class StoredKeySet(msgspec.Struct, frozen=True):
    """All keys, the oldest first, and the database server's time when they were read."""

    rows: list[StoredKey]
    now: int

    @property
    def signing(self) -> StoredKey:
        """The key that signs; KeysError when there is none."""
        if not self.rows:
            raise KeysError("There is no signing key in the database.")
        # One always signs: after a clock was set back, one whose time has not come again; as a last resort the newest.
        newest_first = self.rows[::-1]
        left = [row for row in newest_first if not row.retired(self.now)] or newest_first
        return next((row for row in left if row.may_sign(self.now)), left[0])

    @property
    def pending(self) -> StoredKey | None:
        """The key that is published and signs later, if there is one."""
        return next((row for row in reversed(self.rows) if row.pending(self.now)), None)

    def state(self, row: StoredKey) -> State:
        """Return what a key does."""
        if row is self.signing:
            return "signing"
        if row.pending(self.now):
            return "published"
        return "retired" if row.retired(self.now) else "verifying"


class StoredKeys:
    """The keys of one database under one secret."""

    def __init__(self, database: Database, secret: str) -> None:
        self._database = database
        self._secret = secret

    async def load(self) -> Keys:
        """Read the keys, or make the first; KeysError when the secret does not open the one that signs."""
        if not (await self._read()).rows and not await self._insert(await self._new_row(1)):
            log.info("Another process has made the first signing key.")
        return await self.reread(None)

    async def reread(self, before: Keys | None) -> Keys:
        """Read the keys again; the one that signs is unsealed only when it is another than `before`."""
        keys = await self._read()
        signing = keys.signing
        public = {row.kid: row.public_key for row in keys.rows if keys.state(row) != "retired"}
        if before is not None and before.kid == signing.kid:
            return Keys(signing.kid, before.private_key, public)
        return Keys(signing.kid, await self._unsealed(signing), public)

    async def rotate(self, keep_s: int, publish_s: int) -> StoredKey:
        """Publish a new key, which signs in `publish_s` seconds; the older ones verify for `keep_s` more from then.

        With 0 it signs at once, and so does a key that was published and did not sign yet. KeysError while there is
        such a key otherwise, when the secret is not that of the keys, and when another rotation was faster.
        """
        keys = await self._read()
        if not keys.rows:
            publish_s = 0
        else:
            await self._unsealed(keys.signing)  # with another secret the service could not open what is made here
        if (pending := keys.pending) is not None:
            if publish_s:
                when = rfc3339(pending.signs_at_ms or 0)
                raise KeysError(
                    f"The key {pending.kid} is published and signs from {when}: wait until then, let it sign at once "
                    "with --now, or retire it."
                )
            await self._sign_now(keys, pending, keep_s)
            signing = (await self._read()).signing
            if signing.kid != pending.kid:
                raise KeysError(f"The key {pending.kid} was retired meanwhile; rotate once more.")
            return signing
        row = await self._new_row(keys.rows[-1].number + 1 if keys.rows else 1)
        if not await self._insert(row, keep_s, publish_s):
            raise KeysError("Another rotation was faster; there is a new key already.")
        return await self._found(str(row["kid"]))

    async def retire(self, kid: str) -> None:
        """End a key and every token that it signed; KeysError for the one that signs, and one that does not exist.

        One that does not sign yet never will, and the one that signs goes on.
        """
        keys = await self._read()
        if kid not in {row.kid for row in keys.rows}:
            raise KeysError(f"There is no key {kid}.")
        if keys.signing.kid == kid:
            raise KeysError(_STILL_SIGNS if keys.pending else "This key signs; rotate first.")
        if keys.pending is not None and keys.pending.kid == kid:
            await self._withdraw(keys, keys.pending)
            return
        now, columns = database_now_ms(), signing_keys.c
        # One that retired before keeps its time.
        in_force = or_(columns.retires_at_ms.is_(None), columns.retires_at_ms > now)
        ended = update(signing_keys).where(columns.kid == kid, in_force).values(retires_at_ms=-now)
        async with self._database.writing() as connection:
            await connection.execute(ended)
            await end_key(connection, kid)

    async def listed(self) -> list[tuple[StoredKey, State]]:
        """Return all keys, the oldest first, each with what it does."""
        keys = await self._read()
        return [(row, keys.state(row)) for row in keys.rows]

    async def _found(self, kid: str) -> StoredKey:
        return next(row for row in (await self._read()).rows if row.kid == kid)

    async def _read(self) -> StoredKeySet:
        columns = signing_keys.c
        query = select(
            columns.number,
            columns.kid,
            columns.public_key,
            columns.sealed_private_key,
            columns.created_at_ms,
            columns.signs_at_ms,
            columns.retires_at_ms,
        )
        async with self._database.reading() as connection:
            now = await server_time_ms(connection)
            rows = [StoredKey(*row) for row in await connection.execute(query.order_by(columns.number))]
        return StoredKeySet(rows, now)

    async def _sign_now(self, keys: StoredKeySet, pending: StoredKey, keep_s: int) -> None:
        """Let a published key sign at once: its predecessor then retires as much earlier."""
        columns = signing_keys.c
        async with self._database.writing() as connection:
            now = await server_time_ms(connection)
            early = columns.number == pending.number, columns.signs_at_ms > now, columns.retires_at_ms.is_(None)
            begun = await connection.execute(update(signing_keys).where(*early).values(signs_at_ms=now))
            if begun.rowcount:
                before = update(signing_keys).where(columns.number == keys.signing.number)
                await connection.execute(before.values(retires_at_ms=_retires_at(now, keep_s)))

    async def _withdraw(self, keys: StoredKeySet, pending: StoredKey) -> None:
        """Let a published key never sign; its predecessor, which was to retire after it, signs on."""
        columns = signing_keys.c
        async with self._database.writing() as connection:
            now = await server_time_ms(connection)
            early = columns.number == pending.number, columns.signs_at_ms > now
            withdrawn = await connection.execute(update(signing_keys).where(*early).values(retires_at_ms=-now))
            if not withdrawn.rowcount:
                raise KeysError("This key has begun to sign meanwhile; rotate first.")
            signing = update(signing_keys).where(columns.number == keys.signing.number)
            await connection.execute(signing.values(retires_at_ms=None))
            await end_key(connection, pending.kid)  # it was published: what it might have signed verifies

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
        }

    async def _insert(self, row: dict[str, str | int], keep_s: int = 0, publish_s: int = 0) -> bool:
        """Add a key and let the ones before it retire in time; False when another has taken its number."""
        columns = signing_keys.c
        try:
            async with self._database.writing() as connection:
                now = await server_time_ms(connection)
                signs_at = now + publish_s * 1000
                times = {"created_at_ms": now, "signs_at_ms": signs_at}
                await connection.execute(insert(signing_keys).values(row | times))
                older = update(signing_keys).where(columns.number < row["number"], columns.retires_at_ms.is_(None))
                await connection.execute(older.values(retires_at_ms=_retires_at(signs_at, keep_s)))
        except IntegrityError:
            return False
        log.info("A signing key was made.", kid=row["kid"], number=row["number"], signs_at=rfc3339(signs_at))
        return True


def _retires_at(signs_at: int, keep_s: int) -> int:
    """Return when a key verifies nothing any more whose successor begins to sign at that time."""
    return signs_at + (keep_s + _LATE_S) * 1000
