"""What all tables of the users' database have in common.

Times are integers (milliseconds since 1970, UTC), so that no driver, server or session time zone can shift them. Ids
and hashes are ASCII and compared byte by byte; text entered by people is utf8mb4. Primary keys begin with the owner:
the rows of one owner are stored together, and no query can omit the owner.
"""

from typing import TypeVar

from sqlalchemy import MetaData, String, Table, TypedColumns
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

Columns = TypeVar("Columns", bound=TypedColumns)

metadata = MetaData()


def ascii_text(length: int) -> TypeEngine[str]:
    """ASCII text, compared byte by byte in every database (MySQL's default ignores case)."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, "mysql")


def exact_text(length: int) -> TypeEngine[str]:
    """Any text, compared byte by byte."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, "mysql")


def table(name: str, columns: type[Columns], *constraints: SchemaItem) -> Table[Columns]:
    """Return a table of the schema."""
    return Table(name, metadata, columns, *constraints, mysql_engine="InnoDB", mysql_default_charset="utf8mb4")
