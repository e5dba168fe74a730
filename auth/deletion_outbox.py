"""DELETED OWNERS → BROKER: a transactional outbox. The row is written with the deletion and moved on the confirm.

Crash windows: before the confirm, the row is still there and the next poll publishes it; between confirm and move, it
is published twice, which changes nothing. While the broker is down, rows wait and `auth` goes on serving. Announced
owners are kept: a readings database restored from an older backup contains their readings again, and `announce_again`
then publishes them once more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy import delete, insert, select, union
from sqlalchemy.exc import IntegrityError

from auth.metrics import AuthMetrics
from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, BrokerError, Publisher
from broker.topology import OWNERS_EXCHANGE
from database.connection import Database
from database.tables import announced_owners, deleted_owners, users
from runtime.background import background
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("auth.deletion_outbox")

# How soon a deletion made elsewhere (by another replica or an operator's command) is noticed.
POLL_EVERY_S = 5.0
RETRY_S = 2.0
BATCH_ROWS = 100


class OwnerDeletionOutbox:
    """Publishes the deleted owners in the outbox (table `deleted_owners`) to the persisters."""

    def __init__(self, database: Database, metrics: AuthMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._outage_logged = False

    def wake(self) -> None:
        """Poll the outbox now."""
        self._woken.set()

    @asynccontextmanager
    async def announcing(self, broker: Broker | None) -> AsyncIterator[None]:
        """Publish deleted owners until the context ends; without a broker, only log that deletions wait."""
        async with background(self._announce(broker), name="deleted owners"):
            yield

    async def _announce(self, broker: Broker | None) -> None:
        if broker is None:
            await self._poll(None)
        else:
            async with broker.publisher(OWNERS_EXCHANGE) as publisher:
                await self._poll(publisher)

    async def _poll(self, publisher: Publisher | None) -> None:
        while True:
            self._woken.clear()
            pause = POLL_EVERY_S
            try:
                while await self._announce_batch(publisher):
                    pass
            except (BrokerError, Problem) as error:  # the rows stay and are retried
                self._log_waiting(f"{type(error).__name__}: {error}")
                pause = RETRY_S
            except Exception:  # a bug: the rows stay, and auth goes on serving
                log.exception("Deleted owners could not be announced.")
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _announce_batch(self, publisher: Publisher | None) -> bool:
        """Publish the oldest rows; return whether there may be more."""
        columns = deleted_owners.c
        query = select(columns.owner_id, columns.deleted_at_ms).order_by(columns.deleted_at_ms).limit(BATCH_ROWS)
        async with self._database.connect() as connection:
            rows = [DeletedOwner(*row) for row in await connection.execute(query)]
        self._metrics.deletions_waiting.set(len(rows))
        if not rows:
            return False
        if publisher is None:
            self._log_waiting("BROKER_URL is not set")
            return False
        for owner in rows:
            await publisher.publish(owner.message(), OWNERS_EXCHANGE)
            await _mark_announced(self._database, owner)
            log.info("A deleted owner was announced.", user=owner.owner)
            self._outage_logged = False
        return True

    def _log_waiting(self, why: str) -> None:
        if not self._outage_logged:
            self._outage_logged = True
            log.warning("Deleted owners wait to be announced; their readings are erased later.", why=why)


async def _mark_announced(database: Database, owner: DeletedOwner) -> None:
    """Move an owner from the outbox to the announced owners."""
    row = {"owner_id": owner.owner, "deleted_at_ms": owner.deleted_at_ms}
    remove = delete(deleted_owners).where(deleted_owners.c.owner_id == owner.owner)
    try:
        async with database.begin() as connection:
            await connection.execute(insert(announced_owners).values(row))
            await connection.execute(remove)
    except IntegrityError:  # another replica has announced it too
        async with database.begin() as connection:
            await connection.execute(remove)


async def announce_again(
    database: Database, publisher: Publisher, since_ms: int | None, progress: Callable[[int], None]
) -> int:
    """Publish every deleted owner again, or those deleted since `since_ms`; return how many the broker confirmed.

    `progress` is called with the count so far. Raises BrokerError or Problem 503; owners published by then stay
    published, and repeating the call changes nothing. An id that has an account is skipped: it was not deleted.
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
    """Return a batch of deleted owners with an id above `after`, in the order of ids, announced or not."""
    parts = []
    for table in (announced_owners, deleted_owners):
        query = select(table.c.owner_id, table.c.deleted_at_ms).where(table.c.owner_id > after)
        query = query.where(table.c.owner_id.not_in(select(users.c.id)))
        parts.append(query if since_ms is None else query.where(table.c.deleted_at_ms >= since_ms))
    async with database.connect() as connection:
        rows = await connection.execute(union(*parts).order_by("owner_id").limit(BATCH_ROWS))
        return [DeletedOwner(*row) for row in rows]
