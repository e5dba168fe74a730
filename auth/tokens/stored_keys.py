"""Signing keys in the database, their private parts encrypted with SIGNING_KEY_SECRET.

A rotation publishes a new key at once, but the key signs later: verifiers may cache a key set for a while and must have
the key before its first token arrives. Of the keys whose time to sign has come, the newest signs. A rotation also sets
the older keys' time of retirement: when the last token they signed has expired. Until then they verify, so no token
becomes invalid. An API key lives longer than other tokens: its signing key verifies until it expires or is deleted. The
first start creates the first key, which signs at once; replicas that start concurrently, and operators who rotate
concurrently, agree on one key.

Times are the database server's, so that every replica switches to a new key within the second in which it rereads. A
key that an operator retired stays retired even if that clock is set back: its time is stored negative, before all
others.
"""

import asyncio
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from auth.tokens.api_key_rows import delete_api_keys
from auth.tokens.keys import Keys, KeysError, base64url, thumbprint
from auth.tokens.revocations import revoke_key
from auth.tokens.sealing import SealError, seal, unseal
from database.connection import Database, database_now_ms, server_time_ms
from database.tables import api_keys, signing_keys
from runtime.logs import logger
from runtime.times import rfc3339

log = logger("auth.tokens.keys")

# A replica may sign with the previous key for another second, and clocks differ: as access.tokens.CLOCK_AHEAD_S.
_GRACE_S = 60

_STILL_SIGNS = (
    "This key signs until the published one does: let that one sign at once with `keys rotate --now`, then retire this."
)

State = Literal["published", "signing", "verifying", "retired"]


def new_key() -> tuple[Ed25519PrivateKey, str, str]:
    """Generate a key; return it, its public part and its `kid`.

    One thumbprint in 64 begins with a dash, which command lines would take for an option; such keys are discarded.
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
    # When the last of the API keys that it signed expires.
    api_keys_until_ms: int | None = None

    def pending(self, now: int) -> bool:
        """Return whether the key is published but does not sign yet, at the time `now`."""
        return self.signs_at_ms is not None and self.signs_at_ms > now and not self.retired(now)

    @property
    def ends_at_ms(self) -> int | None:
        """When the key stops verifying, whether by rotation or retired by an operator."""
        if self.retires_at_ms is None or self.retires_at_ms < 0:
            return None if self.retires_at_ms is None else -self.retires_at_ms
        return max(self.retires_at_ms, (self.api_keys_until_ms or 0) + _GRACE_S * 1000)

    def retired(self, now: int) -> bool:
        """Return whether the key no longer verifies, at the time `now`."""
        if self.retires_at_ms is not None and self.retires_at_ms < 0:  # whatever the clock says
            return True
        return self.ends_at_ms is not None and self.ends_at_ms <= now

    def may_sign(self, now: int) -> bool:
        """Return whether the key may sign, at the time `now`: neither pending nor retired."""
        return not self.pending(now) and not self.retired(now)


class StoredKeySet(msgspec.Struct, frozen=True):
    """All keys, oldest first, and the database server's time when they were read."""

    rows: list[StoredKey]
    now: int

    @property
    def signing(self) -> StoredKey:
        """The signing key; raises KeysError if there are no keys."""
        if not self.rows:
            raise KeysError("There is no signing key in the database.")
        # There is always one: after a clock was set back, a key whose time is in the future again, else the newest.
        newest_first = self.rows[::-1]
        usable = [row for row in newest_first if not row.retired(self.now)] or newest_first
        return next((row for row in usable if row.may_sign(self.now)), usable[0])

    @property
    def pending(self) -> StoredKey | None:
        """The key that is published but does not sign yet, if there is one."""
        return next((row for row in reversed(self.rows) if row.pending(self.now)), None)

    def state(self, row: StoredKey) -> State:
        """Return the state of a key in this set."""
        if row is self.signing:
            return "signing"
        if row.pending(self.now):
            return "published"
        return "retired" if row.retired(self.now) else "verifying"


class StoredKeys:
    """The keys of one database, encrypted with one secret."""

    def __init__(self, database: Database, secret: str) -> None:
        self._database = database
        self._secret = secret

    async def load(self) -> Keys:
        """Read the keys, creating the first if there is none; raise KeysError if the secret does not decrypt them."""
        if not (await self._read()).rows and not await self._insert(await self._new_row(1)):
            log.info("Another process has created the first signing key.")
        return await self.reread(None)

    async def reread(self, before: Keys | None) -> Keys:
        """Read the keys again; the signing key is decrypted only if it is not that of `before`."""
        keys = await self._read()
        signing = keys.signing
        public = {row.kid: row.public_key for row in keys.rows if keys.state(row) != "retired"}
        if before is not None and before.kid == signing.kid:
            return Keys(signing.kid, before.private_key, public)
        return Keys(signing.kid, await self._unsealed(signing), public)

    async def rotate(self, keep_s: int, publish_s: int) -> StoredKey:
        """Publish a new key, which signs in `publish_s` seconds; the older ones verify for `keep_s` seconds after that.

        With `publish_s` 0 it signs at once; a pending key then does so instead of a new one. Raises KeysError if there
        is a pending key otherwise, if the secret is not that of the keys, and if a concurrent rotation was faster.
        """
        keys = await self._read()
        if not keys.rows:
            publish_s = 0
        else:
            await self._unsealed(keys.signing)  # a key encrypted with another secret would be useless to the service
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
                raise KeysError(f"The key {pending.kid} was retired meanwhile; rotate again.")
            return signing
        row = await self._new_row(keys.rows[-1].number + 1 if keys.rows else 1)
        if not await self._insert(row, keep_s, publish_s):
            raise KeysError("Another rotation was faster; there is a new key already.")
        return await self._found(str(row["kid"]))

    async def retire(self, kid: str) -> int:
        """Retire a key, revoke every token that it signed, and return how many valid API keys ended with it.

        Raises KeysError for the signing or an unknown key. A pending key is withdrawn: it never signs, and the current
        key goes on signing.
        """
        keys = await self._read()
        if kid not in {row.kid for row in keys.rows}:
            raise KeysError(f"There is no key {kid}.")
        if keys.signing.kid == kid:
            raise KeysError(_STILL_SIGNS if keys.pending else "This key signs; rotate first.")
        if keys.pending is not None and keys.pending.kid == kid:
            await self._withdraw(keys, keys.pending)
            return 0
        now, columns = database_now_ms(), signing_keys.c
        # A key that is retired already keeps its time.
        unexpired = exists().where(api_keys.c.kid == kid, api_keys.c.expires_at_ms > now - _GRACE_S * 1000)
        not_retired = or_(
            columns.retires_at_ms.is_(None), columns.retires_at_ms > now, and_(columns.retires_at_ms >= 0, unexpired)
        )
        retired = update(signing_keys).where(columns.kid == kid, not_retired).values(retires_at_ms=-now)
        async with self._database.begin() as connection:
            await connection.execute(retired)
            ended = await delete_api_keys(connection, api_keys.c.kid == kid)
            await revoke_key(connection, kid, ended)
        return sum(key.was_valid for key in ended)

    async def listed(self) -> list[tuple[StoredKey, State]]:
        """Return all keys, oldest first, each with its state."""
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
            select(func.max(api_keys.c.expires_at_ms)).where(api_keys.c.kid == columns.kid).scalar_subquery(),
        )
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            rows = [StoredKey(*row) for row in await connection.execute(query.order_by(columns.number))]
        return StoredKeySet(rows, now)

    async def _sign_now(self, keys: StoredKeySet, pending: StoredKey, keep_s: int) -> None:
        """Let a pending key sign at once; its predecessor then retires that much earlier."""
        columns = signing_keys.c
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            early = columns.number == pending.number, columns.signs_at_ms > now, columns.retires_at_ms.is_(None)
            begun = await connection.execute(update(signing_keys).where(*early).values(signs_at_ms=now))
            if begun.rowcount:
                before = update(signing_keys).where(columns.number == keys.signing.number)
                await connection.execute(before.values(retires_at_ms=_retires_at(now, keep_s)))

    async def _withdraw(self, keys: StoredKeySet, pending: StoredKey) -> None:
        """Withdraw a pending key, which then never signs; its predecessor goes on signing and does not retire."""
        columns = signing_keys.c
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            early = columns.number == pending.number, columns.signs_at_ms > now
            withdrawn = await connection.execute(update(signing_keys).where(*early).values(retires_at_ms=-now))
            if not withdrawn.rowcount:
                raise KeysError("This key has begun to sign meanwhile; rotate first.")
            signing = update(signing_keys).where(columns.number == keys.signing.number)
            await connection.execute(signing.values(retires_at_ms=None))
            await revoke_key(connection, pending.kid, ())  # it was published, so tokens signed with it would verify

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
        """Insert a key and schedule the retirement of the older ones; return False if its number is taken."""
        columns = signing_keys.c
        try:
            async with self._database.begin() as connection:
                now = await server_time_ms(connection)
                signs_at = now + publish_s * 1000
                times = {"created_at_ms": now, "signs_at_ms": signs_at}
                await connection.execute(insert(signing_keys).values(row | times))
                older = update(signing_keys).where(columns.number < row["number"], columns.retires_at_ms.is_(None))
                await connection.execute(older.values(retires_at_ms=_retires_at(signs_at, keep_s)))
        except IntegrityError:
            return False
        log.info("A signing key was created.", kid=row["kid"], number=row["number"], signs_at=rfc3339(signs_at))
        return True


def _retires_at(signs_at: int, keep_s: int) -> int:
    """Return when a key stops verifying if its successor begins to sign at `signs_at` (milliseconds since 1970)."""
    return signs_at + (keep_s + _GRACE_S) * 1000
