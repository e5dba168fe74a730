"""Revocations name signing keys, whose ids are longer than those of users and devices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make room for the id of a key; again is no harm, and an older release goes on with it."""
    with op.batch_alter_table("revocations") as table:
        table.alter_column("id", existing_type=_ascii(36), type_=_ascii(64), existing_nullable=False)


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")
