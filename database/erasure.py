"""Removes the many rows that alarms leave of an owner, before the account's own row takes the rest with it.

A ledger of 90 days has 100,000 rows and more, which no single transaction deletes within its deadline.
"""

from database.alarm_tables import alarm_deliveries, alarm_history, alarm_series, alarms
from database.connection import Database
from database.parts import delete_some

_MANY = (alarm_deliveries, alarm_history, alarms, alarm_series)
# In one transaction, some 0.1 s.
ERASE_ROWS = 3000


async def erase_alarms(database: Database, owner: str) -> None:
    """Remove an owner's ledger, histories and alarms in portions; Problem 503 if the database does not answer."""
    for table in _MANY:
        count = ERASE_ROWS
        while count == ERASE_ROWS:
            async with database.begin() as connection:
                count = await delete_some(connection, table, table.c.owner_id == owner, ERASE_ROWS)
