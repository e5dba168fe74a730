"""Alarms and their histories as their owner sees them, and acknowledgements."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.deliveries.notification import Recorded
from alarms.recording import record
from alarms.rules.store import rule_in
from broker.alarms import AlarmState, Cause
from database.alarm_tables import alarm_history, alarm_rules, alarms
from database.connection import Database, server_time_ms


class NoSuchAlarmError(Exception):
    """The owner has no such alarm."""


class NotFiringError(Exception):
    """Only an alarm that is firing can be acknowledged."""

    def __init__(self, state: AlarmState) -> None:
        super().__init__(state)
        self.state = state


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm; times in ms since 1970."""

    id: str
    rule_id: str
    name: str
    severity: str
    device: str
    sensor_type: str
    state: AlarmState
    since_ms: int | None
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A change of an alarm; times in ms since 1970, the value as JSON."""

    number: int
    state: AlarmState
    cause: Cause
    ts_ms: int
    seq: int
    value: str | None
    unit: str | None
    recorded_at_ms: int


class AlarmListing:
    """The alarms of all owners. Every method raises Problem 503 if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        owner: str,
        *,
        devices: Collection[str] | None,
        state: AlarmState | None,
        rule: str | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[AlarmRow], str | None]:
        """Return alarms behind an id, the oldest first, and the cursor of the next page."""
        table = alarms.c
        query = _with_rules().where(table.owner_id == owner).order_by(table.id).limit(limit + 1)
        if devices is not None:
            query = query.where(table.device.in_(devices))
        if state is not None:
            query = query.where(table.state == state)
        if rule is not None:
            query = query.where(table.rule_id == rule)
        if after is not None:
            query = query.where(table.id > after)
        async with self._database.connect() as connection:
            found = [_row(row._asdict()) for row in await connection.execute(query)]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def find(self, owner: str, alarm_id: str) -> AlarmRow:
        """Return an alarm; NoSuchAlarmError."""
        async with self._database.connect() as connection:
            return await _find(connection, owner, alarm_id)

    async def history(
        self, owner: str, alarm_id: str, *, after: int, limit: int
    ) -> tuple[list[HistoryRow], int | None]:
        """Return changes behind a number, the oldest first, and the cursor of the next page."""
        table = alarm_history.c
        names = HistoryRow.__dataclass_fields__
        query = (
            select(*(table[name] for name in names))
            .where(table.owner_id == owner, table.alarm_id == alarm_id, table.number > after)
            .order_by(table.number)
            .limit(limit + 1)
        )
        async with self._database.connect() as connection:
            found = [HistoryRow(**row._asdict()) for row in await connection.execute(query)]
        return found[:limit], found[limit - 1].number if len(found) > limit else None

    async def acknowledge(self, owner: str, alarm_id: str) -> tuple[AlarmRow, Recorded]:
        """Note that the owner has seen a firing alarm; NoSuchAlarmError, NotFiringError."""
        table = alarms.c
        is_it = (table.owner_id == owner, table.id == alarm_id)
        async with self._database.begin() as connection:
            locked = (await connection.execute(select(alarms).where(*is_it).with_for_update())).one_or_none()
            if locked is None:
                raise NoSuchAlarmError
            if locked.state != "firing":
                raise NotFiringError(locked.state)
            now = await server_time_ms(connection)
            number = locked.number + 1
            values = {"state": "acknowledged", "number": number, "changed_at_ms": now}
            await connection.execute(update(alarms).where(*is_it).values(values))
            rule = (
                await connection.execute(
                    select(alarm_rules).where(alarm_rules.c.owner_id == owner, alarm_rules.c.id == locked.rule_id)
                )
            ).one_or_none()
            if rule is None:  # removed long ago
                raise NoSuchAlarmError
            recorded = Recorded(
                rule_in(rule._asdict()),
                alarm_id,
                number,
                "acknowledged",
                "owner",
                locked.device,
                locked.sensor_type,
                now,
                0,
                now,
                None,
                None,
                is_notified=True,
            )
            await record(connection, [recorded], now)
            return await _find(connection, owner, alarm_id), recorded


def _with_rules() -> Any:
    is_rule = (alarm_rules.c.owner_id == alarms.c.owner_id) & (alarm_rules.c.id == alarms.c.rule_id)
    return select(alarms, alarm_rules.c.definition).outerjoin(alarm_rules, is_rule)


async def _find(connection: AsyncConnection, owner: str, alarm_id: str) -> AlarmRow:
    query = _with_rules().where(alarms.c.owner_id == owner, alarms.c.id == alarm_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NoSuchAlarmError
    return _row(row._asdict())


def _row(row: dict[str, Any]) -> AlarmRow:
    # A rule's row is kept for a day after its removal, its alarms for longer.
    named = {"name": "", "severity": "info"} if row["definition"] is None else msgspec.json.decode(row["definition"])
    return AlarmRow(
        row["id"],
        row["rule_id"],
        named["name"],
        named.get("severity", "warning"),
        row["device"],
        row["sensor_type"],
        row["state"],
        row["since_ms"],
        row["changed_at_ms"],
    )
