"""Reads a sealed collection in the order of its key, as batches of chunks: readings of one series in a row.

Each read is a query of its own that begins after the last one, so nothing depends on a cursor that stays open.
Where chunks end depends on the readings alone, not on where reading began: a process that goes on from a saved position
makes the same chunks as the one that did not come to save a later one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bson
import numpy as np

from persister.compaction.planner import Incoming
from readings.document import AS_MILLISECONDS, id_bytes, series_bytes
from readings.keys import Key
from storage.codec.columns import Columns, first_wins
from storage.codec.from_documents import columns_of, split
from storage.codec.packed import Integers
from storage.places.documents import series_of
from storage.places.raw_find import find_raw
from storage.places.window import position_at

READINGS_PER_READ = 32_768
CHUNK_READINGS, CHUNK_BYTES = 32_768, 8 * 1024 * 1024
# So that a batch of series with a reading each takes a fraction of a lease, and their pieces little memory: there are
# up to MAX_RUNS pieces of a series, some 3 KB each as the driver returns them.
CHUNKS_PER_BATCH = 250


@dataclass(frozen=True, slots=True)
class Chunk:
    """Readings of one series that follow each other in a sealed collection; `last` is the key of the last one."""

    series: bytes
    key: Key
    columns: Columns
    newest: bytes
    last: Key
    seal: int

    @property
    def incoming(self) -> Incoming:
        """What the planner has to know of it."""
        columns = self.columns
        return Incoming(len(columns), position_at(columns, 0), position_at(columns, -1), self.seal)


class SealedScan:
    """One pass over a sealed collection."""

    def __init__(self, collection: Any, seal: int, after: Key | None, session: Any = None) -> None:
        """Read after a key, or from the start; in a session that has seen what a majority had of the collection."""
        self._collection = collection
        self._session = session
        self._seal = seal
        # The key of the last reading that was read, and what was read but is in no chunk yet.
        self._after = after
        self._rest = b""
        self._at_end = False
        self._chunks: list[Chunk] = []

    async def next_batch(self) -> list[Chunk]:
        """Return chunks of different series; none at the end.

        The driver's errors; DocumentError when a document is not a reading.
        """
        while not self._chunks and not self._at_end:
            self._chunks = await self._read()
        taken = 1
        most = min(len(self._chunks), CHUNKS_PER_BATCH)
        while taken < most and self._chunks[taken].series != self._chunks[taken - 1].series:
            taken += 1
        batch, self._chunks = self._chunks[:taken], self._chunks[taken:]
        return batch

    async def _read(self) -> list[Chunk]:
        query = {} if self._after is None else {"_id": {"$gt": self._after}}
        read = await find_raw(self._collection, query, limit=READINGS_PER_READ, session=self._session)
        self._at_end = not read
        return list(self._chunks_of(self._rest + read))

    def _chunks_of(self, body: bytes) -> Iterator[Chunk]:
        """Yield the chunks that are whole, and keep the rest for the next read."""
        self._rest = b""
        if not body:
            return
        starts = split(body)
        count = len(starts) - 1
        self._after = _key(body[starts[-2] :])
        at = 0
        while at < count:
            series = series_bytes(body[starts[at] : starts[at + 1]])
            until = _end_of_series(body, starts, at, series)
            while at < until:
                end = _end_of_chunk(starts, at, until)
                if end == count and not self._at_end and end - at < CHUNK_READINGS:
                    self._rest = body[starts[at] :]
                    return
                yield self._chunk(body[starts[at] : starts[end]], body[starts[end - 1] : starts[end]], series)
                at = end

    def _chunk(self, body: bytes, newest: bytes, series: bytes) -> Chunk:
        last = _key(newest)
        return Chunk(
            series, series_of(last), first_wins(columns_of(body, self._seal)).columns, newest, last, self._seal
        )


def _key(document: bytes) -> Key:
    key: Key = bson.decode(id_bytes(document), AS_MILLISECONDS)
    return key


def _end_of_chunk(starts: Integers, at: int, until: int) -> int:
    """Return where the chunk that begins at `at` ends, at the latest with its series: at least one reading."""
    by_size = int(np.searchsorted(starts, starts[at] + CHUNK_BYTES, "right")) - 1
    return min(max(by_size, at + 1), at + CHUNK_READINGS, until)


def _end_of_series(body: bytes, starts: Integers, at: int, series: bytes) -> int:
    """Return where documents of another series begin: the documents are in the order of their series."""

    def is_same(index: int) -> bool:
        return series_bytes(body[starts[index] : starts[index + 1]]) == series

    low, high, step, count = at, at + 1, 1, len(starts) - 1
    while high < count and is_same(high):
        low, step = high, step * 2
        high = low + step
    high = min(high, count)
    # Of this series at `low`, of another one, or at the end, at `high`.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_same(middle) else (low, middle)
    return high
