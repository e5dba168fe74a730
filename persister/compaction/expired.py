"""Cuts readings past their retention off the blocks and pieces that have newer ones, too.

Retention itself (persister/maintenance/removal.py) deletes whole blocks and pieces. One of a series with a reading a
day may last for years, though, and what readers no longer show would stay as long. So it is cut when half of the time
between its first and its last reading is past, and again when half of the rest is: each byte is written at most once
more.

Blocks are changed as a compaction changes them, under its lease. A piece is replaced in place, by one with the same
last reading.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bson import MaxKey
from bson.datetime_ms import DatetimeMS

from persister.compaction.blocks import Blocks, replaced
from persister.compaction.heads import HeadInfo, head_info
from persister.compaction.metrics import CompactorMetrics
from persister.maintenance.store import LEASE, MaintenanceStore
from persister.mongodb_errors import error_text
from readings.document import position_in
from readings.keys import Key
from runtime.logs import logger
from runtime.times import now_ms
from storage.codec.columns import Columns
from storage.codec.decode import decode
from storage.codec.packed import BlockError
from storage.places.documents import names_of, piece_columns, piece_document, series_name
from storage.places.names import BEGINNING
from storage.places.state import read_state
from storage.places.window import position_index

log = logger("persister.compaction")

JOB = "expired"
LOOK_EVERY_S = 60.0
# Retentions are days. A round asks twice for each series.
ROUND_EVERY_S = 3600.0
PAUSE_FACTOR = 20
SERIES_PER_QUERY = 500
PART = 0.5
_HEAD = {"first": 1, "last": 1, "until": 1, "edit": 1, "columns": 1, "count": 1, "pending": 1}
_PIECE = {"first": 1, "last": 1}

Guard = Callable[[], Awaitable[None]]
"""Waits until the next change may be made; raises if there is no lease any more."""


class Expired:
    """What is past its retention in the blocks and pieces of one database, for whoever has the lease.

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
        bounds = {"$gte": series, "$lt": {**series, "ts": DatetimeMS(limit_ms)}}
        query = {"_id": bounds, "pending": {"$exists": False}, **_straddles(limit_ms)}
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
        change = await asyncio.to_thread(replaced, names_of(series), head, kept)
        return bool(await self._blocks.apply([change]))

    async def _cut_pieces(self, series: Key, limit_ms: int) -> int:
        bounds = {"$gte": series, "$lt": {**series, "level": MaxKey()}}
        query = {"_id": bounds, **_straddles(limit_ms)}
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


class ExpiredRounds:
    """Goes through all series once an hour, whichever of several compactors does it."""

    def __init__(self, heads: Any, expired: Expired, maintenance: MaintenanceStore, metrics: CompactorMetrics) -> None:
        self._heads = heads
        self._expired = expired
        self._maintenance = maintenance
        self._metrics = metrics
        self._look_at = 0.0

    async def claim(self) -> int | None:
        """Return MongoDB's time in milliseconds if a round is due, which is begun by that; None if not. WriteFailed."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        return await self._maintenance.claim_job(JOB)

    async def run(self, server_ms: int, stop: asyncio.Event) -> int:
        """Cut what is expired, with the lease, until `stop`; return how many readings. Damaged columns are left out."""
        started, last, cut = time.monotonic(), None, 0
        state = await read_state(self._heads)
        # By the slower of two clocks: what is removed too early is lost.
        at_ms = min(server_ms, now_ms())
        has_limit = state.retention_days or any(state.retention_by_sensor_type.values())
        while has_limit and not stop.is_set():
            found = await self._maintenance.series_after(last, SERIES_PER_QUERY)
            if not found:
                break
            await self._maintenance.schedule_job(JOB, LEASE.total_seconds())
            for series in found:
                limit_ms = state.oldest_ms(series["sensorType"], at_ms)
                if limit_ms is not None and not stop.is_set():
                    cut += await self._cut(series, limit_ms)
            last = found[-1]
        took_s = time.monotonic() - started
        if not stop.is_set():
            await self._maintenance.schedule_job(JOB, max(ROUND_EVERY_S, PAUSE_FACTOR * took_s))
        if cut:
            log.info("Readings past their retention were cut off newer ones.", readings=cut, seconds=round(took_s, 1))
        return cut

    async def _cut(self, series: Key, limit_ms: int) -> int:
        try:
            cut = await self._expired.cut(series, limit_ms)
        except BlockError as error:
            log.error("What is past its retention could not be cut off.", series=series, why=error_text(error))
            return 0
        self._metrics.expired.inc(cut)
        return cut
