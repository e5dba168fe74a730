"""Devices and their registration. Every query names the owner, so no owner can reach another's device."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import lock_user
from auth.errors import NameTakenError, NoSuchDeviceError, TooManyDevicesError
from auth.tokens.revocations import RevocationLog
from database.connection import Database
from database.ids import is_id, new_id
from database.tables import devices, users
from readings.place import Place
from runtime.times import now_ms

Location = str | Place


class Device(msgspec.Struct, frozen=True):
    """A sensor, or a gateway of several sensors. `gen` is a claim of its tokens; raising it revokes them all."""

    id: str
    owner_id: str
    name: str
    sensor_type: str
    location: Location
    gen: int
    created_at_ms: int


class DevicePage(msgspec.Struct, frozen=True):
    """A page of a list. `next_cursor`, the last id on the page, requests the next one; None: this is the last page."""

    items: list[Device]
    next_cursor: str | None


class DeviceRegistry:
    """The registered devices in the database."""

    def __init__(self, database: Database, revocations: RevocationLog, max_per_owner: int) -> None:
        self._database = database
        self._revocations = revocations
        self._max_per_owner = max_per_owner

    async def register(self, owner_id: str, name: str | None, sensor_type: str, location: Location) -> Device:
        """Register a device from validated fields; without a name, its id becomes its name.

        Raises NoSuchUserError, TooManyDevicesError or NameTakenError.
        """
        device_id = new_id()
        device = Device(device_id, owner_id, name or device_id, sensor_type, location, 0, now_ms())
        try:
            async with self._database.begin() as connection:
                # One registration per owner at a time, so that two concurrent ones cannot exceed the limit.
                await lock_user(connection, owner_id)
                count = select(func.count()).select_from(devices).where(devices.c.owner_id == owner_id)
                if (await connection.scalar(count) or 0) >= self._max_per_owner:
                    raise TooManyDevicesError(self._max_per_owner)
                await connection.execute(insert(devices).values(row_of(device)))
        except IntegrityError as error:
            raise NameTakenError from error
        return device

    async def find(self, owner_id: str, device_id: str) -> Device:
        """Return one device of this owner; raise NoSuchDeviceError."""
        return await self._find(_matching(owner_id, device_id), device_id)

    async def find_to_issue(self, owner_id: str, device_id: str) -> Device:
        """Return a device that may get a token now; raise NoSuchDeviceError, also if its owner is disabled.

        One query reads device and owner: disabling raises `gen`, and a token issued with the raised value would survive
        it.
        """
        enabled = exists().where(users.c.id == owner_id, users.c.disabled_at_ms.is_(None))
        return await self._find((*_matching(owner_id, device_id), enabled), device_id)

    async def change(
        self, owner_id: str, device_id: str, *, name: str | None, sensor_type: str | None, location: Location | None
    ) -> Device:
        """Change the given fields and return the device; raise NoSuchDeviceError or NameTakenError.

        A token carries the registration as of its issue, so a change takes effect with the device's next token.
        """
        given = {"name": name, "sensor_type": sensor_type}
        values = {column: value for column, value in given.items() if value is not None}
        if location is not None:
            values["location"] = _location_text(location)
        try:
            async with self._database.begin() as connection:
                await lock_device(connection, owner_id, device_id)
                await connection.execute(update(devices).where(*_matching(owner_id, device_id)).values(values))
        except IntegrityError as error:
            raise NameTakenError from error
        return await self.find(owner_id, device_id)

    async def delete(self, owner_id: str, device_id: str) -> None:
        """Remove a device and revoke its tokens; raise NoSuchDeviceError. The owner keeps its readings."""
        async with self._database.begin() as connection:
            await lock_device(connection, owner_id, device_id)
            await connection.execute(delete(devices).where(*_matching(owner_id, device_id)))
            await self._revocations.revoke_device_tokens(connection, device_id, None)

    async def revoke_tokens(self, owner_id: str, device_id: str) -> None:
        """Revoke every token issued to a device so far; raise NoSuchDeviceError."""
        async with self._database.begin() as connection:
            gen = await lock_device(connection, owner_id, device_id) + 1
            await connection.execute(update(devices).where(*_matching(owner_id, device_id)).values(gen=gen))
            await self._revocations.revoke_device_tokens(connection, device_id, gen)

    async def page(
        self, owner_id: str, *, name: str | None, after: str | None, limit: int, within: Sequence[str] | None = None
    ) -> DevicePage:
        """Return at most `limit` devices of this owner, oldest first, with ids above `after`; by `name` if given.

        `within`: only of these devices.
        """
        query = select(devices).where(devices.c.owner_id == owner_id).order_by(devices.c.id).limit(limit + 1)
        if name is not None:
            query = query.where(devices.c.name == name)
        if within is not None:
            query = query.where(devices.c.id.in_(within))
        if after is not None:
            query = query.where(devices.c.id > after)
        async with self._database.connect() as connection:
            found = [device_of(row) for row in await connection.execute(query)]
        items = found[:limit]
        return DevicePage(items, items[-1].id if len(found) > limit else None)

    async def _find(self, conditions: tuple[ColumnElement[bool], ...], device_id: str) -> Device:
        if not is_id(device_id):
            raise NoSuchDeviceError
        async with self._database.connect() as connection:
            row = (await connection.execute(select(devices).where(*conditions))).one_or_none()
        if row is None:
            raise NoSuchDeviceError
        return device_of(row)


async def lock_device(connection: AsyncConnection, owner_id: str, device_id: str) -> int:
    """Lock a device's row, so that one transaction at a time changes it; return its `gen`. NoSuchDeviceError."""
    if not is_id(device_id):
        raise NoSuchDeviceError
    gen = await connection.scalar(select(devices.c.gen).where(*_matching(owner_id, device_id)).with_for_update())
    if gen is None:
        raise NoSuchDeviceError
    return gen


def _matching(owner_id: str, device_id: str) -> tuple[ColumnElement[bool], ...]:
    return devices.c.owner_id == owner_id, devices.c.id == device_id


def _location_text(location: Location) -> str:
    return msgspec.json.encode(location).decode()


def row_of(device: Device) -> dict[str, object]:
    """Return a device as a row of its table."""
    return msgspec.structs.asdict(device) | {"location": _location_text(device.location)}


def device_of(row: Row[*tuple[object, ...]]) -> Device:
    """Return the device of a row that has the columns of its table, and maybe others."""
    values = {name: row._mapping[name] for name in Device.__struct_fields__}
    return Device(**values | {"location": msgspec.json.decode(values["location"], type=Location)})
