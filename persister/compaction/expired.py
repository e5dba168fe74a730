"""Cuts readings past their retention off the blocks and pieces that have newer ones, too.

Retention itself (persister/maintenance/removal.py) deletes whole blocks and pieces. One of a series with a reading a
day may last for years, though, and what readers no longer show would stay as long. So it is cut when half of the time
between its first and its last reading is past, and again when half of the rest is: evenly spread readings are written
about once more, and none stays much longer than twice its retention.

What is cut is gone, so the limit has to be one that a persister has confirmed a short time ago: the state of a restored
copy, or of before a change of the settings, may have another one.

Blocks are changed as a compaction changes them, under its lease. A piece is replaced in place, by one with the same
last reading.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from pymongo.errors import OperationFailure

from persister.compaction.blocks import Blocks, replaced
from persister.compaction.heads import HeadInfo, head_info
from persister.compaction.metrics import CompactorMetrics
from persister.maintenance.retention import PAUSE_FACTOR
from persister.maintenance.store import LEASE, MaintenanceStore
from persister.mongodb_errors import error_text, is_outage_of
from persister.sealing.state_document import CONFIRM_EVERY_S, CONFIRMED_AT
from readings.document import DocumentError, date_ms, position_in
from readings.filters import in_time_range
from readings.keys import Key
from runtime.logs import logger
from runtime.times import now_ms
from storage.codec.columns import Columns
from storage.codec.decode import decode
from storage.codec.packed import BlockError, BlockTooLarge
from storage.places.documents import piece_columns, piece_document, series_name, series_of
from storage.places.names import BEGINNING
from storage.places.pieces import of_pieces
from storage.places.state import STATE, State, state_of
from storage.places.window import position_index

log = logger("persister.compaction")

JOB = "expired"
LOOK_EVERY_S = 60.0
# Retentions are days. A round asks twice for each series, some 3 ms: of a million series 50 minutes. The pause
# after a round grows with it, as that of retention does.
ROUND_EVERY_S = 3600.0
# Then it is compaction's turn again.
STEP_S = 5.0
SERIES_PER_QUERY = 100
# Persisters confirm the retention every ten minutes.
CONFIRMED_MS = 2 * CONFIRM_EVERY_S * 1000
PART = 0.5
_HEAD = {"first": 1, "last": 1, "until": 1, "edit": 1, "columns": 1, "count": 1, "pending": 1}
_PIECE = {"first": 1, "last": 1}
# Of one series: the others are not held up by it.
_FAILURES = (BlockError, BlockTooLarge, DocumentError, BSONError, OperationFailure, ValueError, LookupError, TypeError)

Guard = Callable[[], Awaitable[None]]
"""Waits until the next change may be made; raises if there is no lease any more."""


class Expired:
    """What is past its retention in the blocks and pieces of one database; only for the holder of the lease.

    Every method raises the driver's errors, WriteFailed, BlockError for what is damaged, and what the guard raises.
    """

    def __init__(self, heads: Any, pieces: Any, blocks: Blocks, guard: Guard) -> None:
        self._heads = heads
        self._pieces = pieces
        self._blocks = blocks
        self._guard = guard

    async def cut(self, series: Key, limit_ms: int) -> int:
        """Cut off what a series has before a time, where that is half of a block or piece; return how many readings."""
        return await self._cut_block(series, limit_ms) + await self._cut_pieces(series, limit_ms)

    async def _cut_block(self, series: Key, limit_ms: int) -> int:
        """Cut the block that straddles the limit: the others are whole on one side of it."""
        query = {**in_time_range(series, to_ms=limit_ms), "pending": {"$exists": False}, **_straddles(limit_ms)}
        await self._guard()
        found = await self._heads.find_one(query, _HEAD)
        if found is None or not _is_due(found, limit_ms):
            return 0
        head = head_info(found)
        packed = await self._blocks.columns_of(head)
        if packed is None:
            return 0
        columns, kept = await asyncio.to_thread(_cut, packed, series, limit_ms)
        if len(kept) in (0, len(columns)) or await self._replace(series, head, kept):
            return 0
        return len(columns) - len(kept)

    async def _replace(self, series: Key, head: HeadInfo, kept: Columns) -> bool:
        """Return whether somebody else was first, so that nothing was changed."""
        change = await asyncio.to_thread(replaced, series_of(series), head, kept)
        return bool(await self._blocks.apply([change]))

    async def _cut_pieces(self, series: Key, limit_ms: int) -> int:
        query = {**of_pieces(series), **_straddles(limit_ms)}
        keys = [one["_id"] async for one in self._pieces.find(query, _PIECE) if _is_due(one, limit_ms)]
        cut = 0
        for key in keys:
            await self._guard()
            found = await self._pieces.find_one({"_id": key})
            if found is None:
                continue
            columns = piece_columns(found, series_name(series))
            kept = _kept(columns, limit_ms)
            if len(kept) in (0, len(columns)):
                continue
            document = piece_document(series, int(key["level"]), found["run"], kept, found["newest"]) | {"_id": key}
            result = await self._pieces.replace_one({"_id": key, "count": found["count"]}, document)
            cut += (len(columns) - len(kept)) * int(result.matched_count)
        return cut


def _straddles(limit_ms: int) -> dict[str, Any]:
    limit = DatetimeMS(limit_ms)
    return {"first.ts": {"$lt": limit}, "last.ts": {"$gte": limit}}


def _is_due(document: dict[str, Any], limit_ms: int) -> bool:
    (first, _), (last, _) = position_in(document["first"]), position_in(document["last"])
    return limit_ms - first >= PART * (last - first)


def _cut(packed: bytes, series: Key, limit_ms: int) -> tuple[Columns, Columns]:
    """Return the readings of a block, and those of them that are within the limit."""
    columns = decode(packed, series_name(series))
    return columns, _kept(columns, limit_ms)


def _kept(columns: Columns, limit_ms: int) -> Columns:
    return columns.take(slice(position_index(columns, (limit_ms, BEGINNING[1])), None))


@dataclass(slots=True)
class _Round:
    """A round in progress: when it began, by MongoDB's clock and by this process', and the last series that is done."""

    begun_ms: int
    begun_at: float
    last: Key | None = None
    took_s: float = 0.0


class ExpiredRounds:
    """Goes through all series, at most once an hour, whichever of several compactors does it, in steps of some seconds.

    Every method raises the driver's errors, WriteFailed, and what the guard raises.
    """

    def __init__(self, heads: Any, expired: Expired, maintenance: MaintenanceStore, metrics: CompactorMetrics) -> None:
        self._heads = heads
        self._expired = expired
        self._maintenance = maintenance
        self._metrics = metrics
        self._look_at = 0.0
        self._round: _Round | None = None

    @property
    def may_be_due(self) -> bool:
        """Whether there is a step to do, or it is time to ask."""
        return self._round is not None or time.monotonic() >= self._look_at

    async def step(self, stop: asyncio.Event) -> int:
        """Cut what is expired of the next series, with the lease; return how many readings."""
        started = time.monotonic()
        if self._round is None:
            self._look_at = started + LOOK_EVERY_S
            begun_ms = await self._maintenance.claim_job(JOB)
            if begun_ms is None:
                return 0
            self._round = _Round(begun_ms, started)
        cut = await self._step(self._round, started, stop)
        if cut:
            log.info("Readings past their retention were cut off newer ones.", readings=cut)
        return cut

    async def _step(self, one: _Round, started: float, stop: asyncio.Event) -> int:
        cut = 0
        while not stop.is_set() and time.monotonic() < started + STEP_S:
            await self._maintenance.schedule_job(JOB, LEASE.total_seconds())
            found = await self._maintenance.series_after(one.last, SERIES_PER_QUERY)
            state = await self._confirmed(one)
            if not found or state is None or not state.removes_anything:
                self._round = None
                took_s = one.took_s + time.monotonic() - started
                pause_s = LOOK_EVERY_S if state is None else max(ROUND_EVERY_S, PAUSE_FACTOR * took_s)
                await self._maintenance.schedule_job(JOB, pause_s)
                return cut
            # By the slower of two clocks: what is removed too early is lost.
            at_ms = min(one.begun_ms, now_ms())
            for series in found:
                if stop.is_set():
                    break
                if (limit_ms := state.oldest_ms(series["sensorType"], at_ms)) is not None:
                    cut += await self._cut(series, limit_ms)
                one.last = series
        one.took_s += time.monotonic() - started
        return cut

    async def _confirmed(self, one: _Round) -> State | None:
        """Return the state if a persister has confirmed its retention a short time ago; None if not."""
        found = await self._heads.find_one({"_id": STATE}, {"retention": 1, CONFIRMED_AT: 1})
        confirmed_at = (found or {}).get(CONFIRMED_AT)
        if confirmed_at is None:
            return None
        ago_ms = one.begun_ms + 1000 * (time.monotonic() - one.begun_at) - date_ms(confirmed_at)
        return state_of(found) if ago_ms < CONFIRMED_MS else None

    async def _cut(self, series: Key, limit_ms: int) -> int:
        try:
            cut = await self._expired.cut(series, limit_ms)
        except _FAILURES as error:
            if is_outage_of(error):
                raise
            log.error("What is past its retention could not be cut off.", series=series, why=error_text(error))
            return 0
        self._metrics.expired.inc(cut)
        return cut
