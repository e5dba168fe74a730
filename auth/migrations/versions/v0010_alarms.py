"""Rules, alarms, their history, and the ledger of notifications."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"

_INDEXES = {
    "alarm_rules": {"alarm_rules_number": ["number"]},
    "alarms": {"alarms_state": ["owner_id", "state"]},
    "alarm_history": {
        "alarm_history_recorded": ["recorded_at_ms"],
        "alarm_history_ts": ["owner_id", "alarm_id", "ts_ms", "seq"],
    },
    "alarm_deliveries": {
        "alarm_deliveries_due": ["state", "kind", "owner_id", "due_at_ms"],
        "alarm_deliveries_rule": ["owner_id", "rule_id", "created_at_ms"],
        "alarm_deliveries_finished": ["finished_at_ms"],
    },
}


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql")


def _table(name: str, *columns: sa.schema.SchemaItem) -> None:
    op.create_table(name, *columns, if_not_exists=True, mysql_engine="InnoDB", mysql_default_charset="utf8mb4")


def _owner() -> "sa.Column[str]":
    return sa.Column("owner_id", _ascii(36), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)


def upgrade() -> None:
    """Add the tables, and the one row of those that have one."""
    _table(
        "alarm_rules",
        _owner(),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("sealed_secret", _ascii(255)),
        sa.Column("previous_sealed_secret", _ascii(255)),
        sa.Column("previous_until_ms", sa.BigInteger),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("removed_at_ms", sa.BigInteger),
    )
    _table(
        "alarm_rule_counter",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    _table(
        "alarms",
        _owner(),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("rule_id", _ascii(36), nullable=False),
        sa.Column("device", _ascii(64), nullable=False),
        sa.Column("sensor_type", _ascii(64), nullable=False),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("state", _ascii(12), nullable=False),
        sa.Column("since_ms", sa.BigInteger),
        sa.Column("ts_ms", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("owner_id", "rule_id", "device", "sensor_type", name="alarms_series"),
    )
    _table(
        "alarm_history",
        _owner(),
        sa.Column("alarm_id", _ascii(36), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", _ascii(12), nullable=False),
        sa.Column("cause", _ascii(12), nullable=False),
        sa.Column("ts_ms", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("unit", sa.String(32)),
        sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
    )
    _table(
        "alarm_deliveries",
        _owner(),
        sa.Column("id", _ascii(36), primary_key=True),
        sa.Column("rule_id", _ascii(36), nullable=False),
        sa.Column("alarm_id", _ascii(36)),
        sa.Column("kind", _ascii(12), nullable=False),
        sa.Column("target", sa.String(2048), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", _ascii(12), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_status", sa.String(64)),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("give_up_at_ms", sa.BigInteger, nullable=False),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("leased_until_ms", sa.BigInteger, nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger),
    )
    _table(
        "alarm_series",
        _owner(),
        sa.Column("device", _ascii(64), primary_key=True),
        sa.Column("sensor_type", _ascii(64), primary_key=True),
        sa.Column("ts_ms", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    )
    _table(
        "alarm_leader",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("holder", _ascii(36), nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    connection = op.get_bind()
    found = sa.inspect(connection)
    # MySQL cannot roll back an interrupted step: what exists already is left as it is.
    for table, indexes in _INDEXES.items():
        there = {index["name"] for index in found.get_indexes(table)}
        for index, columns in indexes.items():
            if index not in there:
                op.create_index(index, table, columns)
    for table, values in (("alarm_rule_counter", "1, 0"), ("alarm_leader", "1, '', 0")):
        if not connection.scalar(sa.text(f"SELECT COUNT(*) FROM {table}")):  # noqa: S608 - two literals
            connection.execute(sa.text(f"INSERT INTO {table} VALUES ({values})"))  # noqa: S608
