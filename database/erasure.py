"""Removes the many rows that alarms leave of an owner, before the account's own row takes the rest with it.

A ledger of 90 days has 100,000 rows and more, which no single transaction deletes within its deadline.
"""

from sqlalchemy import delete, select, tuple_

from database.alarm_tables import alarm_deliveries, alarm_history, alarm_series, alarms
from database.connection import Database

_MANY = (alarm_deliveries, alarm_history, alarms, alarm_series)
# In one transaction, some 0.1 s.
ERASE_ROWS = 3000


async def erase_alarms(database: Database, owner: str) -> None:
    """Remove an owner's ledger, histories and alarms in portions; Problem 503 if the database does not answer."""
    for table in _MANY:
        key = list(table.primary_key)
        some = select(*key).where(table.c.owner_id == owner).limit(ERASE_ROWS)
        is_over = False
        while not is_over:
            async with database.begin() as connection:
                rows = [tuple(row) for row in await connection.execute(some)]
                if rows:
                    await connection.execute(delete(table).where(tuple_(*key).in_(rows)))
            is_over = len(rows) < ERASE_ROWS
