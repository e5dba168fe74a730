"""The revocation log: which tokens every service must refuse before they expire.

| kind | id | with `gen` | without |
|---|---|---|---|
| `jti` | of a token | – | that token; of an API key, also the device tokens that it issued |
| `sid` | of a session | – | the user tokens of that session |
| `user` | of a user | the user's own tokens with a lower `gen`, but no API keys | every token with that owner |
| `device` | of a device | its tokens with a lower `gen` | every token of that device |
| `kid` | of a signing key | – | every token that it signed |

Each row is written in the transaction that causes it, so no change is committed without its revocation. Its number
comes from a counter whose row stays locked until the commit: numbers become visible in the order of commits, so a
client that requests all rows after a number misses none.

No host's clock decides how long a row is kept: times are the database server's, and a row is kept 2 h longer than
necessary, for hosts whose clocks are behind. SQLite has no time but the host's; there a row is kept for twice the
lifetime of the longest-lived token after that: no shorter clock jump drops it early.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from access.claims import MAX_API_KEY_LIFETIME_S
from access.tokens import CLOCK_AHEAD_S
from database.connection import Database, database_now_ms
from database.tables import revocation_counter, revocations

Kind = Literal["jti", "sid", "user", "device", "kid"]

# How long rows outlive the last of their tokens: a service whose clock is an hour behind still needs them.
RETENTION_MS = 2 * 3_600_000
_AHEAD_MS = CLOCK_AHEAD_S * 1000


class Revocation(msgspec.Struct, frozen=True, array_like=True):
    """Which tokens are revoked. `until_ms`: when the last of them expires (milliseconds since 1970)."""

    kind: Kind
    id: str
    gen: int | None
    until_ms: int


class RevocationBatch(msgspec.Struct, frozen=True):
    """The revocations after some number, complete up to `number`."""

    items: list[Revocation]
    number: int


class EndedKey(msgspec.Struct, frozen=True):
    """An API key that was deleted, and how long it would have been valid; negative if it had expired."""

    id: str
    life_ms: int

    @property
    def was_valid(self) -> bool:
        """Whether the key had not expired."""
        return self.life_ms > 0


class _NewRevocation(msgspec.Struct, frozen=True):
    """A revocation to be written. `life_ms`: the remaining lifetime of the last of its tokens, from now."""

    kind: Kind
    id: str
    gen: int | None
    life_ms: int


class RevocationLog:
    """Writes revocations, and reads them for the services that verify tokens.

    `access_s` and `device_s` are the lifetimes of the tokens issued, in seconds; lowering these settings also lowers
    `until`. CLOCK_AHEAD_S is added to each, for replicas whose clocks differ, so that no token outlives its revocation.
    """

    def __init__(self, database: Database, *, access_s: int, device_s: int) -> None:
        self._database = database
        self._access_ms = access_s * 1000 + _AHEAD_MS
        self._device_ms = device_s * 1000 + _AHEAD_MS

    async def revoke_session(self, connection: AsyncConnection, sid: str) -> None:
        """Revoke the user tokens of one session."""
        await _write(connection, [_NewRevocation("sid", sid, None, self._access_ms)], self._longest_ms)

    async def revoke_user_tokens(
        self, connection: AsyncConnection, user_id: str, gen: int, devices: Sequence[tuple[str, int]] = ()
    ) -> None:
        """Revoke the user's own tokens below `gen`, and those of `devices`, pairs of id and `gen`."""
        new = [_NewRevocation("user", user_id, gen, self._access_ms)]
        new += [_NewRevocation("device", device, least, self._device_ms) for device, least in devices]
        await _write(connection, new, self._longest_ms)

    async def revoke_owner(self, connection: AsyncConnection, user_id: str, api_keys_ms: int) -> None:
        """Revoke every token of a deleted owner, devices' included; the last API key expires in `api_keys_ms`."""
        life_ms = max(self._longest_ms, api_keys_ms + _AHEAD_MS)
        await _write(connection, [_NewRevocation("user", user_id, None, life_ms)], self._longest_ms)

    async def revoke_api_keys(self, connection: AsyncConnection, ended: Sequence[EndedKey]) -> None:
        """Revoke API keys and the device tokens that they issued."""
        if ended:
            await _write(connection, _of_api_keys(ended), self._longest_ms)

    async def revoke_device_tokens(self, connection: AsyncConnection, device_id: str, gen: int | None) -> None:
        """Revoke a device's tokens below `gen`; None: all of them, as the device was removed."""
        await _write(connection, [_NewRevocation("device", device_id, gen, self._device_ms)], self._longest_ms)

    async def after(self, number: int | None) -> RevocationBatch:
        """Return the revocations kept after `number`; all of them for None or a number not yet assigned."""
        async with self._database.connect() as connection:
            # The counter first: every row up to it is committed. Later rows are returned again next time.
            counter = await connection.scalar(select(revocation_counter.c.number)) or 0
            columns = revocations.c
            query = select(columns.kind, columns.id, columns.gen, columns.until_ms).order_by(columns.number)
            query = query.where(columns.until_ms > database_now_ms() - _retention_ms(connection, self._longest_ms))
            if number is not None and number <= counter:
                query = query.where(columns.number > number)
            items = [msgspec.convert(tuple(row), Revocation) for row in await connection.execute(query)]
        return RevocationBatch(items, counter)

    @property
    def _longest_ms(self) -> int:
        return max(self._access_ms, self._device_ms)


async def revoke_key(connection: AsyncConnection, kid: str, api_keys: Sequence[EndedKey]) -> None:
    """Revoke every token that a signing key signed, and what the API keys among them issued.

    For the longest lifetime accepted: a thief of the key may have used it.
    """
    life_ms = MAX_API_KEY_LIFETIME_S * 1000 + _AHEAD_MS
    await _write(connection, [_NewRevocation("kid", kid, None, life_ms), *_of_api_keys(api_keys)], life_ms)


def _of_api_keys(ended: Sequence[EndedKey]) -> list[_NewRevocation]:
    return [_NewRevocation("jti", key.id, None, key.life_ms + _AHEAD_MS) for key in ended]


async def _write(connection: AsyncConnection, new: Sequence[_NewRevocation], longest_ms: int) -> None:
    """Insert the rows. Call it last in a transaction: from here on, all other revocations wait for the commit."""
    await connection.execute(update(revocation_counter).values(number=revocation_counter.c.number + len(new)))
    last, now = (await connection.execute(select(revocation_counter.c.number, database_now_ms()))).one()
    first = last - len(new) + 1
    retention_ms = _retention_ms(connection, longest_ms)
    await connection.execute(delete(revocations).where(revocations.c.until_ms <= now - retention_ms))
    rows = [
        {"number": number, "kind": one.kind, "id": one.id, "gen": one.gen, "until_ms": now + one.life_ms}
        for number, one in enumerate(new, first)
    ]
    await connection.execute(insert(revocations), rows)


def _retention_ms(connection: AsyncConnection, longest_ms: int) -> int:
    """Return how long a row is kept after the last of its tokens has expired."""
    return max(RETENTION_MS, 2 * longest_ms) if connection.dialect.name == "sqlite" else RETENTION_MS
