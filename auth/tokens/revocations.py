"""Tokens that end before their time: from what happens to accounts, devices and keys to what every service must refuse.

| kind | id | with `gen` | without |
|---|---|---|---|
| `jti` | of a token | – | that token |
| `sid` | of a session | – | the user tokens of that session |
| `user` | of a user | the user's own tokens with a lower `gen` | every token with that owner, devices' included |
| `device` | of a device | its tokens with a lower `gen` | every token of that device |
| `kid` | of a signing key | – | every token that it signed |

Each row is written in the transaction of what causes it, so there is no change without its revocation. Its number
comes from a counter whose row stays locked until the commit: numbers appear in the order of commits, and whoever asks
for what follows a number misses nothing.

No clock of a host has a say in how long a row stays: times are those of the database's server, and a row stays 2 h
longer than it has to, for hosts whose clocks are behind. SQLite knows no other time than the host's, so there a row
stays for twice the life of the longest token after that: no leap of the clock that is shorter ends it early.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from access.tokens import CLOCK_AHEAD_S, MAX_LIFETIME_S
from auth.database import Database, database_now_ms
from auth.tables import revocation_counter, revocations

Kind = Literal["jti", "sid", "user", "device", "kid"]

# Rows stay so much longer than the last of their tokens: whoever starts with a clock that is an hour behind needs them.
KEPT_LONGER_MS = 2 * 3_600_000


class Revocation(msgspec.Struct, frozen=True, array_like=True):
    """Which tokens end. `until_ms`: when the last of them would have expired (milliseconds since 1970)."""

    kind: Kind
    id: str
    gen: int | None
    until_ms: int


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked behind one number, and the number up to which that is all."""

    items: list[Revocation]
    number: int


class _Ending(msgspec.Struct, frozen=True):
    """A revocation to be written. `life_ms`: how long the last of its tokens would have lived from now on."""

    kind: Kind
    id: str
    gen: int | None
    life_ms: int


class Revocations:
    """Writes revocations, and reads them for the services that check tokens.

    Lives are those of the tokens that are issued: who shortens the settings shortens `until` with them. To each comes
    what the clocks of replicas may differ by, so that no token outlives its revocation.
    """

    def __init__(self, database: Database, *, access_s: int, device_s: int) -> None:
        self._database = database
        self._access_ms = (access_s + CLOCK_AHEAD_S) * 1000
        self._device_ms = (device_s + CLOCK_AHEAD_S) * 1000

    async def end_session(self, connection: AsyncConnection, sid: str) -> None:
        """End the user tokens of one session."""
        await _write(connection, [_Ending("sid", sid, None, self._access_ms)], self._longest_ms)

    async def end_user_tokens(
        self, connection: AsyncConnection, user_id: str, gen: int, devices: Sequence[tuple[str, int]] = ()
    ) -> None:
        """End the user's own tokens of before `gen`, and those of `devices`, each of before its own."""
        items = [_Ending("user", user_id, gen, self._access_ms)]
        items += [_Ending("device", device, least, self._device_ms) for device, least in devices]
        await _write(connection, items, self._longest_ms)

    async def end_owner(self, connection: AsyncConnection, user_id: str) -> None:
        """End every token of an owner who is gone."""
        await _write(connection, [_Ending("user", user_id, None, self._longest_ms)], self._longest_ms)

    async def end_device_tokens(self, connection: AsyncConnection, device_id: str, gen: int | None) -> None:
        """End a device's tokens of before `gen`; None: all, for the device is gone."""
        await _write(connection, [_Ending("device", device_id, gen, self._device_ms)], self._longest_ms)

    async def after(self, number: int | None) -> Revoked:
        """Return what was revoked after `number` and is kept; None, or a number never given out: everything."""
        async with self._database.reading() as connection:
            # The counter first: every row up to it is committed. Later rows come again with the next question.
            counter = await connection.scalar(select(revocation_counter.c.number)) or 0
            columns = revocations.c
            query = select(columns.kind, columns.id, columns.gen, columns.until_ms).order_by(columns.number)
            query = query.where(columns.until_ms > database_now_ms() - _kept_longer_ms(connection, self._longest_ms))
            if number is not None and number <= counter:
                query = query.where(columns.number > number)
            items = [msgspec.convert(tuple(row), Revocation) for row in await connection.execute(query)]
        return Revoked(items, counter)

    @property
    def _longest_ms(self) -> int:
        return max(self._access_ms, self._device_ms)


async def end_key(connection: AsyncConnection, kid: str) -> None:
    """End every token that a key signed: whoever else has it may have given tokens the longest life that is taken."""
    life_ms = (MAX_LIFETIME_S + CLOCK_AHEAD_S) * 1000
    await _write(connection, [_Ending("kid", kid, None, life_ms)], life_ms)


async def _write(connection: AsyncConnection, endings: Sequence[_Ending], longest_ms: int) -> None:
    """Write the rows: last in a transaction, for all others wait from here on."""
    await connection.execute(update(revocation_counter).values(number=revocation_counter.c.number + len(endings)))
    last, now = (await connection.execute(select(revocation_counter.c.number, database_now_ms()))).one()
    first = last - len(endings) + 1
    kept_longer_ms = _kept_longer_ms(connection, longest_ms)
    await connection.execute(delete(revocations).where(revocations.c.until_ms <= now - kept_longer_ms))
    rows = [
        {"number": number, "kind": one.kind, "id": one.id, "gen": one.gen, "until_ms": now + one.life_ms}
        for number, one in enumerate(endings, first)
    ]
    await connection.execute(insert(revocations), rows)


def _kept_longer_ms(connection: AsyncConnection, longest_ms: int) -> int:
    """Return how long a row stays after the last of its tokens."""
    return max(KEPT_LONGER_MS, 2 * longest_ms) if connection.dialect.name == "sqlite" else KEPT_LONGER_MS
