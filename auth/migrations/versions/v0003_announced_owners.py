"""Deleted owners that have been announced."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Keep the ids of deleted owners, so that they can be announced again after readings were restored."""
    exact = mysql.VARCHAR(36, charset="ascii", collation="ascii_bin")
    op.create_table(
        "announced_owners",
        sa.Column("owner_id", sa.String(36).with_variant(exact, "mysql"), primary_key=True),
        sa.Column("deleted_at_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
    )
