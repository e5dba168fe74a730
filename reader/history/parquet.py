"""Readings as Apache Parquet, encoded row group by row group: bytes to send come out as rows go in.

A file without its footer, which `end` writes, cannot be opened: one that was cut off is never taken for whole. pyarrow
takes 40 MB and some 0.1 s to import, so that only a process that encodes one imports it.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from bson.datetime_ms import DatetimeMS

from reader.responses import Document, json_value
from readings.csv_row import compact
from readings.document import date_ms
from readings.reading import ATTRIBUTES

# One of the four `value…` columns has the value, the others are null.
PARQUET_COLUMNS = (
    *("device", "sensorType", "ts", "seq"),
    *("valueNumber", "valueInteger", "valueBoolean", "valueText"),
    *("receivedAt", *ATTRIBUTES),
)
# Attributes that are not always texts: their column has JSON, so that a location `"hall"` is not one `{"lat":…}`.
_JSON_ATTRIBUTES = {"location", "tags"}

# Readers skip and decode whole row groups; each takes some 1.5 kB of the footer, which is in memory until the end. One
# of 65,536 rows with short names and no tags has 6 MB before encoding; with longer texts it ends earlier.
ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 8 * 1024 * 1024
# Also when rows come slowly, from many short series, so that no proxy on the way takes the response for dead.
ROW_GROUP_SECONDS = 10.0
# Rows converted at once: some 1.5 ms. Fewer would take more memory than they hold.
CHUNK_ROWS = 1000

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
        self._schema = pa.schema([pa.field(name, kind) for name, kind in zip(PARQUET_COLUMNS, _types(pa), strict=True)])
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(_DICTIONARY_ENCODED),
            column_encoding=dict.fromkeys(_DELTA_ENCODED, "DELTA_BINARY_PACKED"),
            write_statistics=_WITH_STATISTICS,
            store_schema=False,
        )
        self._begin_row_group()

    def _begin_row_group(self) -> None:
        self._columns: list[list[Any]] = [[] for _ in PARQUET_COLUMNS]
        self._chunks: list[Any] = []
        self._rows = 0
        self._bytes = 0
        self._since = self._clock()

    def append(
        self, device: str, sensor_type: str, documents: Sequence[Document], max_bytes: int = ROW_GROUP_BYTES
    ) -> bool:
        """Add readings of one series; return whether the row group is full, or has `max_bytes`. 1.5 us a reading."""
        devices, types, times, seqs, numbers, integers, booleans, texts, received, *attributes = self._columns
        count = len(documents)
        devices.extend([device] * count)
        types.extend([sensor_type] * count)
        keys = [document["_id"] for document in documents]
        times.extend([_arrow_time(key["ts"]) for key in keys])
        seqs.extend([int(key["seq"]) for key in keys])
        received.extend([_arrow_time(document.get("receivedAt")) for document in documents])
        values = [document.get("value") for document in documents]
        numbers.extend([value if type(value) is float else None for value in values])
        if all(type(value) is float for value in values):
            for column in (integers, booleans, texts):
                column.extend([None] * count)
        else:
            integers.extend([_integer(value) for value in values])
            booleans.extend([value if type(value) is bool else None for value in values])
            texts.extend([_text(value) for value in values])
        plain = all(len(document) == 3 for document in documents)
        for name, column in zip(ATTRIBUTES, attributes, strict=True):
            column.extend([None] * count if plain else [_attribute(name, document.get(name)) for document in documents])
        self._rows += count
        if len(devices) >= CHUNK_ROWS:
            self._convert()
        return (
            self._rows >= ROW_GROUP_ROWS
            or self._bytes >= min(max_bytes, ROW_GROUP_BYTES)
            or self._clock() - self._since >= ROW_GROUP_SECONDS
        )

    def _convert(self) -> None:
        """Turn the values gathered into arrays, which take a fraction of the memory."""
        arrays = [
            self._arrow.array(column, kind) for column, kind in zip(self._columns, self._schema.types, strict=True)
        ]
        chunk = self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._chunks.append(chunk)
        self._bytes += chunk.nbytes
        for column in self._columns:
            column.clear()

    def take_row_group(self) -> bytes:
        """Encode the readings appended since the last call, if any; return `take()`."""
        if self._columns[0]:
            self._convert()
        if self._chunks:
            table = self._arrow.Table.from_batches(self._chunks, schema=self._schema)
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
    """What pyarrow writes into, as a file."""

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


def _types(pa: Any) -> list[Any]:
    """Return pyarrow's type of each column. Names repeat: in memory they are dictionaries, in the file plain texts."""
    text, name, time_ms = pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.timestamp("ms", tz="UTC")
    values = [pa.float64(), pa.int64(), pa.bool_(), text]
    return [name, name, time_ms, pa.int64(), *values, time_ms, *[text] * len(ATTRIBUTES)]


def _arrow_time(time_: Any) -> datetime | int | None:
    """Return a date of MongoDB as pyarrow takes it: naive datetimes are UTC, integers milliseconds since 1970."""
    if isinstance(time_, datetime):
        return time_
    return date_ms(time_) if isinstance(time_, DatetimeMS) else None


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """Return a text, or the text of a value of a type that only a manual write can have stored."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, bool | int | float) else str(json_value(value))


def _attribute(name: str, attribute: Any) -> str | None:
    if attribute is None:
        return None
    return attribute if isinstance(attribute, str) and name not in _JSON_ATTRIBUTES else compact(attribute)
