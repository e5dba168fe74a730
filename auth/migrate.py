"""Upgrades a database to the newest schema, safely even if other processes do the same concurrently.

In: the database's URL. Out: the revisions before and after. One process migrates at a time: the others wait for MySQL's
named lock or, in SQLite, for the write lock of the single transaction around the migration.
"""

import asyncio
import hashlib
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.schema import STEPS, SchemaError, create_schema, is_behind, revision_of
from database.connection import BEGIN_TO_WRITE, open_engine

# How long to wait for another process's migration.
_LOCK_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Migration:
    """The revisions before and after a migration; `before` is None for a new database, equal ones mean no change."""

    before: str | None
    after: str


async def migrate(url: str) -> Migration:
    """Upgrade the database to the newest revision.

    Raises SchemaError if another migration does not finish within 60 s, or the database does not answer.
    """
    if url.startswith("sqlite"):
        path = make_url(url).database or ""
        try:
            await asyncio.to_thread(_use_wal, path)
        except sqlite3.Error as error:
            raise SchemaError(f"The users' file {path} cannot be used: {error}") from error
    async with open_engine(url, connections=1, wait_timeout_s=_LOCK_TIMEOUT_S) as engine:
        writer = engine.execution_options(**BEGIN_TO_WRITE)
        try:
            async with writer.begin() as connection:
                await _wait_for_turn(connection)
                return await connection.run_sync(_upgrade)
        except (OperationalError, InterfaceError) as error:
            raise SchemaError(f"The database does not answer as it should: {error.orig}") from error


def _use_wal(path: str) -> None:
    """Set the file's journal mode, which applies to all later connections."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                # SQLite's busy timeout does not cover this change: two concurrent ones would wait forever.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


async def _wait_for_turn(connection: AsyncConnection) -> None:
    if connection.dialect.name == "sqlite":
        return  # BEGIN IMMEDIATE has waited
    # Held until the session ends. Lock names are per server, not per database, and have at most 64 characters.
    database = connection.engine.url.database or ""
    name = "tidegate.auth." + hashlib.sha256(database.encode()).hexdigest()[:32]
    lock = text("SELECT GET_LOCK(:name, :seconds)").bindparams(name=name, seconds=_LOCK_TIMEOUT_S)
    if await connection.scalar(lock) != 1:
        raise SchemaError(f"Another migration has been running for {_LOCK_TIMEOUT_S} s.")


def _upgrade(connection: Connection) -> Migration:
    before = revision_of(connection)
    if before is None and create_schema(connection):
        return Migration(before=None, after=STEPS[-1])
    if is_behind(before):
        _take_steps(connection)
    return Migration(before=before, after=revision_of(connection) or "")


def _take_steps(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - auth/schema.py says why
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "auth:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
