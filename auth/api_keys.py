"""API keys: long-lived tokens of an owner, with the scopes and devices that the owner chose.

The token is a JWT and shown once; only its row is kept. A key, and whatever it issued, ends when its row is deleted: in
the same transaction its id is revoked, for readers and gateways.
"""

import msgspec
from sqlalchemy import func, insert, select

from access.claims import Verified
from auth.accounts import lock_user
from auth.errors import NoSuchApiKeyError, NotYourDevicesError, TooManyApiKeysError, TooManyEndedApiKeysError
from auth.tokens.api_key_rows import MAX_ENDED, delete_api_keys, next_place_ms, valid_key
from auth.tokens.issuer import IssuedToken, IssuingKey, NewApiKey, TokenIssuer
from auth.tokens.revocations import RevocationLog
from auth.tokens.status import lock_session
from database.connection import Database, database_now_ms
from database.ids import is_id, new_id
from database.tables import api_keys, devices

MAX_PER_OWNER = 100


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as its owner sees it later: without the token. Times are in milliseconds since 1970."""

    id: str
    name: str
    scope: list[str]
    devices: list[str] | None
    created_at_ms: int
    expires_at_ms: int


class ApiKeys:
    """The API keys in the database."""

    def __init__(self, database: Database, issuer: TokenIssuer, revocations: RevocationLog) -> None:
        self._database = database
        self._issuer = issuer
        self._revocations = revocations

    async def create(self, claims: Verified, new: NewApiKey) -> IssuedToken:
        """Create a key of the user whose session has these claims.

        Raises NoSuchUserError, EndedSessionError, NotYourDevicesError, TooManyApiKeysError or TooManyEndedApiKeysError.
        Expired keys are listed until their place is needed.
        """
        owner_id, key_id = claims.sub, new_id()
        of_owner = api_keys.c.owner_id == owner_id
        async with self._database.begin() as connection:
            # One at a time, so that two concurrent ones cannot exceed the limit.
            await lock_session(connection, claims)
            if new.devices is not None:
                ids = [one for one in new.devices if is_id(one)]
                query = select(devices.c.id).where(devices.c.owner_id == owner_id, devices.c.id.in_(ids))
                if unknown := set(new.devices) - set(await connection.scalars(query)):
                    raise NotYourDevicesError(unknown)
            count = select(func.count()).select_from(api_keys).where(of_owner)
            if (await connection.scalar(count) or 0) >= MAX_PER_OWNER:
                await delete_api_keys(connection, of_owner, api_keys.c.expires_at_ms <= database_now_ms())
                if (await connection.scalar(count) or 0) >= MAX_PER_OWNER:
                    raise TooManyApiKeysError(MAX_PER_OWNER)
            if (until_ms := await next_place_ms(connection, owner_id)) is not None:
                raise TooManyEndedApiKeysError(MAX_ENDED, until_ms)
            issued = self._issuer.for_api_key(key_id, new, owner_id)
            row = {
                "owner_id": owner_id,
                "id": key_id,
                "name": new.name,
                "scope": new.scope,
                "devices": None if new.devices is None else msgspec.json.encode(new.devices).decode(),
                "kid": issued.kid,
                "created_at_ms": new.created_at * 1000,
                "expires_at_ms": new.expires_at * 1000,
            }
            await connection.execute(insert(api_keys).values(row))
        return issued

    async def all_of(self, owner_id: str) -> list[ApiKey]:
        """Return the keys of an owner, oldest first."""
        columns = api_keys.c
        shown = (columns.id, columns.name, columns.scope, columns.devices, columns.created_at_ms, columns.expires_at_ms)
        query = select(*shown).where(columns.owner_id == owner_id).order_by(columns.id)
        async with self._database.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            ApiKey(
                row.id,
                row.name,
                row.scope.split(" "),
                None if row.devices is None else msgspec.json.decode(row.devices, type=list[str]),
                row.created_at_ms,
                row.expires_at_ms,
            )
            for row in rows
        ]

    async def delete(self, owner_id: str, key_id: str) -> None:
        """Delete a key and revoke it and the tokens that it issued; raise NoSuchUserError or NoSuchApiKeyError."""
        if not is_id(key_id):
            raise NoSuchApiKeyError
        this = api_keys.c.owner_id == owner_id, api_keys.c.id == key_id
        async with self._database.begin() as connection:
            await lock_user(connection, owner_id)
            if await connection.scalar(select(api_keys.c.id).where(*this)) is None:
                raise NoSuchApiKeyError
            await self._revocations.revoke_api_keys(connection, await delete_api_keys(connection, *this))

    async def issuing(self, owner_id: str, key_id: str) -> IssuingKey:
        """Return a key that a device's token is issued or renewed with; raise NoSuchApiKeyError if it has ended."""
        query = select(api_keys.c.expires_at_ms).where(*valid_key(owner_id, key_id))
        async with self._database.connect() as connection:
            expires_at_ms = await connection.scalar(query)
        if expires_at_ms is None:
            raise NoSuchApiKeyError
        return IssuingKey(key_id, expires_at_ms // 1000)
