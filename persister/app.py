"""The persister's wiring: broker → lanes → batches → MongoDB, and dead letters back to the broker."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from broker.connect import open_broker
from broker.interface import Broker, BrokerRefused
from broker.topology import ALARMS_EXCHANGE, DEAD_EXCHANGE, LIVE_EXCHANGE, STORED_EXCHANGE
from persister.dead_letters import ToDeadLetters
from persister.known_series import KnownSeries
from persister.lanes import lanes_of
from persister.maintenance.database_identity import DatabaseIdentity
from persister.maintenance.database_state import DatabaseState
from persister.maintenance.deleted_owners import DeletedOwners
from persister.maintenance.erasure import Erasure
from persister.maintenance.retention import enforce
from persister.maintenance.series_index import maintain_series_index
from persister.maintenance.store import MaintenanceStore
from persister.metrics import PersisterMetrics
from persister.persister import OnSettled, Persister
from persister.requeues import Requeues
from persister.retry import Retrier
from persister.sealing.sealer import Sealer
from persister.sealing.state_document import StateDocument
from persister.settings import PersisterSettings
from persister.to_alarms import ToAlarms
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB
from persister.to_receipts import ToReceipts
from persister.watchdog import report_depth
from persister.watched import FetchWatched, WatchedSeries, fetch_watched_over_http
from persister.worker import Worker
from runtime.background import background
from runtime.http.ops import Check, ops_server
from runtime.process import Shutdown, freeze_startup_objects
from runtime.tracing import Tracing, open_tracing
from runtime.waiting import StoppedError


@asynccontextmanager
async def persister_service(
    settings: PersisterSettings,
    *,
    broker: Broker,
    registry: CollectorRegistry,
    on_settled: OnSettled | None = None,
    tracing: Tracing | None = None,
    fetch_watched: FetchWatched | None = None,
) -> AsyncIterator[dict[str, Check]]:
    """Store readings while the context lasts; leaving it finishes the batches in progress. Yields readiness checks.

    Without `fetch_watched`, nothing is announced to alarms.
    """
    metrics = PersisterMetrics(registry)
    stop = asyncio.Event()
    async with (
        ToMongoDB.connected(
            settings.readings_url,
            settings.readings_database,
            clustered=settings.readings_clustered,
            timeout_s=settings.write_timeout_seconds,
            sealing=settings.sealing == "on",
        ) as store,
        broker.publisher(DEAD_EXCHANGE) as publisher,
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        ToLive(broadcaster).broadcasting() as live,
        broker.broadcaster(STORED_EXCHANGE) as to_gateways,
        ToReceipts(to_gateways).broadcasting() as receipts,
        _to_alarms(broker, fetch_watched, metrics) as alarms,
        broker.inspector() as inspector,
    ):
        known = KnownSeries(settings.known_series)
        deleted = DeletedOwners(known)
        dead_letters = ToDeadLetters(publisher)
        retrier = Retrier(stop, metrics, hold_s=settings.hold_seconds)
        requeues = Requeues(store.database)
        maintenance = MaintenanceStore(store.database)
        state = DatabaseState(store, maintenance, DatabaseIdentity(store.database), known, deleted)
        store.set_guard(state)
        erasure = Erasure(maintenance, state, dead_letters, retrier, metrics, hold_s=settings.hold_seconds)
        lanes = lanes_of(metrics)
        make = partial(
            Persister,
            store=store,
            dead_letters=dead_letters,
            live=live,
            receipts=receipts,
            alarms=alarms,
            retrier=retrier,
            known=known,
            deleted=deleted,
            requeues=requeues,
            metrics=metrics,
            batch_readings=settings.batch_readings,
            linger_ms=settings.linger_ms,
            prefetch=settings.prefetch,
            writes_in_flight=settings.writes_in_flight,
            on_settled=on_settled,
            tracing=tracing,
        )
        workers = [
            Worker(
                broker,
                partial(make, lane=lane),
                lane,
                inspector=inspector,
                requeues=requeues,
                retrier=retrier,
                prefetch=settings.prefetch,
                stuck_after_s=settings.stuck_seconds,
            )
            for lane in lanes
        ]
        async with asyncio.TaskGroup() as tasks:
            retaining = enforce(settings.retention(), maintenance, StateDocument(store.database), metrics)
            jobs = [retaining, maintain_series_index(maintenance)]
            if settings.sealing == "on":
                jobs.append(sealer_of(settings, store, metrics).run())
            tasks.create_task(_run(workers, broker, erasure, jobs, report_depth(inspector, *lanes), stop))
            try:
                yield {"broker": partial(_check, workers), "mongodb": store.check}
            finally:
                stop.set()


@asynccontextmanager
async def _to_alarms(
    broker: Broker, fetch_watched: FetchWatched | None, metrics: PersisterMetrics
) -> AsyncIterator[ToAlarms | None]:
    if fetch_watched is None:
        yield None
        return
    watched = WatchedSeries(fetch_watched)
    async with broker.publisher(ALARMS_EXCHANGE) as publisher, background(watched.follow(), name="watched"):
        yield ToAlarms(publisher, watched, metrics)


async def _check(workers: Sequence[Worker]) -> None:
    """Raise while nothing can be delivered. The backfill may be refused: by rights of an earlier release it is."""
    live, backfill = workers
    await live.check()
    with suppress(BrokerRefused):
        await backfill.check()


async def _run(
    workers: Sequence[Worker],
    broker: Broker,
    erasure: Erasure,
    jobs: Sequence[Coroutine[Any, Any, None]],
    reporting: Coroutine[Any, Any, None],
    stop: asyncio.Event,
) -> None:
    """Store readings until `stop`, with maintenance in the background."""
    maintenance = (erasure.consume_deletions(broker), erasure.follow(), erasure.sweep(), *jobs)
    async with background(*maintenance, name="maintenance"):
        with suppress(StoppedError):
            async with background(reporting, name="depth"):
                await erasure.load()
            async with asyncio.TaskGroup() as tasks:
                for worker in workers:
                    tasks.create_task(worker.run(stop), name="lane")


def sealer_of(settings: PersisterSettings, store: ToMongoDB, metrics: PersisterMetrics) -> Sealer:
    """Return what seals the readings of a database by these settings."""
    return Sealer(
        store.database,
        clustered=settings.readings_clustered,
        seal_readings=settings.seal_readings,
        seal_seconds=settings.seal_seconds,
        metrics=metrics.sealing,
    )


async def serve(settings: PersisterSettings, shutdown: Shutdown) -> None:
    """Run a persister as a process of its own."""
    registry = CollectorRegistry()
    async with (
        open_tracing("persister") as tracing,
        open_broker(settings.broker_url) as broker,
        _fetching_watched(settings.alarms_url) as fetch_watched,
        persister_service(
            settings, broker=broker, registry=registry, tracing=tracing, fetch_watched=fetch_watched
        ) as checks,
        ops_server(settings, shutdown, registry, checks),
    ):
        freeze_startup_objects()
        await shutdown.wait()


@asynccontextmanager
async def _fetching_watched(alarms_url: str) -> AsyncIterator[FetchWatched | None]:
    if not alarms_url:
        yield None
        return
    async with aiohttp.ClientSession() as session:
        yield fetch_watched_over_http(session, alarms_url)
