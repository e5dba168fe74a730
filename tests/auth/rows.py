"""Direct reads and writes in the users' database, bypassing the service."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import create_async_engine

from database.connection import Database
from database.tables import users


async def change(url: str, statement: Any) -> None:
    """Execute a statement in a transaction of its own."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(statement)
    await engine.dispose()


async def stored_hash(url: str) -> str:
    """Return the password hash of the only user."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        stored: str | None = await connection.scalar(select(users.c.password_hash))
    await engine.dispose()
    assert stored is not None
    return stored


async def store_hash(url: str, value: str) -> None:
    """Replace the password hash of every user."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(update(users).values(password_hash=value))
    await engine.dispose()


def cached_statements(database: Database, word: str) -> int:
    """Return how many compiled statements with a word SQLAlchemy keeps for a database."""
    cache: Any = database._engine.sync_engine._compiled_cache
    return sum(word in str(compiled) for compiled in cache.values())
