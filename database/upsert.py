"""Rows that are inserted, or replace those with the same key: in MySQL and MariaDB, and in SQLite."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_AT_ONCE = 500


async def upsert(connection: AsyncConnection, table: Table[Any], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, of which each has the same columns; where there is one with that primary key, replace its others."""
    key = [column.name for column in table.primary_key]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        others = [name for name in some[0] if name not in key]
        if connection.dialect.name == "sqlite":
            into = sqlite.insert(table).values(some)
            await connection.execute(
                into.on_conflict_do_update(index_elements=key, set_={name: into.excluded[name] for name in others})
            )
        else:
            into_mysql = mysql.insert(table).values(some)
            await connection.execute(
                into_mysql.on_duplicate_key_update({name: into_mysql.inserted[name] for name in others})
            )
