"""Fixtures: a test with `database_url` runs on SQLite and on MariaDB, each time on a new database."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from auth.migrate import migrate
from database.connection import Database, open_database
from tests.alarms.rows import add_user


async def prepare(url: str) -> None:
    await migrate(url)
    for name in ("ada", "bob"):
        await add_user(url, name)


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the newest schema: copies of it need no migration, which takes seconds on a busy disk."""
    file = tmp_path_factory.mktemp("alarms") / "users.db"
    asyncio.run(prepare(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture
def sqlite_url(prepared_file: Path, tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(prepared_file, tmp_path / 'users.db')}"


@pytest.fixture(params=["sqlite", "mariadb"])
def given_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def database_url(given_url: str) -> str:
    """A database with the newest schema, and the users ada and bob."""
    if not given_url.startswith("sqlite"):
        await prepare(given_url)
    return given_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    # A disk that is busy with other tests for some seconds fails none of these.
    async with open_database(database_url, connections=5, timeout_s=30) as opened:
        yield opened
