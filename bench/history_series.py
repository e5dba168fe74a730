"""Readings of sensors, many at once: as columns, as documents, and as documents of a time-series collection."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import bson
import numpy as np
from bson import Int64
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern

from readings.document import encode_document
from readings.keys import Key, series_key
from readings.reading import Reading
from storage.codec.columns import Columns, Kind
from storage.codec.from_documents import columns_of
from storage.codec.to_documents import documents_of

OWNER = "owner-0"
BEGIN_MS = 1_735_689_600_000  # 1 January 2025
DAY_MS = 86_400_000
UNIT = "celsius"
# As many as a persister writes at once.
BATCH = 4000
JITTER_MS = 20


class Sensor:
    """A sensor whose value wanders; `decimals` None: full precision. It continues where it was."""

    def __init__(
        self,
        device: str,
        sensor_type: str,
        *,
        step_ms: int,
        decimals: int | None = 2,
        begin_ms: int = BEGIN_MS,
        jitter_ms: int = JITTER_MS,
        owner: str = OWNER,
    ) -> None:
        self.device = device
        self.sensor_type = sensor_type
        self.owner = owner
        self.step_ms = step_ms
        self._decimals = decimals
        self._next_ms = begin_ms
        self._jitter_ms = jitter_ms
        self._level = 70.0
        self._rng = np.random.default_rng(_seed(device, sensor_type))
        document = encode_document(owner, device, Reading(sensor_type, 0.5, begin_ms, 0, begin_ms, unit=UNIT))
        self._one = columns_of(document, 1)

    @property
    def key(self) -> Key:
        """The key of its series."""
        return series_key(self.owner, self.device, self.sensor_type)

    def next(self, count: int, seal: int = 1) -> Columns:
        """Return its next readings, as if they had come by a seal number."""
        rng, step_ms = self._rng, self.step_ms
        ts = self._next_ms + np.arange(count, dtype=np.int64) * step_ms
        self._next_ms += count * step_ms
        if self._jitter_ms:
            ts += rng.integers(-self._jitter_ms, self._jitter_ms + 1, count)
        wander = np.cumsum(rng.standard_normal(count) * 0.03) + self._level
        self._level = float(wander[-1]) if abs(wander[-1] - 70) < 50 else 70.0
        values = wander + rng.standard_normal(count) * 0.05
        if self._decimals is not None:
            values = np.round(values, self._decimals)
        zeros = np.zeros(count, np.int64)
        return replace(
            self._one,
            ts=ts,
            seq=zeros,
            received=ts + 3 + rng.exponential(4, count).astype(np.int64),
            seals=np.full(count, seal, np.int64),
            kinds=np.full(count, Kind.FLOAT, np.uint8),
            values=values.view(np.int64),
            tails=zeros,
        )


def _seed(device: str, sensor_type: str) -> list[int]:
    return list(f"{device}/{sensor_type}".encode())


def sensors(count: int, **options: Any) -> list[Sensor]:
    """Return sensors, two a device, in the order of their keys."""
    return [Sensor(f"device-{at // 2:05}", ("humidity", "temperature")[at % 2], **options) for at in range(count)]


def interleaved(parts: Sequence[Columns]) -> Iterator[list[bytes]]:
    """Yield the documents of series of the same length in batches as a persister writes them: of a time, by series."""
    each = max(1, BATCH // len(parts))
    documents = [documents_of(columns) for columns in parts]
    for start in range(0, len(parts[0]), each):
        yield [document for one in documents for document in one[start : start + each]]


def insert(collection: Any, batches: Iterator[list[bytes]]) -> int:
    """Insert batches of documents, unjournaled; return how many documents there were."""
    fast, inserted = collection.with_options(write_concern=WriteConcern(1)), 0
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            part = batch[start : start + BATCH]
            fast.insert_many([RawBSONDocument(one) for one in part], ordered=False)
            inserted += len(part)
    return inserted


def measurements_of(columns: Columns, key: Key) -> list[bytes]:
    """Return readings as documents of a time-series collection: `{ts, series, seq, value, receivedAt, unit}`."""
    marks = {"ts": 0x1111111111111111, "seq": 0x2222222222222222, "receivedAt": 0x3333333333333333}
    value = 1.2345e67
    document = bson.encode(
        {
            "ts": DatetimeMS(marks["ts"]),
            "series": dict(key),
            "seq": Int64(marks["seq"]),
            "value": value,
            "receivedAt": DatetimeMS(marks["receivedAt"]),
            "unit": UNIT,
        }
    )
    length = len(document)
    rows = np.empty((len(columns), length), np.uint8)
    rows[:] = np.frombuffer(document, np.uint8)
    patterns = {name: number.to_bytes(8, "little") for name, number in marks.items()}
    patterns["value"] = np.float64(value).tobytes()
    numbers = {"ts": columns.ts, "seq": columns.seq, "receivedAt": columns.received, "value": columns.values}
    for name, pattern in patterns.items():
        at = document.index(pattern)
        np.ndarray((len(rows),), "<i8", rows, at, (length,))[:] = numbers[name]
    body = rows.tobytes()
    return [body[at : at + length] for at in range(0, len(body), length)]


def time_series(database: Any, name: str) -> Any:
    """Return a new time-series collection."""
    return database.create_collection(name, timeseries={"timeField": "ts", "metaField": "series"})
