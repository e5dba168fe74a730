"""Bytes a reading on disk: after many seals, in the earlier version's collection, and in a time-series collection."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.history_blocks import Compaction, opened
from bench.history_comparison import Comparison
from bench.history_series import Sensor, insert, interleaved, measurements_of, sensors, time_series
from bench.history_setup import HistorySetup
from bench.report import progress
from bench.targets import MAX_BYTES_A_READING
from readings.collections import READINGS
from storage.places.names import BLOCKS, COLUMNS, PIECES

ZSTD: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}


@dataclass(frozen=True)
class SizesEffort:
    """How often how many readings are sealed, and how many the two collections of documents have."""

    seals: int
    seal_readings: int
    document_readings: int


@dataclass(frozen=True)
class Shape:
    """Sensors whose readings are stored together."""

    name: str
    step_ms: int
    decimals: int | None
    series: int

    def sensors(self) -> list[Sensor]:
        """Return the sensors, from their first reading on."""
        return sensors(self.series, step_ms=self.step_ms, decimals=self.decimals)


SHAPES = (
    Shape("1 Hz, two decimals", 1000, 2, 10),
    Shape("1 Hz, full precision", 1000, None, 10),
    Shape("each 5 min, full precision", 300_000, None, 100),
)


def measure_sizes(setup: HistorySetup, effort: SizesEffort) -> list[Comparison]:
    """Measure each shape."""
    found = []
    for number, shape in enumerate(SHAPES):
        progress(f"  bytes a reading: {shape.name}")
        with setup.client() as client:
            databases = [f"sizes_{number}_{name}" for name in ("now", "before", "time_series")]
            now, before, measurements = (client[name] for name in databases)
            stored = asyncio.run(_seal_often(setup, now, shape, effort))
            documents = None if setup.base is None else _documents(before, shape, effort.document_readings)
            other = _time_series(measurements, shape, effort.document_readings)
            setup.checkpoint()
            found.append(
                Comparison(
                    f"on disk, {shape.name}",
                    "bytes a reading",
                    _bytes(now, (READINGS, BLOCKS, COLUMNS, PIECES)) / stored,
                    None if documents is None else _bytes(before, (READINGS,)) / documents,
                    at_most=MAX_BYTES_A_READING[number],
                    is_absolute=True,
                    time_series=_bytes(measurements, (READINGS,)) / other,
                )
            )
            progress(f"    {found[-1].row()}")
            for name in databases:
                client.drop_database(name)
    return found


async def _seal_often(setup: HistorySetup, database: Any, shape: Shape, effort: SizesEffort) -> int:
    """Store readings through `readings`, seals and compaction; return how many there are."""
    each, stored, parts = effort.seal_readings // shape.series, 0, shape.sensors()
    async with opened(setup.mongodb.url, database.name) as asynchronous:
        compaction = Compaction(asynchronous)
        await compaction.seal()  # creates the collection
        for _ in range(effort.seals):
            columns = [sensor.next(each) for sensor in parts]
            stored += await asyncio.to_thread(insert, database[READINGS], interleaved(columns))
            await compaction.seal()
            await compaction.compact()
    return stored


def _documents(database: Any, shape: Shape, readings: int) -> int:
    """Store documents as the earlier version does, all in one collection; return how many there are."""
    collection = database.create_collection(READINGS, **ZSTD)
    columns = [sensor.next(readings // shape.series) for sensor in shape.sensors()]
    return insert(collection, interleaved(columns))


def _time_series(database: Any, shape: Shape, readings: int) -> int:
    """Store the same in a time-series collection, some time of all series after the other."""
    collection, each, stored = time_series(database, READINGS), max(1, 40_000 // shape.series), 0
    parts = shape.sensors()
    for start in range(0, readings // shape.series, each):
        count = min(each, readings // shape.series - start)
        stored += insert(collection, ([*measurements_of(sensor.next(count), sensor.key)] for sensor in parts))
    return stored


def _bytes(database: Any, names: Iterable[str]) -> int:
    """Return what collections and their indexes take on disk, after a checkpoint."""
    existing, total = set(database.list_collection_names()), 0
    for name in names:
        if name in existing:
            stats = database.command("collStats", name)
            total += int(stats["storageSize"]) + int(stats["totalIndexSize"])
    return total
