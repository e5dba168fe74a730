"""The persister's wiring: broker → batches → MongoDB, and dead letters back to the broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prometheus_client import CollectorRegistry

from broker.connect import open_broker
from broker.interface import Broker
from broker.topology import LIVE_EXCHANGE
from persister.holding import Holding
from persister.metrics import PersisterMetrics
from persister.persist import Persister, Watch
from persister.series import KnownSeries
from persister.settings import PersisterSettings
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB
from persister.worker import Worker
from runtime.ops import Check, ops_server
from runtime.process import Shutdown


@asynccontextmanager
async def persister_service(
    settings: PersisterSettings, *, broker: Broker, registry: CollectorRegistry, watch: Watch | None = None
) -> AsyncIterator[dict[str, Check]]:
    """Store readings as long as the context lasts; leaving finishes the batches at hand. Gives the readiness checks."""
    metrics = PersisterMetrics(registry)
    stop = asyncio.Event()
    async with (
        ToMongoDB.connected(
            settings.readings_url,
            settings.readings_database,
            clustered=settings.readings_clustered,
            timeout_s=settings.write_timeout_seconds,
        ) as store,
        broker.publisher() as publisher,
        broker.announcer(LIVE_EXCHANGE) as announcer,
        ToLive(announcer).announced() as live,
    ):
        make = partial(
            Persister,
            store=store,
            dead_letters=ToDeadLetters(publisher),
            live=live,
            holding=Holding(stop, metrics, hold_s=settings.hold_seconds),
            known=KnownSeries(settings.known_series),
            metrics=metrics,
            batch_readings=settings.batch_readings,
            writes_in_flight=settings.writes_in_flight,
            watch=watch,
        )
        worker = Worker(broker, make, metrics, prefetch=settings.prefetch, stuck_after_s=settings.stuck_seconds)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run(stop), name="worker")
            try:
                yield {"broker": worker.check, "mongodb": store.check}
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
