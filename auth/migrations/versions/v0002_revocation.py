"""Revocation of tokens; disabled accounts, used refresh tokens, retired keys and deleted owners."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

_MYSQL = {"mysql_engine": "InnoDB", "mysql_default_charset": "utf8mb4"}


def upgrade() -> None:
    """Add the columns and tables by which tokens are revoked, and by which other services learn of it."""
    _add_column("users", sa.Column("disabled_at_ms", sa.BigInteger))
    _add_column("refresh_tokens", sa.Column("used_at_ms", sa.BigInteger))
    _add_column("signing_keys", sa.Column("retires_at_ms", sa.BigInteger))
    _revocations()
    _revocation_counter()
    _deleted_owners()


def _add_column(table: str, column: sa.Column[int]) -> None:
    # MySQL cannot roll back an interrupted step: columns that exist already are left as they are.
    present = {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}
    if column.name not in present:
        op.add_column(table, column)


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def _revocations() -> None:
    op.create_table(
        "revocations",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", _ascii(8), nullable=False),
        sa.Column("id", _ascii(36), nullable=False),
        sa.Column("gen", sa.Integer),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **_MYSQL,
    )
    if not sa.inspect(op.get_bind()).get_indexes("revocations"):
        op.create_index("revocations_until", "revocations", ["until_ms"])


def _revocation_counter() -> None:
    op.create_table(
        "revocation_counter",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **_MYSQL,
    )
    counter = sa.table("revocation_counter", sa.column("id"), sa.column("number"))
    if op.get_bind().scalar(sa.select(counter.c.number)) is None:
        op.execute(sa.insert(counter).values(id=1, number=0))


def _deleted_owners() -> None:
    op.create_table(
        "deleted_owners",
        sa.Column("owner_id", _ascii(36), primary_key=True),
        sa.Column("deleted_at_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **_MYSQL,
    )
