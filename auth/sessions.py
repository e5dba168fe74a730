"""Sessions: what a log-in gives.

A session is a family (`sid`) of refresh tokens, one of them unused, and the access tokens beside them.

In: a user whose password was right, or an unused refresh token. Out: an access token and a refresh token; only the
latter's hash is kept. Each refresh token serves once (RFC 9700, 4.14.2): whoever brings one again, thief or robbed,
ends the whole session. Rotation is one transaction: killed in the middle, the old token still serves and the new one
never existed; killed after it, before the answer, the client logs in again.

One client that brings its token twice at once (a duplicated tab, an answer that was lost) is no thief: within 10 s of
the first use, from the same network and with the same User-Agent, the second is refused and the session goes on. Who
has stolen a token and is that fast and that near gains those seconds only. Whichever of the two was second has nothing
but the used token, and the next use of that ends the session for both.

Times are the database server's, so that replicas whose clocks differ judge alike.

The user's row is locked before the tokens' rows: what ends all sessions of a user (a new password) does the same, so
that no session slips through between the two.
"""

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.accounts import User, lock_user, read_user
from auth.database import Database, server_time_ms
from auth.errors import RefreshError, WrongCredentialsError
from auth.ids import new_id
from auth.tables import refresh_tokens
from auth.tokens.issuer import Issued, TokenIssuer, new_refresh_token, refresh_token_hash, used_by_hash
from auth.tokens.revocations import Revocations

# Within which a second use by the same client is a race: longer than a client waits before it tries again.
RACE_MS = 10_000


class Session(msgspec.Struct, frozen=True):
    """A session as it goes to the client."""

    access: Issued
    refresh_token: str


class Sessions:
    """The refresh tokens in the database."""

    def __init__(
        self, database: Database, issuer: TokenIssuer, revocations: Revocations, *, access_s: int, refresh_s: int
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._revocations = revocations
        self._access_ms = access_s * 1000
        self._refresh_ms = refresh_s * 1000

    async def begin(self, user: User) -> Session:
        """Start a family; WrongCredentialsError when the account has changed since the password was checked."""
        refresh_token, sid = new_refresh_token(), new_id()
        async with self._database.writing() as connection:
            await lock_user(connection, user.id)
            now = await server_time_ms(connection)
            current = await read_user(connection, user.id)
            if current is None or current.gen != user.gen or current.disabled_at_ms is not None:
                raise WrongCredentialsError("changed_meanwhile", user.id)
            await self._forget_expired(connection, user.id, now)
            await self._insert(connection, user.id, sid, refresh_token, now)
        return Session(self._issuer.for_user(user, sid), refresh_token)

    async def refresh(self, refresh_token: str, *, network: str, user_agent: str) -> tuple[User, Session]:
        """Exchange an unused refresh token; RefreshError says why not, and what came of its session."""
        columns, token_hash = refresh_tokens.c, refresh_token_hash(refresh_token)
        used_by = used_by_hash(refresh_token, network, user_agent)
        whose = select(columns.user_id).where(columns.token_hash == token_hash)
        query = select(columns.sid, columns.expires_at_ms, columns.used_at_ms, columns.used_by_hash)
        async with self._database.writing() as connection:
            user_id = await connection.scalar(whose)
            if user_id is None:
                raise RefreshError("unknown", None)
            await lock_user(connection, user_id)
            # Read again behind the lock: another refresh, or the end of the session, may have come first.
            user = await read_user(connection, user_id)
            row = (await connection.execute(query.where(columns.token_hash == token_hash))).one_or_none()
            now = await server_time_ms(connection)
            if user is None or row is None or user.disabled_at_ms is not None:
                raise RefreshError("unknown", user_id)
            if row.expires_at_ms <= now:
                raise RefreshError("expired", user_id)
            reused = row.used_at_ms is not None
            if reused:
                # In both directions, for the server's clock may be set back by a little.
                if row.used_by_hash == used_by and abs(now - row.used_at_ms) <= RACE_MS:
                    raise RefreshError("raced", user_id, row.sid)
                await self._end(connection, user_id, row.sid)
            else:
                renewed = new_refresh_token()
                used = update(refresh_tokens).where(columns.token_hash == token_hash)
                await connection.execute(used.values(used_at_ms=now, used_by_hash=used_by))
                await self._forget_expired(connection, user_id, now)
                await self._insert(connection, user_id, row.sid, renewed, now)
        if reused:  # only now, for an exception inside would have undone the end of the session
            raise RefreshError("reused", user_id, row.sid)
        return user, Session(self._issuer.for_user(user, row.sid), renewed)

    async def end(self, user_id: str, sid: str, refresh_token: str | None) -> list[str]:
        """End a session, and the one of `refresh_token` where that is another of the same user; return their ids."""
        async with self._database.writing() as connection:
            await lock_user(connection, user_id)
            sids = [sid]
            if refresh_token is not None:
                other = await connection.scalar(
                    select(refresh_tokens.c.sid).where(
                        refresh_tokens.c.user_id == user_id,
                        refresh_tokens.c.token_hash == refresh_token_hash(refresh_token),
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
        await self._revocations.end_session(connection, sid)

    async def _insert(self, connection: AsyncConnection, user_id: str, sid: str, token: str, now: int) -> None:
        row = {
            "user_id": user_id,
            "sid": sid,
            "token_hash": refresh_token_hash(token),
            "created_at_ms": now,
            "expires_at_ms": now + self._refresh_ms,
        }
        await connection.execute(insert(refresh_tokens).values(row))

    async def _forget_expired(self, connection: AsyncConnection, user_id: str, now: int) -> None:
        # Access tokens stand on the rows of their session (auth/tokens/status.py): these outlive the last of them.
        past = now - self._access_ms
        columns = refresh_tokens.c
        await connection.execute(
            delete(refresh_tokens).where(columns.user_id == user_id, columns.expires_at_ms <= past)
        )
