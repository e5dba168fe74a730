"""Revocations of signing keys, whose ids are longer than those of users and devices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Widen the id column for key ids; the step is repeatable, and older releases work with the wider column."""
    with op.batch_alter_table("revocations") as table:
        table.alter_column("id", existing_type=_ascii(36), type_=_ascii(64), existing_nullable=False)


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")
