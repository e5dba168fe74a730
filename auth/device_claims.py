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
from auth.provisioning import unexpired
from auth.tokens.issuer import secret_hash
from auth.tokens.revocations import RevocationLog
from database.connection import Database
from database.ids import new_id
from database.tables import device_claims, devices, provisioning_keys, users
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
        async with self._database.connect() as connection:  # a repeat needs no lock
            found = await _find(connection, key, claim)
        if found.device is not None and found.secret_hash is not None:
            return _held(found.device, found.secret_hash, claim)
        try:
            async with self._turn_of(key.owner_id), self._database.begin() as connection:
                return await self._claim(connection, key, claim)
        except NoSuchUserError as error:
            raise ClaimRefusedError("unknown_key") from error
        except IntegrityError as error:  # a device that was not claimed has this name
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

    async def _claim(self, connection: AsyncConnection, key: ClaimKey, claim: Claim) -> Claimed:
        # No other transaction of the owner claims, registers or ends a key meanwhile.
        await lock_user(connection, key.owner_id)
        found = await _find(connection, key, claim)
        if found.device is None:
            await self._require_place(connection, key, found.max_devices, new_device=True)
            return Claimed(await _register(connection, key, claim), is_new=True)
        if found.secret_hash is not None:
            return _held(found.device, found.secret_hash, claim)
        if found.claimed_with != key.id:
            await self._require_place(connection, key, found.max_devices, new_device=False)
        this = device_claims.c.owner_id == key.owner_id, device_claims.c.hardware_id == claim.hardware_id
        held = {"secret_hash": secret_hash(claim.secret), "provisioning_key_id": key.id, "claimed_at_ms": now_ms()}
        await connection.execute(update(device_claims).where(*this).values(held))
        return Claimed(found.device, is_new=False)

    async def _require_place(
        self, connection: AsyncConnection, key: ClaimKey, max_devices: int, *, new_device: bool
    ) -> None:
        of_key = device_claims.c.owner_id == key.owner_id, device_claims.c.provisioning_key_id == key.id
        claimed = select(func.count()).select_from(device_claims).where(*of_key).scalar_subquery()
        registered = select(func.count()).select_from(devices).where(devices.c.owner_id == key.owner_id)
        counts = (await connection.execute(select(claimed, registered.scalar_subquery()))).one()
        if counts[0] >= max_devices:
            raise TooManyClaimsError(max_devices)
        if new_device and counts[1] >= self._max_per_owner:
            raise TooManyDevicesError(self._max_per_owner)


class _Found(msgspec.Struct, frozen=True):
    """What a claim finds: its key's limit, and the device of its hardware id, if there is one.

    `secret_hash` is None for a released device; `claimed_with` is the id of the key that the device counts for.
    """

    max_devices: int
    device: Device | None
    secret_hash: str | None
    claimed_with: str | None


async def _find(connection: AsyncConnection, key: ClaimKey, claim: Claim) -> _Found:
    """Look everything up in one query, as a device may be removed at any time; raise ClaimRefusedError."""
    keys, claims = provisioning_keys.c, device_claims.c
    query = (
        select(
            keys.max_devices,
            unexpired().label("is_valid"),
            users.c.disabled_at_ms,
            claims.secret_hash,
            claims.provisioning_key_id,
            devices,
        )
        .select_from(provisioning_keys)
        .join(users, users.c.id == keys.owner_id)
        .outerjoin(device_claims, and_(claims.owner_id == keys.owner_id, claims.hardware_id == claim.hardware_id))
        .outerjoin(devices, and_(devices.c.owner_id == claims.owner_id, devices.c.id == claims.device_id))
        .where(keys.owner_id == key.owner_id, keys.id == key.id)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise ClaimRefusedError("unknown_key")
    if not row.is_valid:
        raise ClaimRefusedError("expired_key")
    if row.disabled_at_ms is not None:
        raise ClaimRefusedError("disabled")
    device = None if row.id is None else device_of(row)
    return _Found(row.max_devices, device, row.secret_hash, row.provisioning_key_id)


def _held(device: Device, held_by: str, claim: Claim) -> Claimed:
    """Return the device for its own secret; raise ClaimedError for another."""
    if not hmac.compare_digest(held_by, secret_hash(claim.secret)):
        raise ClaimedError
    return Claimed(device, is_new=False)


async def _register(connection: AsyncConnection, key: ClaimKey, claim: Claim) -> Device:
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
