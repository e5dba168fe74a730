"""Accounts: the users who may log in. E-mail addresses are unique regardless of case.

Every change that revokes tokens (new password, disabling, deletion) is one transaction with their revocation.
"""

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth.errors import EmailTakenError, NoSuchUserError, WrongCredentialsError
from auth.passwords import PasswordHasher, Recheck, Verdict, no_recheck
from auth.tokens.api_key_rows import delete_api_keys, longest_life_ms
from auth.tokens.revocations import EndedKey, RevocationLog
from database.connection import Database
from database.erasure import erase_alarms
from database.ids import new_id
from database.tables import api_keys, deleted_owners, devices, ended_api_keys, refresh_tokens, users
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.times import now_ms

log = logger("auth.accounts")


class User(msgspec.Struct, frozen=True):
    """An owner of devices. `gen` is a claim of the user's tokens; raising it revokes them all."""

    id: str
    name: str
    email: str
    gen: int
    created_at_ms: int
    disabled_at_ms: int | None = None


_USER = (users.c.id, users.c.name, users.c.email, users.c.gen, users.c.created_at_ms, users.c.disabled_at_ms)


class Accounts:
    """The users in the database. No database connection is held while a password is hashed."""

    def __init__(self, database: Database, passwords: PasswordHasher, revocations: RevocationLog) -> None:
        self._database = database
        self._passwords = passwords
        self._revocations = revocations

    async def create(self, name: str, email: str, password: str) -> User:
        """Create an account from validated fields; raise EmailTakenError if the address has one already."""
        user = User(id=new_id(), name=name, email=email, gen=0, created_at_ms=now_ms())
        password_hash = await self._passwords.hash(password)
        row = msgspec.structs.asdict(user) | {"email_key": email_key(email), "password_hash": password_hash}
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(users).values(row))
        except IntegrityError as error:  # the unique key decides: of two concurrent sign-ups one wins
            raise EmailTakenError from error
        return user

    async def log_in(self, email: str, password: str, *, recheck: Recheck = no_recheck) -> User:
        """Return the user; raise WrongCredentialsError, after the same time whichever credential is wrong.

        `recheck` is called just before the password is hashed: PasswordHasher.verify.
        """
        query = select(*_USER, users.c.password_hash).where(users.c.email_key == email_key(email))
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            await self._passwords.verify(password, None, recheck=recheck)
            raise WrongCredentialsError("unknown_user", None)
        verdict = await self._verify(row.id, password, row.password_hash, recheck)
        user = User(*row[:-1])
        if user.disabled_at_ms is not None:
            raise WrongCredentialsError("disabled", user.id)
        if verdict is Verdict.RIGHT_AS_TYPED or self._passwords.is_outdated(row.password_hash):
            await self._renew_hash(user.id, password, row.password_hash)
        return user

    async def confirm(self, user_id: str, password: str, *, recheck: Recheck = no_recheck) -> None:
        """Return if the password is the user's; raise WrongCredentialsError otherwise."""
        query = select(users.c.password_hash).where(users.c.id == user_id)
        async with self._database.connect() as connection:
            stored = await connection.scalar(query)
        await self._verify(user_id, password, stored, recheck)

    async def find(self, user_id: str) -> User:
        """Return a user; raise NoSuchUserError if there is none with this id."""
        async with self._database.connect() as connection:
            user = await read_user(connection, user_id)
        if user is None:
            raise NoSuchUserError
        return user

    async def find_by_email(self, email: str) -> User:
        """Return the user with this e-mail address; raise NoSuchUserError if there is none."""
        query = select(*_USER).where(users.c.email_key == email_key(email))
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NoSuchUserError
        return User(*row)

    async def page(self, after: str | None, limit: int) -> list[User]:
        """Return at most `limit` users, oldest first, starting after the id `after`."""
        query = select(*_USER).order_by(users.c.id).limit(limit)
        if after is not None:
            query = query.where(users.c.id > after)
        async with self._database.connect() as connection:
            return [User(*row) for row in await connection.execute(query)]

    async def change(
        self, user_id: str, *, name: str | None = None, password: str | None = None, end_keys: bool = False
    ) -> int:
        """Change the given fields and return how many valid API keys ended; raise NoSuchUserError.

        A new password ends the user's sessions and revokes the user's tokens. Device tokens stay valid, and so do API
        keys without `end_keys`.
        """
        ended: list[EndedKey] = []
        values = {} if name is None else {"name": name}
        if password is not None:
            values["password_hash"] = await self._passwords.hash(password)
        async with self._database.begin() as connection:
            await lock_user(connection, user_id)
            await connection.execute(update(users).where(users.c.id == user_id).values(values))
            if password is not None:
                gen = await self._end_sessions(connection, user_id)
                if end_keys:
                    ended = await delete_api_keys(connection, api_keys.c.owner_id == user_id)
                await self._revocations.revoke_user_tokens(connection, user_id, gen)
                await self._revocations.revoke_api_keys(connection, ended)
        return sum(key.was_valid for key in ended)

    async def disable(self, user_id: str) -> None:
        """Block log-ins, revoke every token of the user and of the user's devices, and delete the API keys.

        Raises NoSuchUserError.
        """
        async with self._database.begin() as connection:
            await lock_user(connection, user_id)
            gen = await self._end_sessions(connection, user_id)
            await connection.execute(update(users).where(users.c.id == user_id).values(disabled_at_ms=now_ms()))
            await connection.execute(update(devices).where(devices.c.owner_id == user_id).values(gen=devices.c.gen + 1))
            query = select(devices.c.id, devices.c.gen).where(devices.c.owner_id == user_id)
            ended = [(row.id, row.gen) for row in await connection.execute(query)]
            keys = await delete_api_keys(connection, api_keys.c.owner_id == user_id)
            await self._revocations.revoke_user_tokens(connection, user_id, gen, ended)
            await self._revocations.revoke_api_keys(connection, keys)

    async def enable(self, user_id: str) -> None:
        """Let a disabled user log in again; raise NoSuchUserError. Devices need new tokens, scripts new API keys."""
        async with self._database.begin() as connection:
            await lock_user(connection, user_id)
            await connection.execute(update(users).where(users.c.id == user_id).values(disabled_at_ms=None))

    async def delete(self, user_id: str) -> None:
        """Delete account, devices and tokens, and queue the erasure of the readings; raise NoSuchUserError.

        What alarms have left goes before the rest: if this ends in between, the account is there, without it.
        """
        await erase_alarms(self._database, user_id)
        async with self._database.begin() as connection:
            await lock_user(connection, user_id)
            await connection.execute(insert(deleted_owners).values(owner_id=user_id, deleted_at_ms=now_ms()))
            api_keys_ms = await longest_life_ms(connection, user_id)
            await connection.execute(delete(ended_api_keys).where(ended_api_keys.c.owner_id == user_id))
            await connection.execute(delete(users).where(users.c.id == user_id))
            await self._revocations.revoke_owner(connection, user_id, api_keys_ms)

    async def _end_sessions(self, connection: AsyncConnection, user_id: str) -> int:
        """Delete the user's refresh tokens, increment `gen`, and return the new value."""
        await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.user_id == user_id))
        await connection.execute(update(users).where(users.c.id == user_id).values(gen=users.c.gen + 1))
        return await connection.scalar(select(users.c.gen).where(users.c.id == user_id)) or 0

    async def _verify(self, user_id: str, password: str, stored: str | None, recheck: Recheck) -> Verdict:
        verdict = await self._passwords.verify(password, stored, recheck=recheck)
        if verdict is Verdict.WRONG:
            raise WrongCredentialsError("wrong_password", user_id)
        if verdict is Verdict.DAMAGED:
            raise WrongCredentialsError("damaged_hash", user_id)
        return verdict

    async def _renew_hash(self, user_id: str, password: str, stored: str) -> None:
        """Store a new hash of the password: the stored one has another cost, or is of the unprepared password."""
        # If the password was changed meanwhile, the newer hash stays.
        unchanged = (users.c.id == user_id, users.c.password_hash == stored)
        try:
            renewed = await self._passwords.hash(password)
            async with self._database.begin() as connection:
                await connection.execute(update(users).where(*unchanged).values(password_hash=renewed))
        except Problem as problem:  # hasher busy or database down: the next log-in retries
            log.info("A password's hash could not be renewed.", user=user_id, why=problem.detail)


async def lock_user(connection: AsyncConnection, user_id: str) -> None:
    """Lock the user's row, so that one transaction at a time changes the user and its rows; raise NoSuchUserError."""
    query = select(users.c.id).where(users.c.id == user_id).with_for_update()
    if await connection.scalar(query) is None:
        raise NoSuchUserError


async def read_user(connection: AsyncConnection, user_id: str) -> User | None:
    """Return the user with this id, or None."""
    row = (await connection.execute(select(*_USER).where(users.c.id == user_id))).one_or_none()
    return None if row is None else User(*row)


def email_key(email: str) -> str:
    """Return the form under which an address is unique: lower case, as addresses are ASCII (auth/http/bodies.py)."""
    return email.lower()
