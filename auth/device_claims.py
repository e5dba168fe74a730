"""Devices that claim themselves with a provisioning key: each hardware id once for its owner, and held by a secret.

The secret is the device's own random text. Whoever has it is the device: a repeat gives the same device, so that a
lost answer costs nothing. Another secret is refused until the owner releases the device. Unique keys guard what the
lock on the owner's row already orders: neither a repeat nor a race makes a second device.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import lock_user
from auth.database import Database
from auth.devices import Device, device_of, lock_device, row_of
from auth.errors import (
    ClaimedError,
    ClaimRefusedError,
    NameTakenError,
    NoSuchUserError,
    NotClaimedError,
    TooManyClaimsError,
    TooManyDevicesError,
)
from auth.ids import new_id
from auth.provisioning import unexpired
from auth.tables import device_claims, devices, provisioning_keys, users
from auth.tokens.issuer import secret_hash
from auth.tokens.revocations import RevocationLog
from runtime.http.problems import Problem
from runtime.times import now_ms

RETRY_AFTER_S = 5


class ClaimKey(msgspec.Struct, frozen=True):
    """A provisioning key that a claim names."""

    owner_id: str
    id: str


class Claim(msgspec.Struct, frozen=True):
    """What a device claims with: its own id, what it measures, and its secret."""

    hardware_id: str
    sensor_type: str
    secret: str


class Claimed(msgspec.Struct, frozen=True):
    """A claimed device; `is_new`: it was registered by this claim."""

    device: Device
    is_new: bool


class DeviceClaims:
    """The claimed devices in the database."""

    def __init__(
        self, database: Database, revocations: RevocationLog, *, max_per_owner: int, queue_timeout_s: float
    ) -> None:
        """`queue_timeout_s`: how long a claim waits for others of its owner; each takes some 5 ms."""
        self._database = database
        self._queue_timeout_s = queue_timeout_s
        self._revocations = revocations
        self._max_per_owner = max_per_owner
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find_key(self, text: str) -> ClaimKey:
        """Return the provisioning key with this text; raise ClaimRefusedError. It may end before it is used."""
        columns = provisioning_keys.c
        query = select(columns.owner_id, columns.id).where(columns.key_hash == secret_hash(text))
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise ClaimRefusedError("unknown_key")
        return ClaimKey(row.owner_id, row.id)

    async def claim(self, key: ClaimKey, claim: Claim) -> Claimed:
        """Register the device of a hardware id, or return it if the secret is its own.

        A released device accepts the secret. Raises ClaimRefusedError if the key has ended or its owner is disabled,
        ClaimedError, TooManyClaimsError, TooManyDevicesError, or NameTakenError: a device that was not claimed has this
        name, and a provisioning key is no reason to hand it over.
        """
        try:
            async with self._turn_of(key.owner_id), self._database.begin() as connection:
                max_devices = await self._lock_key(connection, key)
                return await self._claim(connection, key, claim, max_devices)
        except IntegrityError as error:  # a device was renamed to this name meanwhile
            raise NameTakenError from error

    @asynccontextmanager
    async def _turn_of(self, owner_id: str) -> AsyncIterator[None]:
        """Let one claim of an owner at a time have a connection: the others would hold theirs waiting for its lock."""
        turn = self._turns.setdefault(owner_id, asyncio.Lock())
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn.acquire()
        except TimeoutError as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise Problem(503, "Too many devices claim at once; try again.", code="busy", headers=headers) from error
        try:
            yield
        finally:
            turn.release()

    async def release(self, owner_id: str, device_id: str) -> None:
        """Let the next secret claim a device, and revoke its tokens; raise NoSuchDeviceError or NotClaimedError."""
        this = device_claims.c.owner_id == owner_id, device_claims.c.device_id == device_id
        held = device_claims.c.secret_hash.is_not(None)
        async with self._database.begin() as connection:
            gen = await lock_device(connection, owner_id, device_id) + 1
            released = await connection.execute(update(device_claims).where(*this, held).values(secret_hash=None))
            if released.rowcount == 0:
                raise NotClaimedError
            this_device = devices.c.owner_id == owner_id, devices.c.id == device_id
            await connection.execute(update(devices).where(*this_device).values(gen=gen))
            await self._revocations.revoke_device_tokens(connection, device_id, gen)

    async def _lock_key(self, connection: AsyncConnection, key: ClaimKey) -> int:
        """Let no other transaction of the owner claim, register or end a key; return the key's `max_devices`."""
        try:
            await lock_user(connection, key.owner_id)
        except NoSuchUserError as error:
            raise ClaimRefusedError("unknown_key") from error
        columns = provisioning_keys.c
        query = (
            select(columns.max_devices, unexpired().label("is_valid"), users.c.disabled_at_ms)
            .join(users, users.c.id == columns.owner_id)
            .where(columns.owner_id == key.owner_id, columns.id == key.id)
        )
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise ClaimRefusedError("unknown_key")
        if not row.is_valid:
            raise ClaimRefusedError("expired_key")
        if row.disabled_at_ms is not None:
            raise ClaimRefusedError("disabled")
        return int(row.max_devices)

    async def _claim(self, connection: AsyncConnection, key: ClaimKey, claim: Claim, max_devices: int) -> Claimed:
        this = device_claims.c.owner_id == key.owner_id, device_claims.c.hardware_id == claim.hardware_id
        same = and_(devices.c.owner_id == device_claims.c.owner_id, devices.c.id == device_claims.c.device_id)
        # One query: a device may be removed at any time, and its claim with it.
        query = select(devices, device_claims.c.secret_hash, device_claims.c.provisioning_key_id)
        found = (await connection.execute(query.join(device_claims, same).where(*this))).one_or_none()
        given = secret_hash(claim.secret)
        if found is None:
            return Claimed(await self._register(connection, key, claim, max_devices), is_new=True)
        if found.secret_hash is None:
            if found.provisioning_key_id != key.id:
                await self._require_place(connection, key, max_devices)
            held = {"secret_hash": given, "provisioning_key_id": key.id, "claimed_at_ms": now_ms()}
            await connection.execute(update(device_claims).where(*this).values(held))
        elif not hmac.compare_digest(found.secret_hash, given):
            raise ClaimedError
        return Claimed(device_of(found), is_new=False)

    async def _register(self, connection: AsyncConnection, key: ClaimKey, claim: Claim, max_devices: int) -> Device:
        await self._require_place(connection, key, max_devices)
        count = select(func.count()).select_from(devices).where(devices.c.owner_id == key.owner_id)
        if (await connection.scalar(count) or 0) >= self._max_per_owner:
            raise TooManyDevicesError(self._max_per_owner)
        device = Device(new_id(), key.owner_id, claim.hardware_id, claim.sensor_type, "", 0, now_ms())
        await connection.execute(insert(devices).values(row_of(device)))
        row = {
            "owner_id": key.owner_id,
            "hardware_id": claim.hardware_id,
            "device_id": device.id,
            "provisioning_key_id": key.id,
            "secret_hash": secret_hash(claim.secret),
            "claimed_at_ms": device.created_at_ms,
        }
        await connection.execute(insert(device_claims).values(row))
        return device

    async def _require_place(self, connection: AsyncConnection, key: ClaimKey, max_devices: int) -> None:
        of_key = device_claims.c.owner_id == key.owner_id, device_claims.c.provisioning_key_id == key.id
        count = select(func.count()).select_from(device_claims).where(*of_key)
        if (await connection.scalar(count) or 0) >= max_devices:
            raise TooManyClaimsError(max_devices)
