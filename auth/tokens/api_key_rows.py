"""The rows of API keys: what is valid, and the end of those that an owner, an operator or a new password ends.

A key is a JWT, which readers and gateways verify by themselves. `auth` looks up its row at each call.
"""

from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.tokens.revocations import RETENTION_MS, EndedKey
from database.connection import database_now_ms, server_time_ms
from database.tables import api_keys, ended_api_keys, signing_keys

# SQLite takes some 32,000 parameters in one statement.
_DELETED_AT_ONCE = 1000
# Of one owner, and not expired.
MAX_ENDED = 1000


def valid_key(owner_id: str, key_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a row is this key and has not expired, by the database's clock.

    One whose signing key an operator has retired is invalid, even if its row was inserted during the retirement.
    """
    retired = exists().where(signing_keys.c.kid == api_keys.c.kid, signing_keys.c.retires_at_ms < 0)
    unexpired = api_keys.c.expires_at_ms > database_now_ms()
    return api_keys.c.owner_id == owner_id, api_keys.c.id == key_id, unexpired, ~retired


async def delete_api_keys(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[EndedKey]:
    """Delete keys; return those that are to be revoked in the same transaction.

    Expired ones included, for as long as a service whose clock is behind may still take them. A row inserted meanwhile
    is not deleted, as it would not be revoked. Those that would still be valid count for `next_place_ms`.
    """
    now = await server_time_ms(connection)
    columns = api_keys.c
    query = select(columns.owner_id, columns.id, columns.expires_at_ms).where(*conditions).with_for_update()
    rows = (await connection.execute(query)).all()
    found = [EndedKey(row.id, row.expires_at_ms - now) for row in rows]
    if early := [row._asdict() for row in rows if row.expires_at_ms > now]:
        await _record_ended(connection, early, now)
    for start in range(0, len(found), _DELETED_AT_ONCE):
        ids = [key.id for key in found[start : start + _DELETED_AT_ONCE]]
        await connection.execute(delete(api_keys).where(*conditions, api_keys.c.id.in_(ids)))
    return [key for key in found if key.life_ms > -RETENTION_MS]


async def _record_ended(connection: AsyncConnection, early: list[dict[str, Any]], now: int) -> None:
    """Insert keys that were ended early; those of the same owners that have expired since are forgotten."""
    columns = ended_api_keys.c
    for start in range(0, len(early), _DELETED_AT_ONCE):
        owners = {row["owner_id"] for row in early[start : start + _DELETED_AT_ONCE]}
        await connection.execute(
            delete(ended_api_keys).where(columns.owner_id.in_(owners), columns.expires_at_ms <= now)
        )
    await connection.execute(insert(ended_api_keys), early)


async def next_place_ms(connection: AsyncConnection, owner_id: str) -> int | None:
    """Return when an owner with MAX_ENDED keys that were ended early may make another; None: now.

    Each leaves a revocation in every gateway and reader until it would have expired. Milliseconds since 1970.
    """
    columns = ended_api_keys.c
    unexpired = columns.owner_id == owner_id, columns.expires_at_ms > database_now_ms()
    query = select(func.count(), func.min(columns.expires_at_ms)).where(*unexpired)
    count, first_ms = (await connection.execute(query)).one()
    return first_ms if count >= MAX_ENDED else None


async def longest_life_ms(connection: AsyncConnection, owner_id: str) -> int:
    """Return when an owner's last API key expires, in milliseconds from now; 0 without any."""
    last = await connection.scalar(select(func.max(api_keys.c.expires_at_ms)).where(api_keys.c.owner_id == owner_id))
    return 0 if last is None else max(0, last - await server_time_ms(connection))


async def valid_keys_signed_by(connection: AsyncConnection, kid: str) -> tuple[int, int | None]:
    """Return how many valid API keys a signing key has signed, and when the last of them expires."""
    signed = select(func.count(), func.max(api_keys.c.expires_at_ms))
    valid = api_keys.c.kid == kid, api_keys.c.expires_at_ms > database_now_ms()
    count, until_ms = (await connection.execute(signed.where(*valid))).one()
    return count, until_ms
