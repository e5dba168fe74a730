"""Whether a verified, unexpired token is still active, according to the database.

`auth` checks it on each call, so that a revocation takes effect here at once; other services poll `/revocations`.
"""

from sqlalchemy import ColumnElement, exists, select

from access.claims import Verified
from access.tokens import TokenError
from auth.database import Database, database_now_ms
from auth.tables import devices, refresh_tokens, signing_keys, users


class TokenStatus:
    """Looks up the account, device, session and key behind verified claims."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require_active(self, claims: Verified) -> None:
        """Raise TokenError `revoked` if the token's account, device, session or key is gone or has revoked it."""
        active = await (self._user(claims) if claims.device is None else self._device(claims, claims.device))
        if not active:
            raise TokenError("revoked", "the token was revoked")

    async def _user(self, claims: Verified) -> bool:
        # A session lasts as long as its rows: a log-out, a reused refresh token and a new password delete them.
        session = exists().where(refresh_tokens.c.user_id == users.c.id, refresh_tokens.c.sid == claims.sid)
        query = select(users.c.id).where(
            users.c.id == claims.sub,
            users.c.gen == claims.gen,
            users.c.disabled_at_ms.is_(None),
            session,
            ~_retired(claims.kid),
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
        async with self._database.connect() as connection:
            return await connection.scalar(query) is not None


def _retired(kid: str) -> ColumnElement[bool]:
    # By the database's clock, whatever this host's or the operator's says, and before the keys are reread.
    return exists().where(signing_keys.c.kid == kid, signing_keys.c.retires_at_ms <= database_now_ms())
