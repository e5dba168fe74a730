"""Publication of signing keys before they sign, and the client that used a refresh token."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the time at which a key begins to sign, and the fingerprint of the client that used a refresh token."""
    ascii_hash = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql")
    _add_column("signing_keys", sa.Column("signs_at_ms", sa.BigInteger))
    _add_column("refresh_tokens", sa.Column("used_by_hash", ascii_hash))


def _add_column(table: str, column: sa.Column[int] | sa.Column[str]) -> None:
    # MySQL cannot roll back an interrupted step: columns that exist already are left as they are.
    present = {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}
    if column.name not in present:
        op.add_column(table, column)
