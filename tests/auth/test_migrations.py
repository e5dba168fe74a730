import asyncio
import os
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, String, insert, inspect, select, text
from sqlalchemy.dialects import mysql

from auth.app import auth_service
from auth.migrate import Migration, migrate
from auth.schema import STEPS, SchemaError, require_schema
from database.columns import metadata
from database.connection import open_database, open_engine
from database.tables import revocations
from tests.auth.service import make_settings

TABLES = {
    "users",
    "devices",
    "refresh_tokens",
    "signing_keys",
    "revocations",
    "revocation_counter",
    "deleted_owners",
    "announced_owners",
    "commands",
    "api_keys",
    "ended_api_keys",
    "provisioning_keys",
    "device_claims",
    "alarm_rules",
    "alarm_rule_counter",
    "alarms",
    "alarm_history",
    "alarm_deliveries",
    "alarm_emails",
    "alarm_series",
    "alarm_leader",
    "alembic_version",
}


async def test_a_migration_makes_the_tables_and_says_so(empty_url: str) -> None:
    assert await migrate(empty_url) == Migration(before=None, after="0011")
    async with open_engine(empty_url, connections=1, wait_timeout_s=5) as engine, engine.connect() as connection:
        assert set(await connection.run_sync(lambda it: inspect(it).get_table_names())) == TABLES


async def test_a_second_migration_does_nothing(database_url: str) -> None:
    assert await migrate(database_url) == Migration(before="0011", after="0011")


async def test_the_steps_are_those_that_are_taken() -> None:
    script = ScriptDirectory(str(files("auth") / "migrations"))
    assert [step.revision for step in script.walk_revisions()] == list(reversed(STEPS))


async def test_two_migrations_at_once_do_the_work_once(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url) for _ in range(4)))
    assert sorted(str(one.before) for one in done) == ["0011", "0011", "0011", "None"]


async def test_two_processes_may_migrate_at_once(empty_url: str) -> None:
    environment = os.environ | {"AUTH_DATABASE_URL": empty_url, "LOG_FORMAT": "json"}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "auth", "migrate", env=environment, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sum("The database was migrated." in text for text in said) == 1, said
    assert sum("nothing was changed" in text for text in said) == 2, said


async def test_the_steps_make_the_tables_that_a_new_database_gets(empty_url: str) -> None:
    """A table that is there makes a database an old one."""
    async with open_engine(empty_url, connections=1, wait_timeout_s=5) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE others (id INTEGER)"))
        assert await migrate(empty_url) == Migration(before=None, after=STEPS[-1])
        async with engine.begin() as connection:
            stepwise = await connection.run_sync(_everything)
            await connection.run_sync(_drop_all)
        assert await migrate(empty_url) == Migration(before=None, after=STEPS[-1])
        async with engine.connect() as connection:
            assert await connection.run_sync(_everything) == stepwise
            assert await connection.run_sync(_differences) == []


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


def _everything(connection: Connection) -> dict[str, object]:
    """Return tables with columns, keys, options and rows, but for the order of columns."""
    found = inspect(connection)
    return {
        table: (
            sorted(repr(sorted(column.items(), key=repr)) for column in found.get_columns(table)),
            found.get_pk_constraint(table),
            sorted(map(repr, found.get_foreign_keys(table))),
            sorted(map(repr, found.get_unique_constraints(table))),
            sorted(map(repr, found.get_indexes(table))),
            found.get_table_options(table),
            [row._asdict() for row in connection.execute(text(f"SELECT * FROM {table}"))],  # noqa: S608 - our own names
        )
        for table in found.get_table_names()
        if table != "others"
    }


def _drop_all(connection: Connection) -> None:
    metadata.drop_all(connection)
    for table in ("alembic_version", "others"):
        connection.execute(text(f"DROP TABLE {table}"))


@pytest.mark.filterwarnings("ignore:.*already exists")
async def test_a_migration_that_was_killed_half_way_can_run_again(database_url: str) -> None:
    async with open_engine(database_url, connections=1, wait_timeout_s=5) as engine, engine.begin() as connection:
        await connection.execute(text("DELETE FROM alembic_version"))
        await connection.execute(text("DROP TABLE signing_keys"))
    assert await migrate(database_url) == Migration(before=None, after="0011")


async def test_a_database_that_is_not_migrated_stops_the_start(empty_url: str) -> None:
    with pytest.raises(SchemaError, match="python -m auth migrate"):
        async with auth_service(make_settings(empty_url), registry=CollectorRegistry()):
            pass


async def test_a_newer_schema_serves_and_is_left_alone(database_url: str) -> None:
    async with open_engine(database_url, connections=1, wait_timeout_s=5) as engine, engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    async with open_database(database_url, connections=1, timeout_s=2) as database:
        await require_schema(database)
    assert await migrate(database_url) == Migration(before="9999", after="9999")


async def test_sqlite_is_durable_and_checks_references(sqlite_url: str, tmp_path: Path) -> None:
    await migrate(sqlite_url)
    async with open_database(sqlite_url, connections=1, timeout_s=2) as database, database.connect() as connection:
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await connection.scalar(text("PRAGMA synchronous")) == 2
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
    assert (tmp_path / "users.db").exists()


async def test_what_was_revoked_before_a_migration_is_revoked_after_it(empty_url: str) -> None:
    """From the schema of the last release in which keys could not be revoked."""
    await migrate(empty_url)
    row = {"number": 7, "kind": "sid", "id": "family", "gen": None, "until_ms": 5}
    async with open_engine(empty_url, connections=1, wait_timeout_s=5) as engine, engine.begin() as connection:
        await connection.run_sync(_narrow)
        await connection.execute(insert(revocations).values(row))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    assert (await migrate(empty_url)).before == "0002"
    async with open_engine(empty_url, connections=1, wait_timeout_s=5) as engine, engine.begin() as connection:
        assert [found._asdict() for found in await connection.execute(select(revocations))] == [row]
        await connection.execute(insert(revocations).values(row | {"number": 8, "id": "k" * 43}))
        indexes = await connection.run_sync(lambda it: inspect(it).get_indexes("revocations"))
        assert [index["column_names"] for index in indexes] == [["until_ms"]]


def _narrow(connection: Connection) -> None:
    with Operations(MigrationContext.configure(connection)).batch_alter_table("revocations") as alter:
        exact = mysql.VARCHAR(36, charset="ascii", collation="ascii_bin")
        alter.alter_column("id", type_=String(36).with_variant(exact, "mysql"), existing_nullable=False)


@pytest.mark.parametrize("file", ["no/such/folder/users.db", "notes.txt"])
async def test_a_file_that_cannot_be_used_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    with pytest.raises(SchemaError, match=f"{file} cannot be used"):
        await migrate(f"sqlite+aiosqlite:///{tmp_path}/{file}")
