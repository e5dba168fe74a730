"""Provisioning keys: with one, devices that nobody has registered claim themselves for its owner, up to a number.

A key is opaque, shown once and stored hashed. It ends when it is deleted or expires; devices claimed with it stay.
"""

import msgspec
from sqlalchemy import ColumnElement, Select, delete, func, insert, or_, select

from access.claims import Verified
from auth.accounts import lock_user
from auth.errors import NoSuchProvisioningKeyError, TooManyProvisioningKeysError
from auth.tokens.issuer import new_secret, secret_hash
from auth.tokens.status import lock_session
from database.connection import Database, database_now_ms
from database.ids import is_id, new_id
from database.tables import device_claims, provisioning_keys
from runtime.times import now_ms

MAX_PER_OWNER = 100
# Marks a key as one, for people and for programs that search code for secrets.
PREFIX = "tgp_"


class ProvisioningKey(msgspec.Struct, frozen=True):
    """A provisioning key as its owner sees it later: without the key itself. Times are in milliseconds since 1970.

    `claimed`: how many devices there are that were claimed with it.
    """

    id: str
    name: str
    max_devices: int
    claimed: int
    created_at_ms: int
    expires_at_ms: int | None


class ProvisioningKeys:
    """The provisioning keys in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, claims: Verified, name: str, max_devices: int, expires_at_ms: int | None
    ) -> tuple[ProvisioningKey, str]:
        """Create a key of the user whose session has these claims, and return it with its secret text.

        Raises NoSuchUserError, EndedSessionError or TooManyProvisioningKeysError. Expired keys are listed until their
        place is needed.
        """
        owner_id = claims.sub
        key, text = ProvisioningKey(new_id(), name, max_devices, 0, now_ms(), expires_at_ms), PREFIX + new_secret()
        of_owner = provisioning_keys.c.owner_id == owner_id
        row = {
            "owner_id": owner_id,
            "id": key.id,
            "name": name,
            "key_hash": secret_hash(text),
            "max_devices": max_devices,
            "created_at_ms": key.created_at_ms,
            "expires_at_ms": expires_at_ms,
        }
        async with self._database.begin() as connection:
            # One at a time, so that two concurrent ones cannot exceed the limit.
            await lock_session(connection, claims)
            count = select(func.count()).select_from(provisioning_keys).where(of_owner)
            if (await connection.scalar(count) or 0) >= MAX_PER_OWNER:
                await connection.execute(delete(provisioning_keys).where(of_owner, ~unexpired()))
                if (await connection.scalar(count) or 0) >= MAX_PER_OWNER:
                    raise TooManyProvisioningKeysError(MAX_PER_OWNER)
            await connection.execute(insert(provisioning_keys).values(row))
        return key, text

    async def all_of(self, owner_id: str) -> list[ProvisioningKey]:
        """Return the keys of an owner, oldest first."""
        columns = provisioning_keys.c
        claimed = _devices_of_key().scalar_subquery()
        query = select(
            columns.id,
            columns.name,
            columns.max_devices,
            claimed.label("claimed"),
            columns.created_at_ms,
            columns.expires_at_ms,
        )
        async with self._database.connect() as connection:
            rows = await connection.execute(query.where(columns.owner_id == owner_id).order_by(columns.id))
            return [ProvisioningKey(*row) for row in rows]

    async def delete(self, owner_id: str, key_id: str) -> None:
        """Delete a key: nothing claims with it from now on. Raises NoSuchUserError or NoSuchProvisioningKeyError."""
        if not is_id(key_id):
            raise NoSuchProvisioningKeyError
        this = provisioning_keys.c.owner_id == owner_id, provisioning_keys.c.id == key_id
        async with self._database.begin() as connection:
            await lock_user(connection, owner_id)  # not while a device claims with it
            if (await connection.execute(delete(provisioning_keys).where(*this))).rowcount == 0:
                raise NoSuchProvisioningKeyError


def unexpired() -> ColumnElement[bool]:
    """Return the condition under which a provisioning key has not expired, by the database's clock."""
    expires_at_ms = provisioning_keys.c.expires_at_ms
    return or_(expires_at_ms.is_(None), expires_at_ms > database_now_ms())


def _devices_of_key() -> Select[int]:
    same = (
        device_claims.c.owner_id == provisioning_keys.c.owner_id,
        device_claims.c.provisioning_key_id == provisioning_keys.c.id,
    )
    return select(func.count()).select_from(device_claims).where(*same).correlate(provisioning_keys)
