"""What it costs to erase an owner: readings in blocks, and in the earlier version documents, by a running persister."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.history_blocks import BlockWriter, opened
from bench.history_comparison import Comparison
from bench.history_series import OWNER, insert, interleaved, sensors
from bench.history_setup import HistorySetup
from bench.history_sizes import ZSTD
from bench.processes import BenchError
from bench.report import progress
from bench.systems import SharedServers
from bench.targets import MAX_ERASURE_RATIO
from bench.versions import NOW, Version
from broker.deleted_owner import DeletedOwner
from persister.collections import TOMBSTONES
from persister.maintenance.store import MaintenanceStore
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from storage.places.names import BLOCKS, COLUMNS, PIECES
from storage.places.state import STATE

IDLE_S = 1.0
IDLE_INTERVALS = 3
POLL_S = 0.02
TIMEOUT_S = 300.0
SERIES_PER_WRITE = 50
BLOCK_READINGS = 8192


@dataclass(frozen=True)
class ErasureEffort:
    """Series of the owner, their readings in blocks, and those in documents of the earlier version."""

    series: int
    in_blocks: int
    documents: int


def measure_erasure(setup: HistorySetup, servers: SharedServers, effort: ErasureEffort) -> list[Comparison]:
    """Erase an owner in both versions; the ratio is that of processor time a reading."""
    database = "erasure_now"
    written = asyncio.run(_write_blocks(setup, database, effort))
    now_us = _erase(setup, servers, NOW, database, written)
    before_us = None
    if setup.base is not None:
        database = "erasure_before"
        collection = servers.client[database].create_collection(READINGS, **ZSTD)
        columns = [one.next(effort.documents // effort.series) for one in sensors(effort.series, step_ms=1000)]
        stored = insert(collection, interleaved(columns))
        before_us = _erase(setup, servers, setup.base, database, stored)
    what = f"erase an owner of {written:,} readings in blocks, all processes"
    return [Comparison(what, "µs a reading", now_us, before_us, MAX_ERASURE_RATIO)]


async def _write_blocks(setup: HistorySetup, database: str, effort: ErasureEffort) -> int:
    written, parts = 0, sensors(effort.series, step_ms=1000)
    async with opened(setup.mongodb.url, database) as asynchronous:
        writer = BlockWriter(asynchronous)
        await writer.prepare()
        for start in range(0, len(parts), SERIES_PER_WRITE):
            some = parts[start : start + SERIES_PER_WRITE]
            for count in _counts(effort.in_blocks // effort.series):
                written += await writer.write((one.key, one.next(count)) for one in some)
    return written


def _counts(count: int) -> Iterator[int]:
    for start in range(0, count, BLOCK_READINGS):
        yield min(BLOCK_READINGS, count - start)


def _erase(setup: HistorySetup, servers: SharedServers, version: Version, database: str, readings: int) -> float:
    """Announce that the owner was deleted, and return the µs of persister and mongod a reading until all is gone."""
    settings = setup.settings(version, database)
    log = setup.environment.folder / f"erasure-{version.name}.log"
    with version.running("persister", log=log, settings=settings) as persister:
        servers.checkpoint()

        def used_s() -> float:
            return persister.cpu_s() + servers.cpu_s()["mongod"]

        idle, before, started = min(_idle_share(used_s)), used_s(), time.perf_counter()
        if version is NOW:
            asyncio.run(_announce(setup, database))
        else:
            now = datetime.now(UTC)
            tombstone = {"_id": OWNER, "deletedAt": now, "notedAt": now, "sweeps": 0, "nextSweepAt": now}
            servers.client[database][TOMBSTONES].insert_one(tombstone)
        deadline = time.monotonic() + TIMEOUT_S
        while _left(servers.client[database]):
            persister.require_running()
            if time.monotonic() > deadline:
                raise BenchError(f"an owner is not erased after {TIMEOUT_S:.0f} s\n{persister.log_tail()}")
            time.sleep(POLL_S)
        servers.checkpoint()
        passed = time.perf_counter() - started
        used = max(0.0, used_s() - before - idle * passed)
    servers.client.drop_database(database)
    progress(f"  {version.name}: {readings:,} readings are erased in {passed:.1f} s, {used:.2f} s of processor time")
    return used / readings * 1e6


def _idle_share(used_s: Callable[[], float]) -> Iterator[float]:
    """Yield the share of a core that is used in each of some intervals; a start that goes on is in the first ones."""
    for _ in range(IDLE_INTERVALS):
        before = used_s()
        time.sleep(IDLE_S)
        yield (used_s() - before) / IDLE_S


async def _announce(setup: HistorySetup, database: str) -> None:
    async with opened(setup.mongodb.url, database) as asynchronous:
        store = MaintenanceStore(asynchronous)
        await store.write_tombstone(DeletedOwner(OWNER, int(time.time() * 1000)))


def _left(database: Any) -> bool:
    """Return whether any document with readings is left."""
    database = database.with_options(codec_options=AS_MILLISECONDS)  # first blocks begin before any datetime
    if database[BLOCKS].find_one({"_id": {"$ne": STATE}}, {"_id": 1}) is not None:
        return True
    return any(database[name].find_one({}, {"_id": 1}) is not None for name in (READINGS, PIECES, COLUMNS))
