"""The statements on the table of commands, with SQLite."""

from collections.abc import AsyncIterator

import pytest

from auth.commands.store import CommandStore
from auth.migrate import migrate
from database.connection import Database, open_database
from tests.auth.rows import cached_statements


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    await migrate(sqlite_url)
    async with open_database(sqlite_url, connections=1, timeout_s=30) as opened:
        yield opened


async def test_devices_of_any_number_of_owners_are_looked_up_with_few_statements(database: Database) -> None:
    store = CommandStore(database, 0)
    for number in range(1, 101):
        assert await store.waiting_of([(f"owner-{one}", "device") for one in range(number)]) == []
    assert cached_statements(database, "DISTINCT") == 8
