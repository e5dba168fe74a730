"""Whether a verified, unexpired token is still active, according to the database.

`auth` checks it on each call, so that a revocation takes effect here at once; other services poll `/revocations`.
"""

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from access.claims import Verified
from access.tokens import TokenError
from auth.accounts import lock_user
from auth.errors import EndedSessionError
from auth.tokens.api_key_rows import valid_key
from database.connection import Database, database_now_ms
from database.tables import api_keys, devices, refresh_tokens, signing_keys, users


class TokenStatus:
    """Looks up the account, device, session, API key and signing key behind verified claims."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require_active(self, claims: Verified) -> None:
        """Raise TokenError `revoked` if the token's account, device, session or keys are gone or have revoked it."""
        if claims.device is not None:
            active = await self._device(claims, claims.device)
        elif claims.key is not None:
            active = await self._api_key(claims, claims.key)
        else:
            async with self._database.connect() as connection:
                active = await _session_is_active(connection, claims)
        if not active:
            raise TokenError("revoked", "the token was revoked")

    async def _api_key(self, claims: Verified, key_id: str) -> bool:
        query = (
            select(users.c.id)
            .join(api_keys, api_keys.c.owner_id == users.c.id)
            .where(*valid_key(claims.owner, key_id), users.c.disabled_at_ms.is_(None), ~_retired(claims.kid))
        )
        async with self._database.connect() as connection:
            return await connection.scalar(query) is not None

    async def _device(self, claims: Verified, device_id: str) -> bool:
        query = (
            select(devices.c.id)
            .join(users, users.c.id == devices.c.owner_id)
            .where(
                devices.c.owner_id == claims.owner,
                devices.c.id == device_id,
                devices.c.gen == claims.gen,
                users.c.disabled_at_ms.is_(None),
                ~_retired(claims.kid),
            )
        )
        if claims.issuing_key is not None:
            query = query.where(exists().where(*valid_key(claims.owner, claims.issuing_key)))
        async with self._database.connect() as connection:
            return await connection.scalar(query) is not None


async def lock_session(connection: AsyncConnection, claims: Verified) -> None:
    """Lock the row of the user whose session makes a key, which outlives the session.

    Raises NoSuchUserError or EndedSessionError: it may have ended since the request was authorized.
    """
    await lock_user(connection, claims.sub)
    if not await _session_is_active(connection, claims):
        raise EndedSessionError


async def _session_is_active(connection: AsyncConnection, claims: Verified) -> bool:
    # A session lasts as long as its rows: a log-out, a reused refresh token and a new password delete them.
    session = exists().where(refresh_tokens.c.user_id == users.c.id, refresh_tokens.c.sid == claims.sid)
    query = select(users.c.id).where(
        users.c.id == claims.sub,
        users.c.gen == claims.gen,
        users.c.disabled_at_ms.is_(None),
        session,
        ~_retired(claims.kid),
    )
    return await connection.scalar(query) is not None


def _retired(kid: str) -> ColumnElement[bool]:
    # By the database's clock, whatever this host's or the operator's says, and before the keys are reread.
    columns = signing_keys.c
    in_use = exists().where(api_keys.c.kid == kid, api_keys.c.expires_at_ms > database_now_ms())
    ended = or_(columns.retires_at_ms < 0, and_(columns.retires_at_ms <= database_now_ms(), ~in_use))
    return exists().where(columns.kid == kid, ended)
