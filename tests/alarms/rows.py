"""Direct reads and writes in the users' database."""

from typing import Any

from sqlalchemy import Select, insert
from sqlalchemy.ext.asyncio import create_async_engine

from database.tables import users
from tests.auth.rows import change


async def add_user(url: str, name: str) -> None:
    """Add an account whose id is its name."""
    row: dict[str, Any] = {"id": name, "name": name, "email": f"{name}@example.org", "gen": 0}
    row |= {"email_key": name, "password_hash": "-", "created_at_ms": 0}
    await change(url, insert(users).values(row))


async def rows(url: str, query: Select[Any]) -> list[dict[str, Any]]:
    """Return the rows of a query, each by the names of its columns."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = [row._asdict() for row in await connection.execute(query)]
    await engine.dispose()
    return found
