"""Which of the processes evaluates: the one that holds the lease in the users' database, by the database's clock.

One at a time, as a series has to be evaluated in its order. What it finds out is stored in transactions that also check
and renew the lease: a process that was stopped past its end stores nothing any more.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from database.alarm_tables import alarm_leader
from database.connection import Database, database_now_ms
from database.ids import new_id
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("alarms")

LEASE_S = 10.0
RENEW_EVERY_S = 3.0
# Another process takes over at most this long after the lease has ended.
TRY_EVERY_S = 1.0


class NotLeaderError(Exception):
    """Another process evaluates."""


class Leader:
    """The lease, for one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holder = new_id()
        # Until then, by the monotonic clock, no other process can have the lease.
        self._until = float("-inf")
        self.is_leading = False

    async def lead(self, evaluate: Callable[[], Awaitable[None]]) -> None:
        """Run `evaluate` whenever this process holds the lease; end it when the lease is lost. Never returns."""
        while True:
            if await self._claim():
                log.info("This process evaluates the rules.")
                self.is_leading = True
                try:
                    await self._while_leading(evaluate)
                finally:
                    self.is_leading = False
                log.warning("Another process evaluates the rules, or none: the lease was lost.")
            await asyncio.sleep(TRY_EVERY_S)

    async def renew(self, connection: AsyncConnection) -> None:
        """Check and renew the lease in a transaction; NotLeaderError if it is lost."""
        now = database_now_ms()
        is_held = (alarm_leader.c.holder == self._holder, alarm_leader.c.until_ms > now)
        values = {"until_ms": now + int(LEASE_S * 1000)}
        if (await connection.execute(update(alarm_leader).where(*is_held).values(values))).rowcount != 1:
            raise NotLeaderError

    def require_held(self) -> None:
        """Raise NotLeaderError if the lease may have ended, without asking the database."""
        if time.monotonic() >= self._until:
            raise NotLeaderError

    async def release(self) -> None:
        """Let another process take over at once."""
        async with self._database.begin() as connection:
            is_mine = alarm_leader.c.holder == self._holder
            await connection.execute(update(alarm_leader).where(is_mine).values(until_ms=0))

    async def _while_leading(self, evaluate: Callable[[], Awaitable[None]]) -> None:
        async def keep() -> None:
            while True:
                await asyncio.sleep(RENEW_EVERY_S)
                began = time.monotonic()
                try:
                    async with self._database.begin() as connection:
                        await self.renew(connection)
                    self._until = began + LEASE_S
                except Problem:  # away: whether the lease is still held, the next transaction will tell
                    continue

        tasks = [asyncio.ensure_future(keep()), asyncio.ensure_future(evaluate())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except NotLeaderError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self) -> bool:
        now = database_now_ms()
        is_free = or_(alarm_leader.c.until_ms <= now, alarm_leader.c.holder == self._holder)
        values = {"holder": self._holder, "until_ms": now + int(LEASE_S * 1000)}
        began = time.monotonic()
        try:
            async with self._database.begin() as connection:
                result = await connection.execute(update(alarm_leader).where(is_free).values(values))
        except Problem:
            return False
        if result.rowcount != 1:
            return False
        self._until = began + LEASE_S
        return True
