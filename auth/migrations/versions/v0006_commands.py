"""Commands to devices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    """Add the commands, which go with their device."""
    op.create_table(
        "commands",
        sa.Column("owner_id", _ascii(36), primary_key=True),
        sa.Column("device_id", _ascii(36), primary_key=True),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("name", _ascii(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("timeout_ms", sa.Integer, nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("status", _ascii(12), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("delivered_at_ms", sa.BigInteger),
        sa.Column("finished_at_ms", sa.BigInteger),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("retry_at_ms", sa.BigInteger, nullable=False),
        sa.Column("leased_until_ms", sa.BigInteger, nullable=False),
        sa.Column("remove_at_ms", sa.BigInteger, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("detail", sa.Text),
        sa.ForeignKeyConstraint(
            ["owner_id", "device_id"], ["devices.owner_id", "devices.id"], ondelete="CASCADE", name="commands_device"
        ),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_default_charset="utf8mb4",
    )
    # MySQL cannot roll back an interrupted step: indexes that exist already are left as they are.
    present = {found["name"] for found in sa.inspect(op.get_bind()).get_indexes("commands")}
    for name, columns in (("commands_due", ["kept", "status", "retry_at_ms"]), ("commands_remove", ["remove_at_ms"])):
        if name not in present:
            op.create_index(name, "commands", columns)
