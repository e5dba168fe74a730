"""Provisioning keys, and the devices that were claimed with them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"

_OPTIONS = {"mysql_engine": "InnoDB", "mysql_default_charset": "utf8mb4"}


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def upgrade() -> None:
    """Add both tables; their rows go with the owner and the device."""
    op.create_table(
        "provisioning_keys",
        sa.Column("owner_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("key_hash", _ascii(64), nullable=False),
        sa.Column("max_devices", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.UniqueConstraint("key_hash", name="provisioning_keys_hash"),
        if_not_exists=True,
        **_OPTIONS,
    )
    op.create_table(
        "device_claims",
        sa.Column("owner_id", _ascii(36), primary_key=True),
        sa.Column("hardware_id", _ascii(64), primary_key=True),
        sa.Column("device_id", _ascii(36), nullable=False),
        sa.Column("provisioning_key_id", _ascii(36), nullable=False),
        sa.Column("secret_hash", _ascii(64)),
        sa.Column("claimed_at_ms", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id", "device_id"],
            ["devices.owner_id", "devices.id"],
            ondelete="CASCADE",
            name="device_claims_claimed",
        ),
        sa.UniqueConstraint("owner_id", "device_id", name="device_claims_device"),
        if_not_exists=True,
        **_OPTIONS,
    )
    # MySQL cannot roll back an interrupted step: an index that exists already is left as it is.
    if "device_claims_key" not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("device_claims")}:
        op.create_index("device_claims_key", "device_claims", ["owner_id", "provisioning_key_id"])
