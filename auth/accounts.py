"""Accounts: who may log in. In: names, e-mails, passwords. Out: users, each e-mail once however it is written."""

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from auth.database import Database
from auth.errors import EmailTakenError, WrongCredentialsError
from auth.ids import new_id
from auth.passwords import PasswordHasher, Verdict
from auth.tables import users
from auth.times import now_ms


class User(msgspec.Struct, frozen=True):
    """An owner of devices. `gen` goes into tokens; raising it ends them all."""

    id: str
    name: str
    email: str
    gen: int
    created_at_ms: int


class Accounts:
    """The users in the database. No connection is held while a password is hashed."""

    def __init__(self, database: Database, passwords: PasswordHasher) -> None:
        self._database = database
        self._passwords = passwords

    async def sign_up(self, name: str, email: str, password: str) -> User:
        """Make an account of fields that were checked; EmailTakenError when the address has one."""
        user = User(id=new_id(), name=name, email=email, gen=0, created_at_ms=now_ms())
        password_hash = await self._passwords.hash(password)
        row = msgspec.structs.asdict(user) | {"email_key": email_key(email), "password_hash": password_hash}
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(users).values(row))
        except IntegrityError as error:  # the unique key decides, so that of two at once one wins
            raise EmailTakenError from error
        return user

    async def log_in(self, email: str, password: str) -> User:
        """Return the user; WrongCredentialsError, after the same time, whatever is wrong."""
        query = select(users).where(users.c.email_key == email_key(email))
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            await self._passwords.verify(password, None)
            raise WrongCredentialsError("unknown_user", None)
        match await self._passwords.verify(password, row.password_hash):
            case Verdict.WRONG:
                raise WrongCredentialsError("wrong_password", row.id)
            case Verdict.DAMAGED:
                raise WrongCredentialsError("damaged_hash", row.id)
        return User(id=row.id, name=row.name, email=row.email, gen=row.gen, created_at_ms=row.created_at_ms)


def email_key(email: str) -> str:
    """Return the form in which an address is unique: ASCII addresses (auth/bodies.py) differ in case only."""
    return email.lower()
