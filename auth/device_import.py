"""Registers many devices of one owner, in chunks that are each committed by itself.

In: rows from a request or a file. Out: one outcome for each row, in order. A repeat is harmless: a row whose device
exists already, with the same fields, gives that device.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import lock_user
from auth.devices import Device, Location, device_of, row_of
from auth.errors import NoSuchUserError
from database.connection import Database
from database.ids import new_id
from database.tables import devices, users
from runtime.http.problems import Problem
from runtime.times import now_ms

# Rows of a transaction: some 10 ms, so that other transactions have their turn in between.
CHUNK_ROWS = 250
# A device may be renamed to one of the names while they are inserted; then the chunk is repeated.
_ATTEMPTS = 3

RefusalCode = Literal["invalid", "taken", "too_many_devices", "unavailable"]


class DeviceRow(msgspec.Struct, frozen=True):
    """A device to register, from validated fields."""

    name: str
    sensor_type: str
    location: Location


class Refusal(msgspec.Struct, frozen=True):
    """Why a row was not registered."""

    code: RefusalCode
    detail: str


class Imported(msgspec.Struct, frozen=True):
    """The device of a row; `is_new`: this row registered it."""

    device: Device
    is_new: bool


Outcome = Imported | Refusal

_TAKEN = Refusal("taken", "You have a device with this name and other fields.")
_UNAVAILABLE = Refusal("unavailable", "The users' database does not answer; send this row again.")


class DeviceImport:
    """Registers devices in bulk."""

    def __init__(self, database: Database, max_per_owner: int) -> None:
        self._database = database
        self._too_many = Refusal("too_many_devices", f"One owner may have {max_per_owner} devices.")
        self._max_per_owner = max_per_owner

    async def chunks(self, owner_id: str, rows: Sequence[DeviceRow | Refusal]) -> AsyncIterator[list[Outcome]]:
        """Yield the outcomes of CHUNK_ROWS rows at a time, each committed; rows that are refused already stay so.

        Raises NoSuchUserError, and Problem 503 if the first chunk fails. If a later one does, its rows and all after it
        are `unavailable`: whether it was committed may be unknown, and a repeat finds out.
        """
        available = True
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            outcomes: list[Outcome] = [row if isinstance(row, Refusal) else _UNAVAILABLE for row in chunk]
            if available:
                try:
                    outcomes = await self._register(owner_id, chunk)
                except Problem:
                    if start == 0:
                        raise
                    available = False
            yield outcomes

    async def _register(self, owner_id: str, chunk: Sequence[DeviceRow | Refusal]) -> list[Outcome]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._database.begin() as connection:
                    return await self._register_in(connection, owner_id, chunk)
            except IntegrityError:
                if attempt == _ATTEMPTS:
                    raise Problem(503, "The names of your devices keep changing; try again.", code="busy") from None
        raise AssertionError("unreachable")

    async def _register_in(
        self, connection: AsyncConnection, owner_id: str, chunk: Sequence[DeviceRow | Refusal]
    ) -> list[Outcome]:
        # One registration per owner at a time, so that two concurrent ones cannot exceed the limit.
        await lock_user(connection, owner_id)
        if await connection.scalar(select(users.c.disabled_at_ms).where(users.c.id == owner_id)) is not None:
            raise NoSuchUserError
        known = await self._known(connection, owner_id, {row.name for row in chunk if isinstance(row, DeviceRow)})
        count = select(func.count()).select_from(devices).where(devices.c.owner_id == owner_id)
        room = self._max_per_owner - (await connection.scalar(count) or 0)
        new: list[Device] = []
        outcomes: list[Outcome] = []
        for row in chunk:
            outcome = self._outcome(owner_id, row, known, room - len(new))
            outcomes.append(outcome)
            if isinstance(outcome, Imported) and outcome.is_new:
                known[outcome.device.name] = outcome.device
                new.append(outcome.device)
        if new:
            await connection.execute(insert(devices), [row_of(device) for device in new])
        return outcomes

    async def _known(self, connection: AsyncConnection, owner_id: str, names: set[str]) -> dict[str, Device]:
        query = select(devices).where(devices.c.owner_id == owner_id, devices.c.name.in_(names))
        found = [device_of(row) for row in await connection.execute(query)] if names else []
        return {device.name: device for device in found}

    def _outcome(self, owner_id: str, row: DeviceRow | Refusal, known: dict[str, Device], room: int) -> Outcome:
        if isinstance(row, Refusal):
            return row
        device = known.get(row.name)
        if device is not None:
            return Imported(device, is_new=False) if _is_same(device, row) else _TAKEN
        if room <= 0:
            return self._too_many
        device = Device(new_id(), owner_id, row.name, row.sensor_type, row.location, 0, now_ms())
        return Imported(device, is_new=True)


def _is_same(device: Device, row: DeviceRow) -> bool:
    # As JSON: a position is of another type in a request than in the database.
    locations = msgspec.json.encode(device.location), msgspec.json.encode(row.location)
    return device.sensor_type == row.sensor_type and locations[0] == locations[1]
