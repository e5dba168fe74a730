"""API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    """Add the API keys, which go with their owner."""
    op.create_table(
        "api_keys",
        sa.Column("owner_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scope", _ascii(128), nullable=False),
        sa.Column("devices", sa.Text),
        sa.Column("kid", _ascii(64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
    )
    # MySQL cannot roll back an interrupted step: an index that exists already is left as it is.
    if not sa.inspect(op.get_bind()).get_indexes("api_keys"):
        op.create_index("api_keys_kid", "api_keys", ["kid", "expires_at_ms"])
