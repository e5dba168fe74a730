"""Addresses that owners have confirmed for alarms by e-mail."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0011"
down_revision = "0010"


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "alarm_emails",
        sa.Column("owner_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("address", sa.String(254), nullable=False),
        sa.Column("confirmed_at_ms", sa.BigInteger),
        sa.Column("code_hash", _ascii(64)),
        sa.Column("code_until_ms", sa.BigInteger),
        sa.Column("wrong_tries", sa.Integer, nullable=False),
        sa.Column("tried_at_ms", sa.BigInteger, nullable=False),
        sa.Column("sent_ms", sa.Text, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
    )
