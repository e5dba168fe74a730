"""Which step the database's schema is at, and whether this release can work with it.

Without Alembic, whose import took 13 % of the imports' CPU of `auth`: only a database of an older release needs it.
"""

import re
from importlib.resources import files

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, text

from database.alarm_tables import alarm_leader, alarm_rule_counter
from database.columns import metadata
from database.connection import Database
from database.tables import revocation_counter
from runtime.process import CannotGoOnError

_MODULE = re.compile(r"v(\d{4})_\w+\.py")


def _steps() -> tuple[str, ...]:
    modules = (_MODULE.fullmatch(file.name) for file in files("auth.migrations.versions").iterdir())
    return tuple(sorted(module[1] for module in modules if module))


# The revisions of this release's steps, oldest first: each step's module is named after its revision.
STEPS = _steps()


# As Alembic makes it.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32)),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class SchemaError(CannotGoOnError):
    """The database's schema does not fit this release, or cannot be upgraded."""


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the newest step that was taken; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def create_schema(connection: Connection) -> bool:
    """Create the newest schema in a database that has no tables yet; return whether it had none.

    MySQL commits each table: what an interruption leaves has tables and no revision, and is completed by the steps.
    """
    if inspect(connection).get_table_names():
        return False
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(revocation_counter).values(id=1, number=0))
    connection.execute(insert(alarm_rule_counter).values(id=1, number=0))
    connection.execute(insert(alarm_leader).values(id=1, holder="", until_ms=0))
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=STEPS[-1]))
    return True


def is_behind(revision: str | None) -> bool:
    """Return whether a step of this release is missing; a newer schema is fine, as steps are additive."""
    return revision is None or revision in STEPS[:-1]


async def require_schema(database: Database) -> None:
    """Raise SchemaError if a step of this release is missing."""
    async with database.connect() as connection:
        current = await connection.run_sync(revision_of)
    if is_behind(current):
        raise SchemaError(f"The database is at revision {current or 'none'}: run `python -m auth migrate` first.")
