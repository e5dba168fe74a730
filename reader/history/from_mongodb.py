"""MONGODB → READER: every query is a range of the one key, within one owner.

Readings come from all their places (`storage.places`). Each method takes the owner first, which comes from the token,
and builds its range with readings/keys.py: no query can reach beyond its owner.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from bson import decode_all
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from reader.history.bucket_statistics import Aggregation, Part
from reader.history.gap_scan import scan_gaps
from reader.history.sequence import Completeness, Gap, SequenceGaps
from reader.history.series_names import SeriesNames
from reader.history.together import together
from reader.responses import AS_STORED, Document
from readings.collections import SERIES
from readings.document import DocumentError, position_of
from readings.filters import of_device
from readings.keys import Position, series_key
from runtime.fair_semaphore import FairSemaphore
from runtime.mongodb import THREADS, mongodb_client
from storage.codec.columns import Columns
from storage.codec.packed import BlockError
from storage.places.in_range import series_in_range
from storage.places.moving import PlacesChanged
from storage.places.names import BEGINNING, END
from storage.places.newest import Newest
from storage.places.reading import FIRST_READINGS, Places
from storage.places.stored import stored_positions
from storage.places.threads import in_thread_if_large
from storage.places.window import Window, position_at

# Queries running in the driver, which has some threads; their results are in memory, some 2 MB for a page of 1,000. One
# owner has a share of the slots. Waiting queries take turns, and the wait counts towards their timeout.
MAX_CONCURRENT_QUERIES = min(16, THREADS)
MAX_CONCURRENT_QUERIES_PER_OWNER = max(1, min(4, MAX_CONCURRENT_QUERIES // 2))
# Series whose newest reading is fetched in one query, of some 10 ms: one query each takes the driver ten times as long.
# And the queries one list runs at once: more would only wait for each other.
SERIES_PER_QUERY = 50
MAX_CONCURRENT_BATCHES = MAX_CONCURRENT_QUERIES_PER_OWNER
# Only a few lists longer than this fetch their readings at a time, for the same reason; the others wait.
SHORT_LIST = 32
MAX_CONCURRENT_LONG_LISTS = 8
MAX_CONCURRENT_LONG_LISTS_PER_OWNER = 2
# Results of buckets with more texts than this, of up to 256 characters, wait for a slot. At most 35,000 are in one.
MANY_TEXTS = 2000
MAX_CONCURRENT_MANY_TEXTS = 4
MAX_CONCURRENT_MANY_TEXTS_PER_OWNER = 2

FindNewest = Callable[[str, Sequence[tuple[str, str]]], Awaitable[dict[tuple[str, str], Document]]]


class HistoryUnavailable(Exception):
    """MongoDB did not respond, or not in time."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of one series: `from_ms` (inclusive) to `to_ms` (exclusive), None for an open end, beyond a position."""

    device: str
    sensor_type: str
    from_ms: int | None = None
    to_ms: int | None = None
    descending: bool = False
    past: Position | None = None

    def window(self, owner: str) -> Window:
        """Return the window, always with both bounds; no position widens it."""
        start = BEGINNING if self.from_ms is None else (self.from_ms, BEGINNING[1])
        end = END if self.to_ms is None else (self.to_ms, BEGINNING[1])
        window = Window(series_key(owner, self.device, self.sensor_type), start, end, self.descending)
        return window if self.past is None else window.behind(self.past)


class FromMongoDB:
    """Queries one database with majority read concern: readings that a failover may roll back are not returned."""

    def __init__(self, client: Any, database: str, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._slots = FairSemaphore(MAX_CONCURRENT_QUERIES, MAX_CONCURRENT_QUERIES_PER_OWNER)
        self._long_list_slots = FairSemaphore(MAX_CONCURRENT_LONG_LISTS, MAX_CONCURRENT_LONG_LISTS_PER_OWNER)
        self._many_text_slots = FairSemaphore(MAX_CONCURRENT_MANY_TEXTS, MAX_CONCURRENT_MANY_TEXTS_PER_OWNER)
        majority = ReadConcern("majority")
        self._places = Places(client, database)
        self._newest = Newest(self._places)
        self._series = client[database].get_collection(SERIES, codec_options=AS_STORED, read_concern=majority)
        self._names = SeriesNames(self._series)

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, database: str, *, timeout_s: float) -> AsyncIterator["FromMongoDB"]:
        """Open a client, which connects when it is first used and again after every loss."""
        async with mongodb_client(url, name="tidegate reader", timeout_s=timeout_s) as client:
            yield cls(client, database, timeout_s=timeout_s)

    async def page(self, owner: str, range_: Range, limit: int) -> list[Document]:
        """Return at most `limit` readings of a range, in its order. Every method raises HistoryUnavailable."""
        async with self._query(owner):
            found = await self._places.documents(range_.window(owner), limit)
        return decode_all(b"".join(found), AS_STORED)

    async def page_columns(self, owner: str, range_: Range, limit: int) -> Columns | None:
        """Return the readings of `page` as columns; None without any."""
        async with self._query(owner):
            return (await self._places.page(range_.window(owner), limit)).columns

    async def stream_columns(self, owner: str, range_: Range, limit: int | None = None) -> AsyncGenerator[Columns]:
        """Yield a range of any length as columns, at most `limit` readings.

        Each batch is a question with its own time limit, starting at the last one's position: a MongoDB cursor has one
        limit for its whole life, and does not survive a failover or a client that pauses.
        """
        window, left, has_more, size = range_.window(owner), limit, True, FIRST_READINGS
        while has_more and (left is None or left > 0):
            async with self._query(owner):
                columns, has_more, size = await self._places.batch(window, left, size)
            if columns is not None:
                window = window.behind(position_at(columns, -1))
                left = None if left is None else left - len(columns)
                yield columns

    async def stored(self, owner: str, device: str, sensor_type: str, positions: list[Position]) -> list[Position]:
        """Return the positions, of these in order, at which readings of a series are stored."""
        series = series_key(owner, device, sensor_type)
        parts = stored_positions(self._places, series, positions, lambda: self._query(owner))
        return [one async for part in parts for one in part]

    async def gaps(
        self, owner: str, range_: Range, limit: int = 0, past: Position | None = None
    ) -> tuple[Completeness, list[Gap]]:
        """Return how complete a range is, and its gaps after a position: one more than `limit` if there are more."""
        into = SequenceGaps(limit, past)
        return await scan_gaps(self._places, range_.window(owner), into, lambda: self._query(owner))

    async def has_device(self, owner: str, device: str) -> bool:
        """Return whether anything of a device was ever stored: its series outlive the retention of its readings."""
        query = of_device(owner, device)
        async with self._query(owner):
            if await self._series.find_one(query, {"_id": 1}) is not None:
                return True
            return await self._places.has_any(query)  # `series` may lag by the time of a write

    async def ends(self, owner: str, device: str, sensor_type: str) -> tuple[int, int] | None:
        """Return the times of a series' first and last reading in milliseconds since 1970; None if it has none."""
        first = await self.page_columns(owner, Range(device, sensor_type), 1)
        last = await self.page_columns(owner, Range(device, sensor_type, descending=True), 1)
        return None if first is None or last is None else (int(first.ts[0]), int(last.ts[0]))

    async def series(
        self,
        owner: str,
        device: str | None,
        sensor_type: str | None,
        past: tuple[str, str] | None,
        limit: int,
        within: Collection[str] | None = None,
    ) -> list[tuple[str, str]]:
        """Return the next `limit` series of an owner, or of the owner's devices `within`, or of one, in key order."""
        async with self._query(owner):
            return await self._names.page(owner, device, sensor_type, past, limit, within)

    async def series_documents(self, owner: str, limit: int, within: Collection[str] | None = None) -> list[bytes]:
        """Return the documents of at most `limit` series in key order, as raw BSON batches; `within` as above."""
        async with self._query(owner):
            return await self._names.documents(owner, limit, within)

    async def newest(self, owner: str, series: Sequence[tuple[str, str]]) -> list[Document | None]:
        """Return the newest reading of each series, or None; some 0.2 ms each."""
        return await self._of_each(owner, series, self._newest.of)

    async def newest_before(
        self, owner: str, series: Sequence[tuple[str, str]], before_ms: int
    ) -> list[Document | None]:
        """Return the newest reading of each series before a time, or None."""
        return await self._of_each(owner, series, lambda owner, part: self._newest.before(owner, part, before_ms))

    async def _of_each(self, owner: str, series: Sequence[tuple[str, str]], find: FindNewest) -> list[Document | None]:
        found: dict[tuple[str, str], Document] = {}
        parts = iter([series[start : start + SERIES_PER_QUERY] for start in range(0, len(series), SERIES_PER_QUERY)])

        async def fetch_batches() -> None:
            for part in parts:
                async with self._query(owner):
                    found.update(await find(owner, part))

        await together(fetch_batches, min(MAX_CONCURRENT_BATCHES, -(-len(series) // SERIES_PER_QUERY)))
        return [found.get(one) for one in series]

    async def in_range(
        self, owner: str, series: Sequence[tuple[str, str]], from_ms: int | None, to_ms: int | None
    ) -> list[tuple[str, str]]:
        """Return the series that have readings in a range, and some that have only earlier and later ones."""
        start = BEGINNING if from_ms is None else (from_ms, BEGINNING[1])
        end = END if to_ms is None else (to_ms, BEGINNING[1])
        found: set[tuple[str, str]] = set()
        for begin in range(0, len(series), SERIES_PER_QUERY):
            async with self._query(owner):
                part = series[begin : begin + SERIES_PER_QUERY]
                found |= await series_in_range(self._places, owner, part, start, end)
        return [one for one in series if one in found]

    async def series_with_newest(
        self,
        owner: str,
        device: str | None,
        sensor_type: str | None,
        past: tuple[str, str] | None,
        limit: int,
        within: Collection[str] | None = None,
    ) -> list[tuple[tuple[str, str], Document | None]]:
        """Return the result of `series` with the newest reading of each; a long list waits for a slot."""
        found = await self.series(owner, device, sensor_type, past, limit, within)
        if len(found) <= SHORT_LIST:
            return list(zip(found, await self.newest(owner, found), strict=True))
        found.clear()  # free the memory while waiting; the names are read again
        async with self._long_list_slots.slot(owner):
            found = await self.series(owner, device, sensor_type, past, limit, within)
            return list(zip(found, await self.newest(owner, found), strict=True))

    async def newest_until(
        self, owner: str, series: Sequence[tuple[str, str]], until_ms: int
    ) -> list[tuple[Document | None, Document | None]]:
        """Return for each series the newest reading up to a time (inclusive), and the newest one beyond it, if any."""
        async with self._long_list_slots.slot(owner) if len(series) > SHORT_LIST else nullcontext():
            newest = await self.newest(owner, series)
        ahead = [number for number, one in enumerate(newest) if one and position_of(one)[0] > until_ms]
        before = await self.newest_before(owner, [series[number] for number in ahead], until_ms + 1)
        found: list[tuple[Document | None, Document | None]] = [(one, None) for one in newest]
        for number, one in zip(ahead, before, strict=True):
            found[number] = one, newest[number]
        return found

    async def buckets(
        self, owner: str, range_: Range, boundaries: Sequence[int], aggregation: Aggregation
    ) -> list[Part]:
        """Return the statistics of the readings between boundaries, which cover the range; see `BucketSums.parts`."""
        many_texts = aggregation.texts * (len(boundaries) - 1) > MANY_TEXTS
        sums = aggregation.sums(boundaries)
        async with self._many_text_slots.slot(owner) if many_texts else nullcontext(), self._query(owner):
            await sums.add_all(self._places, range_.window(owner))
            return await in_thread_if_large(len(boundaries), sums.parts)

    @asynccontextmanager
    async def _query(self, owner: str) -> AsyncIterator[None]:
        """Hold a driver slot, translate the driver's errors and enforce the query timeout.

        The driver has a few threads, and its own timeout starts only once one of them is free.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._slots.slot(owner):
                yield
        except (PyMongoError, BlockError, DocumentError, PlacesChanged, TimeoutError) as error:
            raise HistoryUnavailable(f"{type(error).__name__}: {str(error)[:300]}") from error

    async def check(self) -> None:
        """Raise when MongoDB does not respond; for `/readyz`."""
        await self._client.admin.command("ping")
