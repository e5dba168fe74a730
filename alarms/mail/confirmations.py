"""The addresses that their owners have confirmed: nothing but a code goes to any other.

A confirmation counts for the address that it was made with: once the account has another one, it is as if there were
none. Each call locks the account's row, so that tries and codes are counted one after the other.
"""

import hmac
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from alarms.mail.codes import Codes
from alarms.rules.store import NoSuchOwnerError
from database.alarm_tables import alarm_emails
from database.connection import Database, server_time_ms
from database.tables import devices, users
from database.upsert import upsert

MAX_CODES_A_DAY = 5
MAX_WRONG_TRIES = 5
BETWEEN_CODES_MS = 60_000
DAY_MS = 86_400_000
CODE_VALID_MS = DAY_MS


class AlreadyConfirmedError(Exception):
    """The address needs no code."""


class TooManyCodesError(Exception):
    """A code was mailed a short while ago, or enough of them today."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(f"again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class WrongCodeError(Exception):
    """It is not the code that was mailed last; `tries_left` with that one."""

    def __init__(self, tries_left: int) -> None:
        super().__init__(f"{tries_left} tries are left")
        self.tries_left = tries_left


class CodeExpiredError(Exception):
    """There is no code that could be entered: it is too old, was tried too often, or none was mailed."""


@dataclass(frozen=True, slots=True)
class EmailStatus:
    """The address of an account; `sent_at_ms`: when the code was mailed that can be entered now."""

    address: str
    is_confirmed: bool
    sent_at_ms: int | None


class Confirmations:
    """The confirmations of all owners. Every method raises Problem 503 if the database does not answer."""

    def __init__(self, database: Database, codes: Codes) -> None:
        self._database = database
        self._codes = codes

    async def status(self, owner: str) -> EmailStatus:
        """Return where an owner's address stands; NoSuchOwnerError."""
        async with self._database.connect() as connection:
            now = await server_time_ms(connection)
            address, row = await _read(connection, owner)
        return _status(address, row, now)

    async def confirmed_address(self, owner: str) -> str | None:
        """Return the address of an owner if it is confirmed."""
        try:
            found = await self.status(owner)
        except NoSuchOwnerError:
            return None
        return found.address if found.is_confirmed else None

    async def new_code(self, owner: str) -> tuple[str, str]:
        """Return the address and a new code, which replaces the one before, and counts as mailed.

        Raises NoSuchOwnerError, AlreadyConfirmedError, TooManyCodesError.
        """
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            address, row = await _read(connection, owner, lock=True)
            if _status(address, row, now).is_confirmed:
                raise AlreadyConfirmedError
            sent = _sent_within_a_day(row, now)
            if row is not None and row["tried_at_ms"] + BETWEEN_CODES_MS > now:
                raise TooManyCodesError(row["tried_at_ms"] + BETWEEN_CODES_MS - now)
            if len(sent) >= MAX_CODES_A_DAY:
                raise TooManyCodesError(sent[0] + DAY_MS - now)
            code = self._codes.new()
            values = {
                "owner_id": owner,
                "address": address,
                "confirmed_at_ms": None,
                "code_hash": self._codes.hash(owner, address, code),
                "code_until_ms": now + CODE_VALID_MS,
                "wrong_tries": 0,
                "tried_at_ms": now,
                "sent_ms": msgspec.json.encode([*sent, now]).decode(),
            }
            await upsert(connection, alarm_emails, [values])
        return address, code

    async def not_mailed(self, owner: str) -> None:
        """Take back the newest code, which cannot have been mailed: it does not count for the day."""
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            _, row = await _read(connection, owner, lock=True)
            sent = _sent_within_a_day(row, now)[:-1]
            values = {"code_hash": None, "code_until_ms": None, "sent_ms": msgspec.json.encode(sent).decode()}
            await _update(connection, owner, values)

    async def confirm(self, owner: str, code: str) -> EmailStatus:
        """Confirm the address with a code; NoSuchOwnerError, WrongCodeError, CodeExpiredError.

        What is confirmed already stays so, whatever the code.
        """
        async with self._database.begin() as connection:
            now = await server_time_ms(connection)
            address, row = await _read(connection, owner, lock=True)
            if _status(address, row, now).is_confirmed:
                return _status(address, row, now)
            if row is None or not _can_be_entered(address, row, now):
                raise CodeExpiredError
            is_it = hmac.compare_digest(row["code_hash"], self._codes.hash(owner, address, code))
            tries = row["wrong_tries"] + 1
            await _update(connection, owner, _confirmed(now) if is_it else {"wrong_tries": tries})
        if not is_it:
            raise WrongCodeError(MAX_WRONG_TRIES - tries)
        return EmailStatus(address, is_confirmed=True, sent_at_ms=None)

    async def device_name(self, owner: str, device: str) -> str | None:
        """Return the name of a registered device of an owner."""
        query = select(devices.c.name).where(devices.c.owner_id == owner, devices.c.id == device)
        async with self._database.connect() as connection:
            name: str | None = await connection.scalar(query)
        return name


async def _read(connection: AsyncConnection, owner: str, *, lock: bool = False) -> tuple[str, dict[str, Any] | None]:
    """Return the address of the account, and its row if it has one; NoSuchOwnerError."""
    query = select(users.c.email).where(users.c.id == owner)
    address = await connection.scalar(query.with_for_update() if lock else query)
    if address is None:
        raise NoSuchOwnerError
    found = (await connection.execute(select(alarm_emails).where(alarm_emails.c.owner_id == owner))).one_or_none()
    return address, None if found is None else found._asdict()


async def _update(connection: AsyncConnection, owner: str, values: dict[str, Any]) -> None:
    await connection.execute(update(alarm_emails).where(alarm_emails.c.owner_id == owner).values(values))


def _confirmed(now_ms: int) -> dict[str, Any]:
    return {"confirmed_at_ms": now_ms, "code_hash": None, "code_until_ms": None}


def _status(address: str, row: dict[str, Any] | None, now_ms: int) -> EmailStatus:
    if row is None or row["address"] != address:
        return EmailStatus(address, is_confirmed=False, sent_at_ms=None)
    sent_at_ms = row["tried_at_ms"] if _can_be_entered(address, row, now_ms) else None
    return EmailStatus(address, row["confirmed_at_ms"] is not None, sent_at_ms)


def _can_be_entered(address: str, row: dict[str, Any], now_ms: int) -> bool:
    """Return whether there is a code for this address, not too old and not tried too often."""
    is_valid = row["code_hash"] is not None and row["code_until_ms"] > now_ms
    return is_valid and row["address"] == address and row["wrong_tries"] < MAX_WRONG_TRIES


def _sent_within_a_day(row: dict[str, Any] | None, now_ms: int) -> list[int]:
    times = [] if row is None else msgspec.json.decode(row["sent_ms"], type=list[int])
    return [time for time in times if time > now_ms - DAY_MS]
