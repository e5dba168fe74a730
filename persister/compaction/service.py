"""The process `python -m persister compact`: compacts what waits, until it is stopped. Several share the work by lease.

A stop ends within the time of one batch, with the position saved; while MongoDB is away, within some seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pymongo
from prometheus_client import CollectorRegistry
from pymongo.errors import PyMongoError

from persister.compaction.compactor import CompactionError, Compactor
from persister.compaction.lease import LeaseLostError, UnsealingError
from persister.compaction.metrics import CompactorMetrics
from persister.mongodb_errors import WriteFailed, error_text
from persister.settings import CompactSettings
from runtime.allocator import trim_heap
from runtime.background import background
from runtime.http.ops import Check, ops_server
from runtime.log_throttle import LogThrottle
from runtime.logs import logger
from runtime.mongodb import mongodb_client
from runtime.process import Shutdown, freeze_startup_objects

log = logger("persister.compaction")

POLL_EVERY_S = 2.0
METRICS_EVERY_S = 5.0
# For one call outside of a batch, whose time is that of the lease.
TIMEOUT_S = 20.0
RELEASE_TIMEOUT_S = 2.0
UNSEALING_LOGGED_EVERY_S = 600.0


@asynccontextmanager
async def compactor_service(settings: CompactSettings, registry: CollectorRegistry) -> AsyncIterator[dict[str, Check]]:
    """Compact while the context lasts; leaving it saves the position. Yields readiness checks."""
    metrics = CompactorMetrics(registry)
    stop = asyncio.Event()
    async with mongodb_client(settings.readings_url, name="tidegate compactor", timeout_s=TIMEOUT_S) as client:
        compactor = Compactor(client[settings.readings_database], metrics, cores=settings.compact_cores)

        async def mongodb() -> None:
            await client.admin.command("ping")

        async def sealed() -> None:
            failed = [str(one.number) for one in await compactor.lease.read() if one.is_given_up]
            if failed:
                raise RuntimeError(f"could not be compacted, and stay readable where they are: {', '.join(failed)}")

        async with background(_refresh(compactor), name="metrics"), asyncio.TaskGroup() as tasks:
            tasks.create_task(run(compactor, stop), name="compaction")
            try:
                yield {"mongodb": mongodb, "sealed collections": sealed}
            finally:
                stop.set()


async def run(compactor: Compactor, stop: asyncio.Event) -> None:
    """Compact what waits, until `stop`."""
    unsealing = LogThrottle(UNSEALING_LOGGED_EVERY_S)
    try:
        while not stop.is_set():
            if not await _attempt(compactor, stop, unsealing):
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_EVERY_S):
                        await stop.wait()
    finally:
        await release(compactor)


async def _attempt(compactor: Compactor, stop: asyncio.Event, unsealing: LogThrottle) -> bool:
    """Compact one sealed collection; return whether there may be another one to do at once."""
    try:
        await compactor.cut_expired(stop)
        if await compactor.compact_next(stop) is not None:
            trim_heap()
            return True
        await compactor.lease.release()  # so that another process need not wait when there is one
    except UnsealingError:
        if unsealing.should_emit() is not None:
            log.warning(
                "Nothing is sealed or compacted: `persister unseal` is not done. If it has ended, run it again."
            )
    except LeaseLostError:
        pass
    except CompactionError as failed:
        await record_failure(compactor, failed)
    except (PyMongoError, WriteFailed) as error:
        log.warning("Compaction was interrupted; trying again.", error=error_text(error))
    return False


async def record_failure(compactor: Compactor, failed: CompactionError) -> None:
    """Count a failure of a sealed collection; after the third it is left where it is."""
    log.error("A sealed collection could not be compacted.", number=failed.number, why=str(failed), exc_info=failed)
    with suppress(PyMongoError, LeaseLostError):
        if await compactor.record_failure(failed.number):
            log.error(
                "It has failed three times and stays where it is, readable; the next one is compacted.",
                number=failed.number,
            )


async def release(compactor: Compactor) -> None:
    """Give the lease up, if MongoDB answers soon."""
    with suppress(PyMongoError), pymongo.timeout(RELEASE_TIMEOUT_S):
        await compactor.lease.release()


async def _refresh(compactor: Compactor) -> None:
    while True:
        with suppress(PyMongoError), pymongo.timeout(METRICS_EVERY_S):
            await compactor.refresh_metrics()
        await asyncio.sleep(METRICS_EVERY_S)


async def serve_compactor(settings: CompactSettings, shutdown: Shutdown) -> None:
    """Run a compactor as a process of its own."""
    registry = CollectorRegistry()
    async with (
        compactor_service(settings, registry) as checks,
        ops_server(settings, shutdown, registry, checks),
    ):
        freeze_startup_objects()
        await shutdown.wait()


SealNow = Callable[[], Awaitable[bool]]
"""Seals `readings` whatever its size, unless it is empty; False if another process or what waits prevents it so far."""

Report = Callable[[str], None]
