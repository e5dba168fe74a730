"""DELETED OWNERS → BROKER: an outbox. The row was written with the deletion; it moves when the broker has confirmed.

Where the process can die: before the confirm the row is there and is published by the next one that looks; between
confirm and move it is published twice, which changes nothing. While the broker is away, rows wait and `auth` serves.
Announced owners are kept: a database of readings that was restored from an older copy has them again, and
`announce_again` tells the persisters once more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import delete, insert, select, union
from sqlalchemy.exc import IntegrityError

from auth.database import Database
from auth.tables import announced_owners, deleted_owners, users
from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, BrokerError, Publisher
from broker.topology import OWNERS_EXCHANGE
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("auth.deletion_outbox")

# How soon a deletion made elsewhere (another replica, an operator's command) is seen.
LOOK_EVERY_S = 5.0
RETRY_S = 2.0
AT_ONCE = 100


class DeletedOwners:
    """Announces what waits in the outbox."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._wanted = asyncio.Event()
        self._waiting = Gauge(
            "tidegate_auth_deleted_owners_waiting", "Deleted owners not yet announced.", registry=registry
        )
        self._told = False

    def wake(self) -> None:
        """Look at the outbox now."""
        self._wanted.set()

    @asynccontextmanager
    async def announced(self, broker: Broker | None) -> AsyncIterator[None]:
        """Announce as long as the context lasts; without a broker only say that deletions wait."""
        task = asyncio.create_task(self._announce(broker), name="deleted owners")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _announce(self, broker: Broker | None) -> None:
        if broker is None:
            await self._until_cancelled(None)
        else:
            async with broker.publisher(OWNERS_EXCHANGE) as publisher:
                await self._until_cancelled(publisher)

    async def _until_cancelled(self, publisher: Publisher | None) -> None:
        while True:
            self._wanted.clear()
            pause = LOOK_EVERY_S
            try:
                while await self._announce_some(publisher):
                    pass
            except (BrokerError, Problem) as error:  # the rows stay, and are tried again
                self._tell(f"{type(error).__name__}: {error}")
                pause = RETRY_S
            except Exception:  # a fault of ours: the rows stay, and accounts are served on
                log.exception("Deleted owners could not be announced.")
            try:
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _announce_some(self, publisher: Publisher | None) -> bool:
        """Announce the oldest rows; True when there may be more."""
        columns = deleted_owners.c
        query = select(columns.owner_id, columns.deleted_at_ms).order_by(columns.deleted_at_ms).limit(AT_ONCE)
        async with self._database.reading() as connection:
            rows = [DeletedOwner(*row) for row in await connection.execute(query)]
        self._waiting.set(len(rows))
        if not rows:
            return False
        if publisher is None:
            self._tell("BROKER_URL is not set")
            return False
        for owner in rows:
            await publisher.publish(owner.message(), OWNERS_EXCHANGE)
            await _note_announced(self._database, owner)
            log.info("A deleted owner was announced.", user=owner.owner)
            self._told = False
        return True

    def _tell(self, why: str) -> None:
        if not self._told:  # once an outage
            self._told = True
            log.warning("Deleted owners wait to be announced; their readings are erased later.", why=why)


async def _note_announced(database: Database, owner: DeletedOwner) -> None:
    """Move an owner from the outbox to those who were announced."""
    row = {"owner_id": owner.owner, "deleted_at_ms": owner.deleted_at_ms}
    leave = delete(deleted_owners).where(deleted_owners.c.owner_id == owner.owner)
    try:
        async with database.writing() as connection:
            await connection.execute(insert(announced_owners).values(row))
            await connection.execute(leave)
    except IntegrityError:  # another replica has announced it, too
        async with database.writing() as connection:
            await connection.execute(leave)


async def announce_again(
    database: Database, publisher: Publisher, since_ms: int | None, progress: Callable[[int], None]
) -> int:
    """Announce every deleted owner, or those deleted since then; return how many, each confirmed by the broker.

    Raises BrokerError or Problem 503; what was announced by then stays announced, and to repeat it changes nothing.
    An id that has an account is left out: it was not deleted.
    """
    announced, after = 0, ""
    while rows := await _deleted_after(database, after, since_ms):
        for owner in rows:
            await publisher.publish(owner.message(), OWNERS_EXCHANGE)
            announced += 1
            progress(announced)
        after = rows[-1].owner
    return announced


async def _deleted_after(database: Database, after: str, since_ms: int | None) -> list[DeletedOwner]:
    """Return some of the deleted owners, in the order of their ids, announced or not."""
    parts = []
    for table in (announced_owners, deleted_owners):
        query = select(table.c.owner_id, table.c.deleted_at_ms).where(table.c.owner_id > after)
        query = query.where(table.c.owner_id.not_in(select(users.c.id)))
        parts.append(query if since_ms is None else query.where(table.c.deleted_at_ms >= since_ms))
    async with database.reading() as connection:
        rows = await connection.execute(union(*parts).order_by("owner_id").limit(AT_ONCE))
        return [DeletedOwner(*row) for row in rows]
