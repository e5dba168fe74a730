"""Devices: what an owner has registered. Every question names the owner, so nobody meets another's device."""

import msgspec
from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import lock_user
from auth.database import Database
from auth.errors import NameTakenError, NoSuchDeviceError, TooManyDevicesError
from auth.ids import is_id, new_id
from auth.tables import devices, users
from auth.tokens.revocations import Revocations
from readings.place import Place
from runtime.times import now_ms

Location = str | Place


class Device(msgspec.Struct, frozen=True):
    """A sensor or a gateway of sensors. `gen` goes into its tokens; raising it ends them all."""

    id: str
    owner_id: str
    name: str
    sensor_type: str
    location: Location
    gen: int
    created_at_ms: int


class Page(msgspec.Struct, frozen=True):
    """A part of a list. `next_cursor` (the last id of the part) asks for what follows; None: nothing does."""

    items: list[Device]
    next_cursor: str | None


class Devices:
    """The registered devices in the database."""

    def __init__(self, database: Database, revocations: Revocations, max_per_owner: int) -> None:
        self._database = database
        self._revocations = revocations
        self._max_per_owner = max_per_owner

    async def register(self, owner_id: str, name: str | None, sensor_type: str, location: Location) -> Device:
        """Add a device of fields that were checked; without a name it is named by its id.

        Raises NoSuchUserError, TooManyDevicesError or NameTakenError.
        """
        device_id = new_id()
        device = Device(device_id, owner_id, name or device_id, sensor_type, location, 0, now_ms())
        row = msgspec.structs.asdict(device) | {"location": _location_text(location)}
        try:
            async with self._database.writing() as connection:
                # One registration of an owner at a time, so that two cannot pass the limit together.
                await lock_user(connection, owner_id)
                count = select(func.count()).select_from(devices).where(devices.c.owner_id == owner_id)
                if (await connection.scalar(count) or 0) >= self._max_per_owner:
                    raise TooManyDevicesError(self._max_per_owner)
                await connection.execute(insert(devices).values(row))
        except IntegrityError as error:
            raise NameTakenError from error
        return device

    async def find(self, owner_id: str, device_id: str) -> Device:
        """Return one device of this owner; NoSuchDeviceError."""
        return await self._find(_is(owner_id, device_id), device_id)

    async def find_to_issue(self, owner_id: str, device_id: str) -> Device:
        """Return a device that may have a token now; NoSuchDeviceError, also when its owner is disabled.

        Device and owner are read at one moment: disabling raises `gen`, and a token of the raised one would outlive it.
        """
        enabled = exists().where(users.c.id == owner_id, users.c.disabled_at_ms.is_(None))
        return await self._find((*_is(owner_id, device_id), enabled), device_id)

    async def change(
        self, owner_id: str, device_id: str, *, name: str | None, sensor_type: str | None, location: Location | None
    ) -> Device:
        """Change what is given and return the device; NoSuchDeviceError or NameTakenError.

        Tokens say what was registered when they were issued: the device learns of a change with its next token.
        """
        given = {"name": name, "sensor_type": sensor_type}
        values = {column: value for column, value in given.items() if value is not None}
        if location is not None:
            values["location"] = _location_text(location)
        try:
            async with self._database.writing() as connection:
                await _lock_device(connection, owner_id, device_id)
                await connection.execute(update(devices).where(*_is(owner_id, device_id)).values(values))
        except IntegrityError as error:
            raise NameTakenError from error
        return await self.find(owner_id, device_id)

    async def delete(self, owner_id: str, device_id: str) -> None:
        """Remove a device and end its tokens; NoSuchDeviceError. Its readings stay its owner's."""
        async with self._database.writing() as connection:
            await _lock_device(connection, owner_id, device_id)
            await connection.execute(delete(devices).where(*_is(owner_id, device_id)))
            await self._revocations.end_device_tokens(connection, device_id, None)

    async def end_tokens(self, owner_id: str, device_id: str) -> None:
        """End every token of a device that was issued until now; NoSuchDeviceError."""
        async with self._database.writing() as connection:
            gen = await _lock_device(connection, owner_id, device_id) + 1
            await connection.execute(update(devices).where(*_is(owner_id, device_id)).values(gen=gen))
            await self._revocations.end_device_tokens(connection, device_id, gen)

    async def page(self, owner_id: str, *, name: str | None, after: str | None, limit: int) -> Page:
        """Return at most `limit` devices of this owner, the oldest first, those of that name only if one is given."""
        query = select(devices).where(devices.c.owner_id == owner_id).order_by(devices.c.id).limit(limit + 1)
        if name is not None:
            query = query.where(devices.c.name == name)
        if after is not None:
            query = query.where(devices.c.id > after)
        async with self._database.reading() as connection:
            found = [_device(row) for row in await connection.execute(query)]
        items = found[:limit]
        return Page(items, items[-1].id if len(found) > limit else None)

    async def _find(self, conditions: tuple[ColumnElement[bool], ...], device_id: str) -> Device:
        if not is_id(device_id):
            raise NoSuchDeviceError
        async with self._database.reading() as connection:
            row = (await connection.execute(select(devices).where(*conditions))).one_or_none()
        if row is None:
            raise NoSuchDeviceError
        return _device(row)


async def _lock_device(connection: AsyncConnection, owner_id: str, device_id: str) -> int:
    """Let one transaction at a time change a device, and return its `gen`; NoSuchDeviceError."""
    if not is_id(device_id):
        raise NoSuchDeviceError
    gen = await connection.scalar(select(devices.c.gen).where(*_is(owner_id, device_id)).with_for_update())
    if gen is None:
        raise NoSuchDeviceError
    return gen


def _is(owner_id: str, device_id: str) -> tuple[ColumnElement[bool], ...]:
    return devices.c.owner_id == owner_id, devices.c.id == device_id


def _location_text(location: Location) -> str:
    return msgspec.json.encode(location).decode()


def _device(row: Row[*tuple[object, ...]]) -> Device:
    values = row._asdict()
    location = msgspec.json.decode(values.pop("location"), type=Location)
    return Device(**values, location=location)
