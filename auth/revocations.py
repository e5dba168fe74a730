"""Tokens that end before their time: from what happens to accounts and devices to what every service must refuse.

| kind | id | with `gen` | without |
|---|---|---|---|
| `jti` | of a token | – | that token |
| `sid` | of a session | – | the user tokens of that session |
| `user` | of a user | the user's own tokens with a lower `gen` | every token with that owner, devices' included |
| `device` | of a device | its tokens with a lower `gen` | every token of that device |

Each row is written in the transaction of what causes it, so there is no change without its revocation. Its number
comes from a counter whose row stays locked until the commit: numbers appear in the order of commits, and whoever asks
for what follows a number misses nothing.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.database import Database
from auth.tables import revocation_counter, revocations
from runtime.times import now_ms
from runtime.tokens import CLOCK_AHEAD_S

Kind = Literal["jti", "sid", "user", "device"]


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
        await _write(connection, [Revocation("sid", sid, None, now_ms() + self._access_ms)])

    async def end_user_tokens(
        self, connection: AsyncConnection, user_id: str, gen: int, devices: Sequence[tuple[str, int]] = ()
    ) -> None:
        """End the user's own tokens of before `gen`, and those of `devices`, each of before its own."""
        now = now_ms()
        items = [Revocation("user", user_id, gen, now + self._access_ms)]
        items += [Revocation("device", device, least, now + self._device_ms) for device, least in devices]
        await _write(connection, items)

    async def end_owner(self, connection: AsyncConnection, user_id: str) -> None:
        """End every token of an owner who is gone."""
        longest = max(self._access_ms, self._device_ms)
        await _write(connection, [Revocation("user", user_id, None, now_ms() + longest)])

    async def end_device_tokens(self, connection: AsyncConnection, device_id: str, gen: int | None) -> None:
        """End a device's tokens of before `gen`; None: all, for the device is gone."""
        await _write(connection, [Revocation("device", device_id, gen, now_ms() + self._device_ms)])

    async def after(self, number: int | None) -> Revoked:
        """Return what was revoked after `number` and still matters; None, or a number never given out: everything."""
        async with self._database.reading() as connection:
            # The counter first: every row up to it is committed. Later rows come again with the next question.
            counter = await connection.scalar(select(revocation_counter.c.number)) or 0
            columns = revocations.c
            query = select(columns.kind, columns.id, columns.gen, columns.until_ms).order_by(columns.number)
            query = query.where(columns.until_ms > now_ms())
            if number is not None and number <= counter:
                query = query.where(columns.number > number)
            items = [msgspec.convert(tuple(row), Revocation) for row in await connection.execute(query)]
        return Revoked(items, counter)


async def _write(connection: AsyncConnection, items: Sequence[Revocation]) -> None:
    """Write the rows: last in a transaction, for all others wait from here on."""
    await connection.execute(update(revocation_counter).values(number=revocation_counter.c.number + len(items)))
    last = await connection.scalar(select(revocation_counter.c.number)) or 0
    first = last - len(items) + 1
    await connection.execute(delete(revocations).where(revocations.c.until_ms <= now_ms()))
    rows = [msgspec.structs.asdict(item) | {"number": first + at} for at, item in enumerate(items)]
    await connection.execute(insert(revocations), rows)
