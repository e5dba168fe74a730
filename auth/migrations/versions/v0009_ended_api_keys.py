"""API keys that were ended early, so that an owner has a bounded number of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    """Add the table; keys that were ended before are not in it."""
    op.create_table(
        "ended_api_keys",
        sa.Column("owner_id", _ascii(36), primary_key=True),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
    )
