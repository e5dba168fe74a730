"""The ledger as its senders and its readers use it: what is due, what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Executable, func, select, tuple_, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.rules.store import secrets_in
from database.alarm_tables import alarm_deliveries, alarm_rules
from database.connection import Database, database_now_ms, server_time_ms
from database.parts import delete_some
from database.shapes import padded

State = Literal["pending", "delivered", "dead"]
Kind = Literal["webhook", "email"]
# Longer than a call, or handing over a mail, may take.
LEASE_MS = 30_000
# What is finished is kept as long as the history.
REMOVE_ROWS = 1000
# Whose rows are read in one statement.
OWNERS_AT_ONCE = 50


class NoSuchDeliveryError(Exception):
    """The owner has no such delivery."""


class NotDeadError(Exception):
    """Only a delivery that was given up is replayed."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the ledger; times in ms since 1970."""

    owner: str
    id: str
    rule_id: str
    alarm_id: str | None
    kind: str
    target: str
    body: str
    state: State
    attempts: int
    last_status: str | None
    created_at_ms: int
    due_at_ms: int
    give_up_at_ms: int
    finished_at_ms: int | None


class DeliveryStore:
    """The ledger of all owners. Every method raises Problem 503 if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(
        self, kind: Kind, limit: int, room: Mapping[str, int], room_of_others: int
    ) -> list[tuple[Delivery, tuple[str, ...]]]:
        """Lease what is due of a kind, at most `limit` and of an owner its `room`: each with the secrets that sign it.

        Nothing only if nothing is due of anyone who has room. The secrets are sealed.
        """
        table = alarm_deliveries.c
        found = dict[tuple[str, str], Delivery]()
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            owners = [
                (owner, left)
                for owner in await _owners_with_due(connection, kind, now)
                if (left := room.get(owner, room_of_others)) > 0
            ]
            for start in range(0, len(owners), OWNERS_AT_ONCE):
                some = owners[start : start + OWNERS_AT_ONCE]
                for row in await connection.execute(_due_of(kind, padded(some), now)):
                    one = _delivery(row._asdict())
                    found[one.owner, one.id] = one
                if len(found) >= limit:
                    break
        if not found:
            return []
        found = dict(sorted(found.items(), key=lambda item: item[1].due_at_ms)[:limit])
        async with self._database.begin() as connection:
            keys = tuple_(table.owner_id, table.id)
            still_due = (table.state == "pending", table.leased_until_ms <= now)
            free = select(table.owner_id, table.id).where(keys.in_(found), *still_due).with_for_update()
            leased = [found[owner, one_id] for owner, one_id in await connection.execute(free)]
            if not leased:  # another process was faster
                return []
            leasing = update(alarm_deliveries).where(_are(leased)).values(leased_until_ms=now + LEASE_MS)
            await connection.execute(leasing)
            secrets = await _secrets(connection, leased, now)
        return [(one, secrets.get((one.owner, one.rule_id), ())) for one in leased]

    async def finish(self, deliveries: Sequence[Delivery], state: State, status: str) -> None:
        """Note that deliveries are delivered, or were given up, with the same status."""
        async with self._database.begin() as connection:
            values = {
                "state": state,
                "last_status": status,
                "attempts": alarm_deliveries.c.attempts + 1,
                "finished_at_ms": database_now_ms(),
                "leased_until_ms": 0,
            }
            await connection.execute(update(alarm_deliveries).where(_are(deliveries)).values(values))

    async def postpone(self, delivery: Delivery, status: str, pause_ms: int) -> State:
        """Note a failed attempt: it is due again after a pause, or given up if that would be too late."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            state: State = "pending" if now + pause_ms < delivery.give_up_at_ms else "dead"
            values: dict[str, Any] = {
                "state": state,
                "last_status": status,
                "attempts": alarm_deliveries.c.attempts + 1,
                "due_at_ms": now + pause_ms,
                "finished_at_ms": None if state == "pending" else now,
                "leased_until_ms": 0,
            }
            await connection.execute(update(alarm_deliveries).where(*_is(delivery)).values(values))
        return state

    async def page(
        self, owner: str, *, state: State | None, before: str | None, limit: int
    ) -> tuple[list[Delivery], str | None]:
        """Return deliveries of an owner, the newest first, and the cursor of the next page."""
        table = alarm_deliveries.c
        query = select(alarm_deliveries).where(table.owner_id == owner).order_by(table.id.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(table.state == state)
        if before is not None:
            query = query.where(table.id < before)
        async with self._database.connect() as connection:
            found = [_delivery(row._asdict()) for row in await connection.execute(query)]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def replay(self, owner: str, delivery_id: str, give_up_after_ms: int) -> Delivery:
        """Make a delivery that was given up due again, under the same id; NoSuchDeliveryError, NotDeadError."""
        table = alarm_deliveries.c
        is_it = (table.owner_id == owner, table.id == delivery_id)
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            values = {
                "state": "pending",
                "due_at_ms": now,
                "give_up_at_ms": now + give_up_after_ms,
                "finished_at_ms": None,
                "leased_until_ms": 0,
            }
            result = await connection.execute(
                update(alarm_deliveries).where(*is_it, table.state == "dead").values(values)
            )
            row = (await connection.execute(select(alarm_deliveries).where(*is_it))).one_or_none()
        if row is None:
            raise NoSuchDeliveryError
        if result.rowcount != 1:
            raise NotDeadError
        return _delivery(row._asdict())

    async def forget(self, finished_before_ms: int) -> None:
        """Remove at most some deliveries that were finished before a time, in ms since 1970."""
        is_old = alarm_deliveries.c.finished_at_ms < finished_before_ms
        async with self._database.begin() as connection:
            await delete_some(connection, alarm_deliveries, is_old, REMOVE_ROWS)


def _are(deliveries: Sequence[Delivery]) -> ColumnElement[bool]:
    keys = tuple_(alarm_deliveries.c.owner_id, alarm_deliveries.c.id)
    return keys.in_([(one.owner, one.id) for one in deliveries])


async def _owners_with_due(connection: AsyncConnection, kind: Kind, now_ms: int) -> list[str]:
    """Return the owners of whom something of a kind is due, or leased: who waits the longest first.

    Grouped as the index `alarm_deliveries_due` is, of which MariaDB and MySQL read an entry for each owner (loose index
    scan): a backlog of one keeps nobody else waiting.
    """
    table = alarm_deliveries.c
    first = func.min(table.due_at_ms).label("first")
    query = (
        select(table.owner_id, first)
        .where(table.state == "pending", table.kind == kind)
        .group_by(table.state, table.kind, table.owner_id)
    )
    rows = [(row.first, row.owner_id) for row in await connection.execute(query)]
    return [owner for due_at_ms, owner in sorted(rows) if due_at_ms <= now_ms]


def _due_of(kind: Kind, owners: Sequence[tuple[str, int]], now_ms: int) -> Executable:
    """Return the query of what is due of owners, of each at most so many."""
    table = alarm_deliveries.c
    due = (table.state == "pending", table.kind == kind, table.due_at_ms <= now_ms, table.leased_until_ms <= now_ms)
    parts = [
        select(alarm_deliveries).where(*due, table.owner_id == owner).order_by(table.due_at_ms).limit(most).subquery()
        for owner, most in owners
    ]
    return union_all(*(select(part) for part in parts))


def _is(delivery: Delivery) -> tuple[Any, Any]:
    return alarm_deliveries.c.owner_id == delivery.owner, alarm_deliveries.c.id == delivery.id


async def _secrets(
    connection: Any, deliveries: Sequence[Delivery], now_ms: int
) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the sealed secrets of rules, also of removed ones: what their alarms have said is still to be told."""
    table = alarm_rules.c
    query = select(
        table.owner_id, table.id, table.sealed_secret, table.previous_sealed_secret, table.previous_until_ms
    ).where(table.owner_id.in_({one.owner for one in deliveries}), table.id.in_({one.rule_id for one in deliveries}))
    rows = await connection.execute(query)
    return {(row.owner_id, row.id): secrets_in(row._asdict(), now_ms) for row in rows}


def _delivery(row: dict[str, Any]) -> Delivery:
    row["owner"] = row.pop("owner_id")
    del row["leased_until_ms"]
    return Delivery(**row)
