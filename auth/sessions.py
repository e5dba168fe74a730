"""Sessions, which begin with a log-in and are renewed with refresh tokens.

A session is a family (`sid`) of refresh tokens, one of them unused, together with its access tokens.

In: a user whose password was right, or an unused refresh token. Out: an access token and a refresh token; only the
latter's hash is stored. Refresh tokens are single-use (RFC 9700, 4.14.2): a second use, by thief or victim, ends the
whole session. Rotation is one transaction: if the process is killed during it, the old token is still valid and the new
one never existed; if it is killed after it but before the response, the client has to log in again.

A client that sends its token twice at once (a duplicated tab, a lost response) is no thief: a second use within 10 s of
the first, from the same network and with the same User-Agent, is refused, but the session goes on. A thief that fast
and that near gains only those seconds: whichever of the two came second has nothing but the used token, and its next
use ends the session for both.

Times are the database server's, so that replicas with different clocks decide alike.

The user's row is locked before the tokens' rows. Whatever ends all of a user's sessions (a new password) does the same,
so that no session can be created in between.
"""

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import User, lock_user, read_user
from auth.errors import RefreshError, WrongCredentialsError
from auth.tokens.issuer import IssuedToken, TokenIssuer, new_secret, secret_hash, used_by_hash
from auth.tokens.revocations import RevocationLog
from database.connection import Database, server_time_ms
from database.ids import new_id
from database.tables import refresh_tokens

# A second use by the same client within this time is a race: longer than clients wait before they retry.
RACE_MS = 10_000


class TokenPair(msgspec.Struct, frozen=True):
    """The tokens of a session, as sent to the client."""

    access: IssuedToken
    refresh_token: str


class Sessions:
    """The sessions in the database."""

    def __init__(
        self, database: Database, issuer: TokenIssuer, revocations: RevocationLog, *, access_s: int, refresh_s: int
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._revocations = revocations
        self._access_ms = access_s * 1000
        self._refresh_ms = refresh_s * 1000

    async def begin(self, user: User) -> TokenPair:
        """Start a session; raise WrongCredentialsError if the account has changed since the password was checked."""
        refresh_token, sid = new_secret(), new_id()
        async with self._database.begin() as connection:
            await lock_user(connection, user.id)
            now = await server_time_ms(connection)
            current = await read_user(connection, user.id)
            if current is None or current.gen != user.gen or current.disabled_at_ms is not None:
                raise WrongCredentialsError("changed_meanwhile", user.id)
            await self._delete_expired(connection, user.id, now)
            await self._insert(connection, user.id, sid, refresh_token, now)
        return TokenPair(self._issuer.for_user(user, sid), refresh_token)

    async def refresh(self, refresh_token: str, *, network: str, user_agent: str) -> tuple[User, TokenPair]:
        """Exchange an unused refresh token for new tokens; raise RefreshError with the reason if it is refused."""
        columns, token_hash = refresh_tokens.c, secret_hash(refresh_token)
        used_by = used_by_hash(refresh_token, network, user_agent)
        user_query = select(columns.user_id).where(columns.token_hash == token_hash)
        query = select(columns.sid, columns.expires_at_ms, columns.used_at_ms, columns.used_by_hash)
        async with self._database.begin() as connection:
            user_id = await connection.scalar(user_query)
            if user_id is None:
                raise RefreshError("unknown", None)
            await lock_user(connection, user_id)
            # Read again under the lock: another refresh, or the end of the session, may have come first.
            user = await read_user(connection, user_id)
            row = (await connection.execute(query.where(columns.token_hash == token_hash))).one_or_none()
            now = await server_time_ms(connection)
            if user is None or row is None or user.disabled_at_ms is not None:
                raise RefreshError("unknown", user_id)
            if row.expires_at_ms <= now:
                raise RefreshError("expired", user_id)
            reused = row.used_at_ms is not None
            if reused:
                # In both directions, as the server's clock may be set back a little.
                if row.used_by_hash == used_by and abs(now - row.used_at_ms) <= RACE_MS:
                    raise RefreshError("raced", user_id, row.sid)
                await self._end(connection, user_id, row.sid)
            else:
                renewed = new_secret()
                used = update(refresh_tokens).where(columns.token_hash == token_hash)
                await connection.execute(used.values(used_at_ms=now, used_by_hash=used_by))
                await self._delete_expired(connection, user_id, now)
                await self._insert(connection, user_id, row.sid, renewed, now)
        if reused:  # only now: inside the transaction, it would roll back the end of the session
            raise RefreshError("reused", user_id, row.sid)
        return user, TokenPair(self._issuer.for_user(user, row.sid), renewed)

    async def end(self, user_id: str, sid: str, refresh_token: str | None) -> list[str]:
        """End a session, and that of `refresh_token` if it is another one of the same user; return the ids of both."""
        async with self._database.begin() as connection:
            await lock_user(connection, user_id)
            sids = [sid]
            if refresh_token is not None:
                other = await connection.scalar(
                    select(refresh_tokens.c.sid).where(
                        refresh_tokens.c.user_id == user_id,
                        refresh_tokens.c.token_hash == secret_hash(refresh_token),
                    )
                )
                if other is not None and other != sid:
                    sids.append(other)
            for one in sids:
                await self._end(connection, user_id, one)
        return sids

    async def _end(self, connection: AsyncConnection, user_id: str, sid: str) -> None:
        family = (refresh_tokens.c.user_id == user_id, refresh_tokens.c.sid == sid)
        await connection.execute(delete(refresh_tokens).where(*family))
        await self._revocations.revoke_session(connection, sid)

    async def _insert(self, connection: AsyncConnection, user_id: str, sid: str, token: str, now: int) -> None:
        row = {
            "user_id": user_id,
            "sid": sid,
            "token_hash": secret_hash(token),
            "created_at_ms": now,
            "expires_at_ms": now + self._refresh_ms,
        }
        await connection.execute(insert(refresh_tokens).values(row))

    async def _delete_expired(self, connection: AsyncConnection, user_id: str, now: int) -> None:
        # Access tokens are active while their session has rows (auth/tokens/status.py): rows must outlive them.
        cutoff = now - self._access_ms
        columns = refresh_tokens.c
        await connection.execute(
            delete(refresh_tokens).where(columns.user_id == user_id, columns.expires_at_ms <= cutoff)
        )
