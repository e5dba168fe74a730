"""Compacts one sealed collection after the other, lowest number first, under a lease.

Each step may be repeated: a sealed collection gains nothing, what was written of it is recognized by its seal number,
and its number leaves the list only when the collection is gone. The lease saves work; what keeps readings is the order
of writes and the compare-and-swap of heads (persister/compaction/blocks.py).
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pymongo
from bson.errors import BSONError
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from broker.failpoints import Point, failpoint
from persister.collections import SAFE, ZSTD, create_if_missing, drop_if_same, uuid_of
from persister.compaction.batch import BatchWriter, Counts
from persister.compaction.blocks import Blocks, Step
from persister.compaction.expired import Expired, ExpiredRounds
from persister.compaction.garbage import Garbage
from persister.compaction.heads import ChangedError, Heads
from persister.compaction.lease import LEASE_S, Lease, Progress, Waiting
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.pieces import Pieces
from persister.compaction.scan import SealedScan
from persister.compaction.throttle import Throttle
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import NAMESPACE_NOT_FOUND, error_text, is_outage_of
from readings.document import AS_MILLISECONDS, DocumentError
from readings.filters import of_owner
from runtime.logs import logger
from storage.codec.packed import BlockError, BlockTooLarge
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from storage.places.sessions import CausalReads

log = logger("persister.compaction")

SAVE_EVERY_S = 1.0
# Longer than any rename takes: only after this time is a number without a collection taken off the list.
MISSING_MS = 600_000
# Columns are compressed already.
_PLAIN = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=none"}}}
_OPTIONS = {BLOCKS: ZSTD, PIECES: ZSTD, COLUMNS: _PLAIN}

# Of the collection itself: errors of MongoDB are tried again without end.
_FAILURES = (
    ChangedError,
    BlockError,
    BlockTooLarge,
    DocumentError,
    BSONError,
    ValueError,
    LookupError,
    OperationFailure,
)


class CompactionError(Exception):
    """A sealed collection could not be compacted; the cause is what went wrong."""

    def __init__(self, number: int, error: Exception) -> None:
        super().__init__(error_text(error))
        self.number = number


async def pass_failpoint(point: Point) -> None:
    """End the process if the failpoint is armed."""
    failpoint(point)


class Compactor:
    """Compacts the sealed collections of one database. Methods raise the driver's errors unless they say otherwise."""

    def __init__(self, database: Any, metrics: CompactorMetrics, *, cores: float, step: Step = pass_failpoint) -> None:
        self._database = database
        self._metrics = metrics
        self._step = step
        self._throttle = Throttle(cores)
        options = {"codec_options": AS_MILLISECONDS, "write_concern": SAFE, "read_concern": ReadConcern("majority")}
        self._options = options
        # What was acknowledged before it took the lease, and what it has read since, is in whatever it reads later.
        self._reads = CausalReads(database.client)
        heads, columns, pieces = (
            self._reads.of(database.get_collection(name, **options)) for name in (BLOCKS, COLUMNS, PIECES)
        )
        self._collections = (pieces, heads, columns)
        self.lease = Lease(database)
        self.totals = Counts()
        self._maintenance = MaintenanceStore(database)
        self._heads = Heads(heads)
        blocks = Blocks(heads, columns, self._guarded)
        self._garbage = Garbage(heads, columns, blocks, self._heads)
        self._writer = BatchWriter(blocks, self._heads, Pieces(pieces), self._garbage, self._guarded, self._time_left)
        expired = Expired(heads, pieces, blocks, self._paced)
        self._rounds = ExpiredRounds(heads, expired, self._maintenance, metrics)

    async def _guarded(self, point: Point) -> None:
        """Pass a failpoint, then refuse to go on without the lease."""
        await self._step(point)
        self.lease.left_s  # noqa: B018 - raises

    async def _time_left(self) -> float:
        """Return how many seconds of the lease are left, at least half of it."""
        if self.lease.left_s < LEASE_S / 2:
            await self.lease.renew()
        return self.lease.left_s

    async def cut_expired(self, stop: asyncio.Event) -> int:
        """Cut readings past their retention, if that is due; return how many. LeaseLostError as `compact_next`."""
        if not self._rounds.may_be_due or not await self.lease.acquire(session=await self._reads.begin()):
            return 0
        if self.lease.is_unclean:
            await self.remove_garbage()
        self.lease.is_dirty = True
        self._throttle.start()
        cut = await self._rounds.step(stop)
        self.lease.is_dirty = False
        return cut

    async def compact_next(self, stop: asyncio.Event) -> Waiting | None:
        """Compact the lowest one that waits and is not given up, until it is dropped or `stop`; None if there is none.

        LeaseLostError, also while another process has the lease; CompactionError for what is wrong with the collection
        itself.
        """
        if not await self.lease.acquire(session=await self._reads.begin()):
            return None
        for waiting in self.lease.waiting:
            if waiting.is_given_up:
                continue
            uuid = await uuid_of(self._database, sealed_name(waiting.number), self._reads.session)
            if uuid is not None:
                await self._compact_or_fail(waiting, uuid, stop)
                return waiting
            await self._remove_missing(waiting)
        return None

    async def _remove_missing(self, waiting: Waiting) -> None:
        """Take a number off the list whose collection is gone, not one whose collection is just being renamed."""
        if self.lease.was_begun(waiting.number):
            await self.lease.remove(waiting.number)
        elif await self.lease.server_ms() - waiting.sealed_ms > MISSING_MS:
            await self.lease.remove(waiting.number)
            log.warning("A sealed collection does not exist; its number is off the list.", number=waiting.number)

    async def _compact_or_fail(self, waiting: Waiting, uuid: Any, stop: asyncio.Event) -> None:
        self.lease.is_dirty = True
        try:
            await self._compact(waiting, uuid, stop)
        except _FAILURES as error:
            if is_outage_of(error):
                raise
            raise CompactionError(waiting.number, error) from error
        self.lease.is_dirty = False

    async def _compact(self, waiting: Waiting, uuid: Any, stop: asyncio.Event) -> None:
        progress = await self._begin(waiting.number, uuid)
        owners, _ = await self._maintenance.all_deleted()
        deleted = frozenset(owners)
        collection = self._database.get_collection(sealed_name(waiting.number), **self._options)
        scan = SealedScan(collection, waiting.number, progress.done, self._reads.session)
        saved_at = time.monotonic()
        while not stop.is_set():
            self._throttle.start()
            with pymongo.timeout(self.lease.left_s):
                chunks = await scan.next_batch()
                if not chunks:
                    break
            kept = [chunk for chunk in chunks if chunk.key["owner"] not in deleted]
            counts = await self._writer.write(kept) if kept else Counts()
            self._count(counts)
            progress = Progress(
                progress.number, uuid, chunks[-1].last, progress.repeats + counts.repeats, progress.deletions
            )
            if time.monotonic() - saved_at >= SAVE_EVERY_S:
                await self._save(progress)
                saved_at = time.monotonic()
            await self._pause(self._throttle.pause_s(), stop)
        await self._save(progress)
        if not stop.is_set():
            await self._finish(progress)

    async def _paced(self) -> None:
        """Keep to the share of the machine, and the lease."""
        await self._pause(self._throttle.pause_s(), asyncio.Event())
        self._throttle.start()
        await self._time_left()

    async def _pause(self, seconds: float, stop: asyncio.Event) -> None:
        """Sleep, but not longer than until `stop`, and keep the lease."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LEASE_S / 3)):
                    await stop.wait()
            if left_s > LEASE_S / 3:
                await self.lease.renew()

    async def _begin(self, number: int, uuid: Any) -> Progress:
        for name, options in _OPTIONS.items():
            await create_if_missing(self._database, name, **options)
        progress = self.lease.progress_of(number, uuid)
        if progress is None:
            _, deletions = await self._maintenance.all_deleted()
            progress = Progress(number, uuid, deletions=deletions)
            await self.lease.save(progress)
        await self.lease.mark_blocks()
        await self._step("compactor.begun")
        return progress

    async def _save(self, progress: Progress) -> None:
        await self._step("compactor.before_save")
        await self.lease.save(progress)
        await self._step("compactor.saved")

    def _count(self, counts: Counts) -> None:
        self.totals.add(counts)
        metrics = self._metrics
        metrics.readings.inc(counts.readings)
        metrics.written_bytes.inc(counts.bytes)
        metrics.blocks.inc(counts.blocks)
        metrics.pieces.inc(counts.pieces)

    async def _finish(self, progress: Progress) -> None:
        """Drop a collection whose readings are all in their places, and take it off the list."""
        if self.lease.is_unclean:
            await self.remove_garbage()
        # Whose deletion was announced after the compaction began, and may have been written since.
        owners, _ = await self._maintenance.deleted_after(progress.deletions)
        for owner in owners:
            for collection in self._collections:
                await self.lease.renew()
                await collection.delete_many(of_owner(owner))
        await self.lease.renew()
        await self._check_end(progress)
        await self._step("compactor.before_drop")
        with pymongo.timeout(self.lease.left_s):
            name = sealed_name(progress.number)
            await drop_if_same(self._database, name, progress.uuid)
            if await uuid_of(self._database, name) is not None:
                return
        await self._step("compactor.dropped")
        await self.lease.remove(progress.number)
        self._metrics.repeats.inc(progress.repeats)
        self._metrics.dropped.inc()
        log.info("A sealed collection is compacted.", number=progress.number, repeats=progress.repeats)

    async def _check_end(self, progress: Progress) -> None:
        """Make sure that nothing comes after the last reading that was read, with another read concern."""
        collection = self._database[sealed_name(progress.number)]
        query = {} if progress.done is None else {"_id": {"$gt": progress.done}}
        if await collection.find_one(query, {"_id": 1}, sort=[("_id", 1)]) is not None:
            raise LookupError("there are readings that were not found before")

    async def record_failure(self, number: int) -> bool:
        """Count a failure; return whether the collection is given up now. LeaseLostError."""
        self._metrics.failures.inc()
        return await self.lease.record_failure(number)

    async def refresh_metrics(self) -> None:
        """Set the gauges, with or without the lease."""
        waiting = await self.lease.read()
        metrics = self._metrics
        metrics.waiting.set(sum(not one.is_given_up for one in waiting))
        metrics.given_up.set(sum(one.is_given_up for one in waiting))
        oldest = await self.lease.server_ms() - waiting[0].sealed_ms if waiting else 0
        metrics.oldest_seconds.set(max(0.0, oldest / 1000))
        sizes = [await self._bytes(sealed_name(one.number)) for one in waiting]
        metrics.sealed_bytes.set(sum(sizes))

    async def _bytes(self, name: str) -> int:
        stages = [{"$collStats": {"storageStats": {}}}, {"$project": {"size": "$storageStats.totalSize"}}]
        try:
            cursor = self._database[name].aggregate(stages)
            return sum([int(found.get("size", 0)) async for found in cursor])
        except OperationFailure as error:
            if error.code == NAMESPACE_NOT_FOUND:
                return 0
            raise

    async def remove_garbage(self) -> int:
        """Remove what processes left that ended in the middle of a change; return how many documents were deleted."""
        removed = 0
        async for some in self._garbage.series():
            await self.lease.renew()
            for series in some:
                await self.lease.renew()
                try:
                    removed += await self._garbage.remove(series)
                except ChangedError:
                    continue  # someone is changing it; there will be another time
                except BlockError as error:  # the other series go on
                    log.error("The heads of a series cannot be read.", series=series, why=error_text(error))
        await self.lease.cleaned()
        if removed:
            log.info("What an ended compactor left is removed.", documents=removed)
        return removed
