"""Whether a token that is signed and in time still stands: what only the database knows.

`auth` asks at each call, so that here a revocation counts at once; other services learn of it from `/revocations`.
"""

from sqlalchemy import ColumnElement, exists, select

from access.tokens import TokenError, Verified
from auth.database import Database, database_now_ms
from auth.tables import devices, refresh_tokens, signing_keys, users


class Standing:
    """Looks up what stands behind verified claims."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, claims: Verified) -> None:
        """Raise TokenError `revoked` when the account, the device, the session or the key has ended the token."""
        stands = await (self._user(claims) if claims.device is None else self._device(claims, claims.device))
        if not stands:
            raise TokenError("revoked", "the token was revoked")

    async def _user(self, claims: Verified) -> bool:
        # A session lives as long as its rows: logging out, a stolen refresh token, a new password remove them.
        session = exists().where(refresh_tokens.c.user_id == users.c.id, refresh_tokens.c.sid == claims.sid)
        query = select(users.c.id).where(
            users.c.id == claims.sub,
            users.c.gen == claims.gen,
            users.c.disabled_at_ms.is_(None),
            session,
            ~_retired(claims.kid),
        )
        async with self._database.reading() as connection:
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
        async with self._database.reading() as connection:
            return await connection.scalar(query) is not None


def _retired(kid: str) -> ColumnElement[bool]:
    # Whatever the clocks of this host and of the operator's say, and before the keys are read again.
    return exists().where(signing_keys.c.kid == kid, signing_keys.c.retires_at_ms <= database_now_ms())
