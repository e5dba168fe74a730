"""Sessions: what a log-in gives. A session is a family (`sid`) of one refresh token and the access tokens beside it.

In: a user whose password was right. Out: an access token and a refresh token; only the latter's hash is kept.
"""

import msgspec
from sqlalchemy import delete, insert

from auth.accounts import User
from auth.database import Database
from auth.ids import new_id
from auth.tables import refresh_tokens
from auth.times import now_ms
from auth.tokens import Issued, TokenIssuer, new_refresh_token, refresh_token_hash


class Session(msgspec.Struct, frozen=True):
    """A session as it goes to the client."""

    access: Issued
    refresh_token: str


class Sessions:
    """The refresh tokens in the database."""

    def __init__(self, database: Database, issuer: TokenIssuer, refresh_s: int) -> None:
        self._database = database
        self._issuer = issuer
        self._refresh_s = refresh_s

    async def begin(self, user: User) -> Session:
        """Start a family. The user's expired tokens go, so that the table holds what can still be used."""
        refresh_token, sid, now = new_refresh_token(), new_id(), now_ms()
        row = {
            "user_id": user.id,
            "sid": sid,
            "token_hash": refresh_token_hash(refresh_token),
            "created_at_ms": now,
            "expires_at_ms": now + self._refresh_s * 1000,
        }
        expired = delete(refresh_tokens).where(
            refresh_tokens.c.user_id == user.id, refresh_tokens.c.expires_at_ms <= now
        )
        async with self._database.writing() as connection:
            await connection.execute(expired)
            await connection.execute(insert(refresh_tokens).values(row))
        return Session(self._issuer.for_user(user, sid), refresh_token)
