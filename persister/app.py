"""The persister's wiring: broker → batches → MongoDB, and dead letters back to the broker."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from broker.connect import open_broker
from broker.interface import Broker
from broker.topology import DEAD_EXCHANGE, LIVE_EXCHANGE
from persister.known_series import KnownSeries
from persister.maintenance.database_identity import Identity
from persister.maintenance.database_state import Learned
from persister.maintenance.deleted_owners import DeletedOwners
from persister.maintenance.erasure import Erasure
from persister.maintenance.retention import keep_to
from persister.maintenance.series_index import keep_series_index
from persister.maintenance.store import Upkeep
from persister.metrics import PersisterMetrics
from persister.persister import Persister, Watch
from persister.requeues import Requeues
from persister.retry import GivenUpError, Holding
from persister.settings import PersisterSettings
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB
from persister.watchdog import tell_depth
from persister.worker import Worker
from runtime.background import background
from runtime.http.ops import Check, ops_server
from runtime.process import Shutdown, freeze_startup_objects
from runtime.tracing import Tracing, open_tracing


@asynccontextmanager
async def persister_service(
    settings: PersisterSettings,
    *,
    broker: Broker,
    registry: CollectorRegistry,
    watch: Watch | None = None,
    tracing: Tracing | None = None,
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
        broker.publisher(DEAD_EXCHANGE) as publisher,
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        ToLive(broadcaster).announced() as live,
    ):
        known = KnownSeries(settings.known_series)
        deleted = DeletedOwners(known)
        dead_letters = ToDeadLetters(publisher)
        holding = Holding(stop, metrics, hold_s=settings.hold_seconds)
        requeues = Requeues(store.database)
        upkeep = Upkeep(store.database)
        learned = Learned(store, upkeep, Identity(store.database), known, deleted)
        store.guarded_by(learned)
        erasure = Erasure(upkeep, learned, dead_letters, holding, metrics, hold_s=settings.hold_seconds)
        make = partial(
            Persister,
            store=store,
            dead_letters=dead_letters,
            live=live,
            holding=holding,
            known=known,
            deleted=deleted,
            requeues=requeues,
            metrics=metrics,
            batch_readings=settings.batch_readings,
            linger_ms=settings.linger_ms,
            prefetch=settings.prefetch,
            writes_in_flight=settings.writes_in_flight,
            watch=watch,
            tracing=tracing,
        )
        worker = Worker(
            broker,
            make,
            metrics,
            requeues=requeues,
            holding=holding,
            prefetch=settings.prefetch,
            stuck_after_s=settings.stuck_seconds,
        )
        async with asyncio.TaskGroup() as tasks:
            retaining = keep_to(settings.retention(), upkeep, metrics)
            indexing = keep_series_index(upkeep)
            tasks.create_task(_work(worker, erasure, (retaining, indexing), broker, metrics, stop))
            try:
                yield {"broker": worker.check, "mongodb": store.check}
            finally:
                stop.set()


async def _work(
    worker: Worker,
    erasure: Erasure,
    chores: tuple[Coroutine[Any, Any, None], ...],
    broker: Broker,
    metrics: PersisterMetrics,
    stop: asyncio.Event,
) -> None:
    """Store readings and look after what is stored, until `stop`."""
    upkeep = (erasure.take_deletions(broker), erasure.keep_up(), erasure.sweep_what_is_due(), *chores)
    async with background(*upkeep, name="upkeep"):
        with suppress(GivenUpError):
            async with background(tell_depth(broker, metrics), name="depth"):
                await erasure.first_look()
            await worker.run(stop)


async def serve(settings: PersisterSettings, shutdown: Shutdown) -> None:
    """Run a persister as a process of its own."""
    registry = CollectorRegistry()
    async with (
        open_tracing("persister") as tracing,
        open_broker(settings.broker_url) as broker,
        persister_service(settings, broker=broker, registry=registry, tracing=tracing) as checks,
        ops_server(settings, shutdown, registry, checks),
    ):
        freeze_startup_objects()
        await shutdown.wait()
