"""Commands in the users' database. Every query on one device names its owner.

A row is written before anything is sent, and finished only with the device's own acknowledgement. A kept row is
delivered by the replica that holds its lease: `leased_until_ms`, by the database's clock. A replica that dies leaves
rows whose lease ends by itself; they are then delivered again, under the same id.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, case, delete, false, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.commands.command import Acknowledgement, Command, CommandPage, NewCommand
from auth.devices import lock_device
from auth.errors import TooManyCommandsError
from database.connection import Database, database_now_ms, server_time_ms
from database.ids import new_id
from database.shapes import padded
from database.tables import commands

UNFINISHED = ("pending", "delivered")

MAX_PENDING = 100
# Finished and expired commands that are kept of one device; older ones are removed.
MAX_HISTORY = 1000
# Commands of one device delivered together: 256 KiB at most.
LEASE_ROWS = 16
# How long a lease lasts beyond the time that the device has: the way to it and back.
LEASE_MARGIN_MS = 5000
# Commands that are delivered again to a device which stays connected and does not acknowledge: after 10 s, 20 s, …
RETRY_MS = 10_000
MAX_RETRY_MS = 300_000
# A device that is not connected is looked for again after this, should its connect have been missed.
OFFLINE_RETRY_MS = 3600_000
# Rows that one statement removes.
REMOVE_ROWS = 1000


class CommandStore:
    """The commands of all devices. Finished ones are kept for `history_ms`."""

    def __init__(self, database: Database, history_ms: int) -> None:
        self._database = database
        self._history_ms = history_ms

    async def add(self, owner_id: str, device_id: str, new: NewCommand) -> Command:
        """Write a command; raise NoSuchDeviceError or TooManyCommandsError.

        One that is waited for is leased to its sender: no other replica sends it.
        """
        async with self._database.begin() as connection:
            # One command of a device at a time, so that two concurrent ones cannot exceed the limit.
            await lock_device(connection, owner_id, device_id)
            now = await server_time_ms(connection)
            await self._require_room(connection, owner_id, device_id, now)
            lifetime = new.timeout_ms if new.keep_ms is None else new.keep_ms
            command = Command(
                id=new_id(),
                owner_id=owner_id,
                device_id=device_id,
                name=new.name,
                payload=new.payload,
                timeout_ms=new.timeout_ms,
                kept=new.keep_ms is not None,
                status="pending",
                created_at_ms=now,
                expires_at_ms=now + lifetime,
                delivered_at_ms=None,
                finished_at_ms=None,
                deliveries=0,
                result=None,
                detail=None,
            )
            row = msgspec.structs.asdict(command) | {
                "kept": int(command.kept),
                "retry_at_ms": now,
                "leased_until_ms": 0,
                "remove_at_ms": command.expires_at_ms + self._history_ms,
            }
            await connection.execute(insert(commands).values(row))
            await self._trim(connection, owner_id, device_id)
        return command

    async def discard(self, command: Command) -> None:
        """Remove a command that no device has received."""
        async with self._database.begin() as connection:
            await connection.execute(delete(commands).where(*_is(command)))

    async def mark_delivered(self, sent: Sequence[Command]) -> None:
        """Record that commands of one device were sent to it."""
        values = {
            "status": "delivered",
            "delivered_at_ms": func.coalesce(commands.c.delivered_at_ms, database_now_ms()),
        }
        async with self._database.begin() as connection:
            for command in sent:
                pending = commands.c.status == "pending"
                await connection.execute(update(commands).where(*_is(command), pending).values(values))

    async def finish(self, acknowledged: Sequence[tuple[Command, Acknowledgement]]) -> None:
        """Record the device's acknowledgements; the first one of a command is kept."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            for command, acknowledgement in acknowledged:
                values = {
                    "status": acknowledgement.status,
                    "finished_at_ms": now,
                    "delivered_at_ms": func.coalesce(commands.c.delivered_at_ms, now),
                    "remove_at_ms": now + self._history_ms,
                    "result": acknowledgement.result,
                    "detail": acknowledgement.detail or None,
                }
                unfinished = commands.c.status.in_(UNFINISHED)
                await connection.execute(update(commands).where(*_is(command), unfinished).values(values))

    async def expire(self, command: Command, *, delivered: bool) -> None:
        """End a command that was waited for, without an acknowledgement."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            values: dict[str, Any] = {
                "expires_at_ms": case((commands.c.expires_at_ms < now, commands.c.expires_at_ms), else_=now)
            }
            if delivered:
                values |= {"status": "delivered", "delivered_at_ms": func.coalesce(commands.c.delivered_at_ms, now)}
            unfinished = commands.c.status.in_(UNFINISHED)
            await connection.execute(update(commands).where(*_is(command), unfinished).values(values))

    async def lease(self, owner_id: str, device_id: str, *, due_only: bool) -> list[Command]:
        """Lease the oldest kept commands of a device that nobody else delivers now, at most 16; oldest first.

        `due_only`: without those whose next delivery waits. NoSuchDeviceError when the device is gone.
        """
        async with self._database.begin() as connection:
            await lock_device(connection, owner_id, device_id)
            now = await server_time_ms(connection)
            query = select(commands).where(
                *_of(owner_id, device_id),
                commands.c.kept == 1,
                commands.c.status.in_(UNFINISHED),
                commands.c.expires_at_ms > now,
                commands.c.leased_until_ms <= now,
            )
            if due_only:
                query = query.where(commands.c.retry_at_ms <= now)
            rows = await connection.execute(query.order_by(commands.c.id).limit(LEASE_ROWS))
            found = [_command(row, now) for row in rows]
            for command in found:
                until = now + command.timeout_ms + LEASE_MARGIN_MS
                # Due when the lease ends, should this replica die with it.
                values = {"leased_until_ms": until, "retry_at_ms": until, "deliveries": command.deliveries + 1}
                await connection.execute(update(commands).where(*_is(command)).values(values))
        return found

    async def release(self, leased: Sequence[Command], *, online: bool) -> None:
        """End the lease of commands without an acknowledgement; they are delivered again, later."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            for command in leased:
                pause = min(RETRY_MS << min(command.deliveries, 16), MAX_RETRY_MS) if online else OFFLINE_RETRY_MS
                values = {"leased_until_ms": 0, "retry_at_ms": now + pause}
                unfinished = commands.c.status.in_(UNFINISHED)
                await connection.execute(update(commands).where(*_is(command), unfinished).values(values))

    async def due_devices(self, limit: int) -> list[tuple[str, str]]:
        """Return (owner, device) of kept commands whose delivery is due, of at most `limit` rows."""
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            query = (
                select(commands.c.owner_id, commands.c.device_id)
                .where(
                    commands.c.kept == 1,
                    commands.c.status.in_(UNFINISHED),
                    commands.c.retry_at_ms <= now,
                    commands.c.leased_until_ms <= now,
                    commands.c.expires_at_ms > now,
                )
                .order_by(commands.c.retry_at_ms)
                .limit(limit)
            )
            return list(dict.fromkeys((row[0], row[1]) for row in await connection.execute(query)))

    async def waiting_of(self, devices: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return which of these (owner, device) have kept commands that are not finished."""
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            by_owner: dict[str, list[str]] = {}
            for owner, device in devices:
                by_owner.setdefault(owner, []).append(device)
            # Not one `in_` of pairs: SQLite would look at every command.
            wanted = (
                (commands.c.owner_id == owner) & commands.c.device_id.in_(some)
                for owner, some in padded(list(by_owner.items()))
            )
            query = (
                select(commands.c.owner_id, commands.c.device_id)
                .distinct()
                .where(
                    or_(false(), *wanted),
                    commands.c.kept == 1,
                    commands.c.status.in_(UNFINISHED),
                    commands.c.expires_at_ms > now,
                )
            )
            return [(row[0], row[1]) for row in await connection.execute(query)]

    async def page(self, owner_id: str, device_id: str, *, before: str | None, limit: int) -> CommandPage:
        """Return at most `limit` commands of a device, the newest first, with ids below `before`."""
        query = select(commands).where(*_of(owner_id, device_id)).order_by(commands.c.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(commands.c.id < before)
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            found = [_command(row, now) for row in await connection.execute(query)]
        return CommandPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def remove_old(self) -> int:
        """Remove commands that finished or expired longer ago than they are kept; return how many, at most 1,000."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            query = select(commands.c.owner_id, commands.c.device_id, commands.c.id)
            rows = list(await connection.execute(query.where(commands.c.remove_at_ms <= now).limit(REMOVE_ROWS)))
            for owner_id, device_id, command_id in rows:
                await connection.execute(delete(commands).where(*_of(owner_id, device_id), commands.c.id == command_id))
        return len(rows)

    async def _require_room(self, connection: AsyncConnection, owner_id: str, device_id: str, now: int) -> None:
        pending = (
            select(func.count())
            .select_from(commands)
            .where(*_of(owner_id, device_id), commands.c.status.in_(UNFINISHED), commands.c.expires_at_ms > now)
        )
        if (await connection.scalar(pending) or 0) >= MAX_PENDING:
            raise TooManyCommandsError(MAX_PENDING)

    async def _trim(self, connection: AsyncConnection, owner_id: str, device_id: str) -> None:
        """Remove what is beyond the history of a device; never a command that may still be delivered."""
        oldest = (
            select(commands.c.id)
            .where(*_of(owner_id, device_id))
            .order_by(commands.c.id.desc())
            .offset(MAX_HISTORY)
            .limit(1)
        )
        if (last := await connection.scalar(oldest)) is not None:
            over = (commands.c.status.in_(("done", "failed"))) | (commands.c.expires_at_ms <= database_now_ms())
            await connection.execute(delete(commands).where(*_of(owner_id, device_id), commands.c.id <= last, over))


def _of(owner_id: str, device_id: str) -> tuple[ColumnElement[bool], ...]:
    return commands.c.owner_id == owner_id, commands.c.device_id == device_id


def _is(command: Command) -> tuple[ColumnElement[bool], ...]:
    return *_of(command.owner_id, command.device_id), commands.c.id == command.id


def _command(row: Row[*tuple[object, ...]], now: int) -> Command:
    values = row._asdict()
    for column in ("retry_at_ms", "leased_until_ms", "remove_at_ms"):
        del values[column]
    if values["status"] in UNFINISHED and values["expires_at_ms"] <= now:
        values["status"] = "expired"
    return Command(**values | {"kept": bool(values["kept"])})
