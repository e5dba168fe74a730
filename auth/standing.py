"""Whether a token that is signed and in time still stands: what only the database knows.

`auth` asks at each call, so that here a revocation counts at once; other services learn of it from `/revocations`.
"""

from sqlalchemy import exists, select

from auth.database import Database
from auth.tables import devices, refresh_tokens, users
from runtime.tokens import Claims, TokenError


class Standing:
    """Looks up what stands behind verified claims."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, claims: Claims) -> None:
        """Raise TokenError `revoked` when the account, the device or the session has ended the token."""
        stands = await (self._user(claims) if claims.device is None else self._device(claims, claims.device))
        if not stands:
            raise TokenError("revoked", "the token was revoked")

    async def _user(self, claims: Claims) -> bool:
        # A session lives as long as its rows: logging out, a stolen refresh token, a new password remove them.
        session = exists().where(refresh_tokens.c.user_id == users.c.id, refresh_tokens.c.sid == claims.sid)
        query = select(users.c.id).where(
            users.c.id == claims.sub, users.c.gen == claims.gen, users.c.disabled_at_ms.is_(None), session
        )
        async with self._database.reading() as connection:
            return await connection.scalar(query) is not None

    async def _device(self, claims: Claims, device_id: str) -> bool:
        query = (
            select(devices.c.id)
            .join(users, users.c.id == devices.c.owner_id)
            .where(
                devices.c.owner_id == claims.owner,
                devices.c.id == device_id,
                devices.c.gen == claims.gen,
                users.c.disabled_at_ms.is_(None),
            )
        )
        async with self._database.reading() as connection:
            return await connection.scalar(query) is not None
