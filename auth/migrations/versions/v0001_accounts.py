"""Users, devices, refresh tokens and signing keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_MYSQL = {"mysql_engine": "InnoDB", "mysql_default_charset": "utf8mb4"}


def upgrade() -> None:
    """Create the first tables."""
    _users()
    _devices()
    _refresh_tokens()
    _signing_keys()


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def _users() -> None:
    email_key = mysql.VARCHAR(254, charset="utf8mb4", collation="utf8mb4_bin")
    op.create_table(
        "users",
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", sa.String(254).with_variant(email_key, "mysql"), nullable=False),
        sa.Column("password_hash", _ascii(60), nullable=False),
        sa.Column("gen", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("email_key", name="users_email"),
        if_not_exists=True,
        **_MYSQL,
    )


def _devices() -> None:
    op.create_table(
        "devices",
        sa.Column("owner_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("name", _ascii(64), nullable=False),
        sa.Column("sensor_type", _ascii(64), nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("gen", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("owner_id", "name", name="devices_name"),
        if_not_exists=True,
        **_MYSQL,
    )


def _refresh_tokens() -> None:
    op.create_table(
        "refresh_tokens",
        sa.Column("user_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("sid", _ascii(36), primary_key=True),
        sa.Column("token_hash", _ascii(64), primary_key=True),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("token_hash", name="refresh_tokens_hash"),
        if_not_exists=True,
        **_MYSQL,
    )


def _signing_keys() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kid", _ascii(64), nullable=False),
        sa.Column("public_key", _ascii(64), nullable=False),
        sa.Column("sealed_private_key", _ascii(255), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("kid", name="signing_keys_kid"),
        if_not_exists=True,
        **_MYSQL,
    )
