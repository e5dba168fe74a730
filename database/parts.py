"""Many rows, read or deleted in parts: all at once, the deadline of a transaction would not allow for."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Table, and_, delete, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from database.connection import Database


async def rows_in_parts(database: Database, table: Table[Any], at_once: int) -> AsyncIterator[Row[Any]]:
    """Yield all rows in the order of their key; Problem 503 if the database does not answer.

    Each part is as of its own time: of a row that is added or deleted meanwhile, it is left open whether it comes.
    """
    key = list(table.primary_key)
    query = select(table).order_by(*key).limit(at_once)
    after: Row[Any] | None = None
    while True:
        behind = query if after is None else query.where(_is_behind(key, [after._mapping[one] for one in key]))
        async with database.connect() as connection:
            rows = list(await connection.execute(behind))
        for row in rows:
            yield row
        if len(rows) < at_once:
            return
        after = rows[-1]


async def delete_some(
    connection: AsyncConnection, table: Table[Any], where: ColumnElement[bool], at_once: int, *order: ColumnElement[Any]
) -> int:
    """Delete at most so many rows that a condition finds, in an order if it matters; return how many there were."""
    key = list(table.primary_key)
    rows = [tuple(row) for row in await connection.execute(select(*key).where(where).order_by(*order).limit(at_once))]
    if rows:
        await connection.execute(delete(table).where(tuple_(*key).in_(rows)))
    return len(rows)


def _is_behind(key: Sequence[Column[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return whether a row comes behind one with these values of its key, so that an index can find it."""
    *firsts, last = zip(key, values, strict=True)
    behind: ColumnElement[bool] = last[0] > last[1]
    for column, value in reversed(firsts):
        behind = or_(column > value, and_(column == value, behind))
    return behind
