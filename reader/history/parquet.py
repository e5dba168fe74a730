"""Readings as Apache Parquet, encoded row group by row group: bytes to send come out as rows go in.

A file without its footer, which `end` writes, cannot be opened: one that was cut off is never taken for whole. pyarrow
takes 40 MB and some 0.1 s to import, so that only a process that encodes one imports it.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from reader.history.arrow_arrays import Arrays
from readings.reading import ATTRIBUTES
from storage.codec.columns import Columns

# Readers skip and decode whole row groups; each takes some 1.5 kB of the footer, which is in memory until the end. One
# of 65,536 rows with short names and no tags has 6 MB before encoding; with longer texts it ends earlier.
ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 8 * 1024 * 1024
# A row group also ends after this time: where rows come slowly, from many short series, no proxy may take the response
# for dead.
ROW_GROUP_SECONDS = 10.0
# Batches of short series that are kept as they are: each has some kB of its own.
PENDING_BATCHES = 64

_DELTA_ENCODED = ("ts", "seq", "valueInteger", "receivedAt")
_DICTIONARY_ENCODED = ("device", "sensorType", "valueText", *ATTRIBUTES)
# Of each row group, for readers that look for a series, a time or a limit; texts may be long.
_WITH_STATISTICS = ["device", "sensorType", "ts", "valueNumber", "valueInteger"]


class ParquetRows:
    """Encodes readings as the columns `PARQUET_COLUMNS`: `append` them, and `take_row_group` when that says so.

    The constructor, `take_row_group` and `end` take up to 0.1 s, without the interpreter's lock for most of it: call
    them in a thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        import pyarrow as pa  # noqa: PLC0415 - see the module's docstring
        from pyarrow import parquet  # noqa: PLC0415

        self._arrow = pa
        self._clock = clock
        self._arrays = Arrays(pa)
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(
            self._sink,
            self._arrays.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(_DICTIONARY_ENCODED),
            column_encoding=dict.fromkeys(_DELTA_ENCODED, "DELTA_BINARY_PACKED"),
            write_statistics=_WITH_STATISTICS,
            store_schema=False,
        )
        self._begin_row_group()

    def _begin_row_group(self) -> None:
        self._chunks: list[Any] = []
        self._pending: list[Any] = []
        self._rows = 0
        self._bytes = 0
        self._since = self._clock()

    def append(self, device: str, sensor_type: str, columns: Columns, max_bytes: int = ROW_GROUP_BYTES) -> bool:
        """Add readings of one series; return whether the row group is full, or has `max_bytes`. 0.04 us a reading."""
        if len(columns):
            batch = self._arrays.of(device, sensor_type, columns)
            self._pending.append(batch)
            self._rows += batch.num_rows
            self._bytes += batch.nbytes + _shared_bytes(columns)
            if len(self._pending) == PENDING_BATCHES:
                self._combine()
        return (
            self._rows >= ROW_GROUP_ROWS
            or self._bytes >= min(max_bytes, ROW_GROUP_BYTES)
            or self._clock() - self._since >= ROW_GROUP_SECONDS
        )

    def _combine(self) -> None:
        """Make one batch of many, which would take more memory than their rows do."""
        self._chunks.append(self._arrow.concat_batches(self._pending))
        self._bytes += self._chunks[-1].nbytes - sum(batch.nbytes for batch in self._pending)
        self._pending.clear()

    def take_row_group(self) -> bytes:
        """Encode the readings appended since the last call, if any; return `take()`."""
        if self._rows:
            table = self._arrow.Table.from_batches([*self._chunks, *self._pending], schema=self._arrays.schema)
            self._writer.write_table(table, row_group_size=self._rows)
        self._begin_row_group()
        return self.take()

    def take(self) -> bytes:
        """Return all bytes encoded and not yet taken: before the first row group, the mark at the start of the file."""
        return self._sink.take()

    def end(self) -> bytes:
        """Return the rest of the file: the last row group and the footer."""
        rest = self.take_row_group()
        self._writer.close()
        return rest + self.take()


class _Sink:
    """The file that pyarrow writes to, in memory."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _shared_bytes(columns: Columns) -> int:
    """Return the bytes of attributes, which are in memory once, and in a client's memory with each reading."""
    lengths = np.array([len(tail) for tail in columns.tail_list] or [0])
    return int(lengths[columns.tails].sum())
