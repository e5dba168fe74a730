"""Fixtures: a test with `database_url` runs on SQLite and on MariaDB, each time on a new database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from auth.migrate import migrate
from tests.auth.service import Client, make_settings, running


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'users.db'}"


@pytest.fixture(params=["sqlite", "mariadb"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database without tables."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def database_url(empty_url: str) -> str:
    """A database with the newest schema."""
    await migrate(empty_url)
    return empty_url


@pytest.fixture
async def sqlite_client(sqlite_url: str) -> AsyncIterator[Client]:
    """A client for requests that are refused before any query."""
    await migrate(sqlite_url)
    async with running(make_settings(sqlite_url)) as it:
        yield it


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    """A client of a service with default settings."""
    async with running(make_settings(database_url)) as it:
        yield it
