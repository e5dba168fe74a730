"""The persister's wiring: broker → batches → MongoDB, and dead letters back to the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from broker.connect import open_broker
from broker.interface import Broker
from broker.topology import READINGS
from persister.from_broker import FromBroker
from persister.metrics import PersisterMetrics
from persister.persist import Persister, Watch
from persister.series import KnownSeries
from persister.settings import PersisterSettings
from persister.to_dead_letters import ToDeadLetters
from persister.to_mongodb import ToMongoDB
from runtime.ops import Check, ops_server
from runtime.process import Shutdown


@asynccontextmanager
async def persister_service(
    settings: PersisterSettings, *, broker: Broker, registry: CollectorRegistry, watch: Watch | None = None
) -> AsyncIterator[dict[str, Check]]:
    """Store readings as long as the context lasts; leaving finishes the batch at hand. Gives the readiness checks."""
    async with (
        ToMongoDB.connected(
            settings.readings_url,
            settings.readings_database,
            clustered=settings.readings_clustered,
            timeout_s=settings.write_timeout_seconds,
        ) as store,
        broker.publisher() as publisher,
        broker.consumer(READINGS, prefetch=settings.prefetch) as consumer,
    ):
        source = FromBroker(
            consumer,
            batch_readings=settings.batch_readings,
            linger_s=settings.linger_ms / 1000,
            prefetch=settings.prefetch,
        )
        persister = Persister(
            source,
            store,
            ToDeadLetters(publisher),
            known=KnownSeries(settings.known_series),
            metrics=PersisterMetrics(registry),
            watch=watch,
        )
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(persister.run(stop), name="persister")
            try:
                yield {"broker": consumer.check, "mongodb": store.check}
            finally:
                stop.set()


async def serve(settings: PersisterSettings, shutdown: Shutdown) -> None:
    """Run a persister as a process of its own."""
    registry = CollectorRegistry()
    async with (
        open_broker(settings.broker_url) as broker,
        persister_service(settings, broker=broker, registry=registry) as checks,
        ops_server(settings, shutdown, registry, checks),
    ):
        await shutdown.wait()
