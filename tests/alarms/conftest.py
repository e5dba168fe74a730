"""Fixtures: a test with `database_url` runs on SQLite and on MariaDB, each time on a new database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from auth.migrate import migrate
from database.connection import Database, open_database
from tests.alarms.rows import add_user


@pytest.fixture(params=["sqlite", "mariadb"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the newest schema, and the users ada and bob."""
    file = f"sqlite+aiosqlite:///{tmp_path / 'users.db'}"
    url = file if request.param == "sqlite" else str(request.getfixturevalue("mariadb_url"))
    await migrate(url)
    for name in ("ada", "bob"):
        await add_user(url, name)
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    # A disk that is busy with other tests for some seconds fails none of these.
    async with open_database(database_url, connections=5, timeout_s=30) as opened:
        yield opened
