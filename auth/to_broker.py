"""DELETED OWNERS → BROKER: an outbox. The row was written with the deletion; it goes when the broker has confirmed.

Where the process can die: before the confirm the row is there and is published by the next one that looks; between
confirm and removal it is published twice, which changes nothing. While the broker is away, rows wait and `auth` serves.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import delete, select

from auth.database import Database
from auth.tables import deleted_owners
from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, BrokerError, Publisher
from broker.topology import OWNERS_EXCHANGE
from runtime.logs import logger
from runtime.problems import Problem

log = logger("auth.to_broker")

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
            async with self._database.writing() as connection:
                await connection.execute(delete(deleted_owners).where(columns.owner_id == owner.owner))
            log.info("A deleted owner was announced.", user=owner.owner)
            self._told = False
        return True

    def _tell(self, why: str) -> None:
        if not self._told:  # once an outage
            self._told = True
            log.warning("Deleted owners wait to be announced; their readings are erased later.", why=why)
