"""Stores changes of alarms: the alarm, the row in its history, and the notifications, in one transaction."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, and_, delete, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.deliveries.notification import Recorded
from alarms.evaluation.evaluator import Alarm, AlarmKey, Change, Newest
from alarms.evaluation.leader import Leader
from alarms.recording import record
from alarms.rules.point import Point
from alarms.rules.rule import Series
from alarms.rules.state import OK, Phase, State
from alarms.rules.store import rule_in
from database.alarm_tables import alarm_history, alarm_rules, alarm_series, alarms
from database.connection import Database, server_time_ms
from database.ids import new_id
from database.parts import delete_some, rows_in_parts
from database.tables import users
from database.upsert import upsert

# In one transaction, some milliseconds each hundred.
CHANGES_AT_ONCE = 200
# Of an old history, at once.
FORGET_ROWS = 500
# In one query, and in one transaction: some 50 ms each.
LOAD_ROWS = 2000
SAVE_ROWS = 2000
_NOTIFIED = {Phase.FIRING, Phase.ACKNOWLEDGED}
_PLACE = (alarms.c.device, alarms.c.sensor_type, alarms.c.ts_ms, alarms.c.seq)

Item = TypeVar("Item")
Result = TypeVar("Result")


class AlarmStore:
    """The alarms of all owners. Every method raises Problem 503 if the database does not answer."""

    def __init__(self, database: Database, leader: Leader) -> None:
        self._database = database
        self._leader = leader

    async def load(self) -> tuple[dict[AlarmKey, Alarm], dict[Series, Newest]]:
        """Return every alarm, and the newest readings that rules compare with."""
        known: dict[AlarmKey, Alarm] = {}
        newest: dict[Series, Newest] = {}
        async for row in rows_in_parts(self._database, alarms, LOAD_ROWS):
            phase = Phase(row.state)
            # Whether its owner has seen it does not matter here.
            state = State(Phase.FIRING if phase is Phase.ACKNOWLEDGED else phase, row.since_ms)
            known[row.rule_id, row.device, row.sensor_type] = Alarm(state, (row.ts_ms, row.seq))
        async for row in rows_in_parts(self._database, alarm_series, LOAD_ROWS):
            point = Point(row.ts_ms, row.seq, msgspec.json.decode(row.value))
            newest[row.owner_id, row.device, row.sensor_type] = Newest(point, row.received_at_ms)
        return known, newest

    async def outdated(self) -> list[Change]:
        """Return the ends of alarms whose rules were removed, or watch something else, while nobody evaluated."""
        rule, is_over = alarm_rules.c, alarm_rules.c.removed_at_ms.is_not(None)
        query = (
            select(*_PLACE, rule.owner_id, rule.id, alarms.c.rule_version.label("version"))
            .add_columns(rule.created_at_ms, rule.definition)
            .join(alarm_rules, and_(rule.owner_id == alarms.c.owner_id, rule.id == alarms.c.rule_id))
            .where(alarms.c.state != str(Phase.OK), or_(is_over, rule.version != alarms.c.rule_version))
        )
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            found = [row._asdict() for row in await connection.execute(query)]
        return [
            Change(rule_in(row), row["device"], row["sensor_type"], OK, "rule", (row["ts_ms"], row["seq"]), now)
            for row in found
        ]

    def require_leading(self) -> None:
        """Raise NotLeaderError if another process may be evaluating."""
        self._leader.require_held()

    async def commit(self, changes: Sequence[Change]) -> list[Recorded]:
        """Store changes in their order; return what was recorded. NotLeaderError if another process evaluates.

        Of an owner whose account is deleted nothing is stored.
        """
        recorded: list[Recorded] = []
        for start in range(0, len(changes), CHANGES_AT_ONCE):
            recorded += await self._of_existing(changes[start : start + CHANGES_AT_ONCE], _owner_of, self._commit)
        return recorded

    async def save(self, newest: Iterable[tuple[Series, Newest]]) -> None:
        """Store the newest readings of at most `SAVE_ROWS` series; NotLeaderError if another process evaluates."""
        rows = [
            {
                "owner_id": owner,
                "device": device,
                "sensor_type": sensor_type,
                "ts_ms": one.point.ts_ms,
                "seq": one.point.seq,
                "value": msgspec.json.encode(one.point.value).decode(),
                "received_at_ms": one.received_ms,
            }
            for (owner, device, sensor_type), one in newest
        ]

        async def store(some: Sequence[dict[str, Any]]) -> None:
            async with self._database.begin() as connection:
                await self._leader.renew(connection)
                await upsert(connection, alarm_series, some)

        await self._of_existing(rows, lambda row: str(row["owner_id"]), store)

    async def forget(self, before_ms: int) -> None:
        """Delete some of what the histories recorded before a time, in ms since 1970: what takes some milliseconds."""
        recorded_at_ms = alarm_history.c.recorded_at_ms
        async with self._database.begin() as connection:
            is_old = recorded_at_ms < before_ms
            await delete_some(connection, alarm_history, is_old, FORGET_ROWS, recorded_at_ms)

    async def forget_alarms(self, before_ms: int) -> None:
        """Delete alarms that are ok, or whose rules are gone, and have not changed since a time in ms since 1970."""
        is_rule = and_(alarm_rules.c.owner_id == alarms.c.owner_id, alarm_rules.c.id == alarms.c.rule_id)
        is_over = or_(alarms.c.state == str(Phase.OK), alarm_rules.c.id.is_(None))
        query = (
            select(alarms.c.owner_id, alarms.c.id)
            .outerjoin(alarm_rules, is_rule)
            .where(is_over, alarms.c.changed_at_ms < before_ms)
        )
        async with self._database.connect() as connection:
            found = [tuple(row) for row in await connection.execute(query)]
        await self._forget_all(found, alarms.c.owner_id, alarms.c.id)

    async def forget_series(self, is_watched: Callable[[Series], bool]) -> None:
        """Delete the newest readings of series that no rule watches any more."""
        found = [
            (row.owner_id, row.device, row.sensor_type)
            async for row in rows_in_parts(self._database, alarm_series, LOAD_ROWS)
        ]
        key = (alarm_series.c.owner_id, alarm_series.c.device, alarm_series.c.sensor_type)
        await self._forget_all([one for one in found if not is_watched(one)], *key)

    async def _forget_all(self, old: Sequence[tuple[Any, ...]], *key: Column[Any]) -> None:
        """Delete rows by their keys, in portions."""
        for start in range(0, len(old), FORGET_ROWS):
            async with self._database.begin() as connection:
                await self._leader.renew(connection)
                await connection.execute(delete(key[0].table).where(tuple_(*key).in_(old[start : start + FORGET_ROWS])))

    async def _of_existing(
        self,
        items: Sequence[Item],
        owner_of: Callable[[Item], str],
        store: Callable[[Sequence[Item]], Awaitable[Result]],
    ) -> Result:
        """Store items; without those of owners whose accounts are deleted, also in the meantime."""
        while True:
            try:
                return await store(items)
            except IntegrityError:
                there = await self._existing({owner_of(one) for one in items})
                left = [one for one in items if owner_of(one) in there]
                if len(left) == len(items):
                    raise
                items = left

    async def _existing(self, owners: set[str]) -> set[str]:
        async with self._database.connect() as connection:
            return set(await connection.scalars(select(users.c.id).where(users.c.id.in_(owners))))

    async def _commit(self, changes: Sequence[Change]) -> list[Recorded]:
        async with self._database.begin() as connection:
            await self._leader.renew(connection)
            now = await server_time_ms(connection)
            rows = await _alarm_rows(connection, changes)
            recorded: list[Recorded] = []
            for change in changes:
                recorded += await _apply(connection, rows, change, now)
            if recorded:
                touched = {(one.rule.owner, one.rule.id, one.device, one.sensor_type) for one in recorded}
                await upsert(connection, alarms, [rows[key] for key in touched])
                await record(connection, recorded, now)
        return recorded


_Key = tuple[str, str, str, str]


async def _alarm_rows(connection: AsyncConnection, changes: Sequence[Change]) -> dict[_Key, dict[str, Any]]:
    """Return the rows of the alarms that change, locked."""
    keys = {_key(one) for one in changes}
    columns = (alarms.c.owner_id, alarms.c.rule_id, alarms.c.device, alarms.c.sensor_type)
    found = await connection.execute(select(alarms).where(tuple_(*columns).in_(keys)).with_for_update())
    return {(row.owner_id, row.rule_id, row.device, row.sensor_type): row._asdict() for row in found}


def _owner_of(change: Change) -> str:
    return change.rule.owner


def _key(change: Change) -> _Key:
    return change.rule.owner, change.rule.id, change.device, change.sensor_type


async def _apply(
    connection: AsyncConnection, rows: dict[_Key, dict[str, Any]], change: Change, now_ms: int
) -> list[Recorded]:
    """Apply a change to its alarm's row; return what is recorded of it."""
    row = rows.get(_key(change))
    if change.cause == "late":
        if row is not None and await _is_covered(connection, row, change):
            return []
        row = rows[_key(change)] = row or _new_row(change, now_ms)
        # After a restart, what was late is not evaluated again as if it were not.
        row["ts_ms"], row["seq"] = max((row["ts_ms"], row["seq"]), change.newest)
        row["changed_at_ms"] = now_ms  # it is kept as long as its history
        return [_record(row, change, phase, now_ms, is_notified=True) for phase in (Phase.FIRING, Phase.OK)]
    row = rows[_key(change)] = row or _new_row(change, now_ms)
    before, phase = Phase(row["state"]), change.state.phase
    # Of changes that are stored again, as the database did not say whether they were, each is there already.
    # What another rule has seen was by other clocks, if it was a silence.
    is_same_rule = row["rule_version"] >= change.rule.version
    is_stored = change.cause == "reading" and is_same_rule and change.position <= (row["ts_ms"], row["seq"])
    is_of_new_rule = change.cause == "rule" and row["rule_version"] > change.rule.version
    if before is phase or is_stored or is_of_new_rule:
        return []
    row |= {
        "state": str(phase),
        "since_ms": change.state.since_ms,
        "ts_ms": change.position[0],
        "seq": change.position[1],
        "rule_version": change.rule.version,
        "changed_at_ms": now_ms,
    }
    return [_record(row, change, phase, now_ms, is_notified=bool({before, phase} & _NOTIFIED))]


def _new_row(change: Change, now_ms: int) -> dict[str, Any]:
    return {
        "owner_id": change.rule.owner,
        "id": new_id(),
        "rule_id": change.rule.id,
        "device": change.device,
        "sensor_type": change.sensor_type,
        "rule_version": change.rule.version,
        "state": str(Phase.OK),
        "since_ms": None,
        "ts_ms": -1,
        "seq": -1,
        "number": 0,
        "changed_at_ms": now_ms,
    }


def _record(row: dict[str, Any], change: Change, phase: Phase, now_ms: int, *, is_notified: bool) -> Recorded:
    row["number"] += 1
    return Recorded(
        change.rule,
        row["id"],
        row["number"],
        phase.value,
        change.cause,
        change.device,
        change.sensor_type,
        change.ts_ms,
        0 if change.point is None else change.point.seq,
        now_ms,
        None if change.point is None else change.point.value,
        change.unit,
        is_notified,
    )


async def _is_covered(connection: AsyncConnection, row: dict[str, Any], change: Change) -> bool:
    """Return whether the alarm was firing at a late reading's time, or that reading is recorded already."""
    table, (ts_ms, seq) = alarm_history.c, change.position
    of_alarm = (table.owner_id == row["owner_id"], table.alarm_id == row["id"])
    is_it = (*of_alarm, table.ts_ms == ts_ms, table.seq == seq, table.cause == "late")
    if await connection.scalar(select(table.number).where(*is_it).limit(1)) is not None:
        return True
    until = or_(table.ts_ms < ts_ms, and_(table.ts_ms == ts_ms, table.seq <= seq))
    # The first condition on the time is for the index.
    before = (*of_alarm, table.ts_ms <= ts_ms, until, table.cause != "late", table.cause != "owner")
    newest_first = (table.ts_ms.desc(), table.seq.desc(), table.number.desc())
    state = await connection.scalar(select(table.state).where(*before).order_by(*newest_first).limit(1))
    return bool(state == Phase.FIRING)
