"""Fixtures: a test with `database_url` runs on SQLite and on MariaDB, each time on a new database."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import pytest

from auth.migrate import migrate
from auth.tokens import sealing
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


@pytest.fixture(scope="session")
def started_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SQLite database on which a service has run once; copies of it need neither a migration nor a new key.

    The key that opens the signing key is derived once per run: that and a migration take 0.15 s.
    """
    file = tmp_path_factory.mktemp("auth") / "users.db"

    async def start() -> None:
        await migrate(f"sqlite+aiosqlite:///{file}")
        async with running(make_settings(f"sqlite+aiosqlite:///{file}")):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_derive", cache(sealing._derive))
        asyncio.run(start())
        yield file


@pytest.fixture
async def sqlite_client(started_database: Path, tmp_path: Path) -> AsyncIterator[Client]:
    """A client for requests that are refused before any query."""
    copy = shutil.copy(started_database, tmp_path / "users.db")
    async with running(make_settings(f"sqlite+aiosqlite:///{copy}")) as it:
        yield it


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    """A client of a service with default settings."""
    async with running(make_settings(database_url)) as it:
        yield it
