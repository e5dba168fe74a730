"""Fills a collection with millions of readings quickly: by template and unjournaled, unlike production writes."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern

from bench.report import progress
from readings.reading import Reading
from readings.template import Template

BATCH = 4000
OWNER = "owner-0"
DEVICES, SENSORS = 20, 50
SERIES = DEVICES * SENSORS
BEGIN_MS = 1_700_006_400_000
STEP_MS = 1000
THREADS = 2  # one encodes while the other waits for mongod
BYTES_A_READING = 120  # including journal and checkpoint, for the check of free disk space
RESERVED_DISK_BYTES = 6 * 1024**3
MAX_SECONDS = 420


class Preloader:
    """Fills a collection; its series are those that a load of 20 connections writes to."""

    def __init__(self, collection: Any, folder: Path) -> None:
        self._fast = collection.with_options(write_concern=WriteConcern(1))
        self._folder = folder
        self._each = 0  # readings of each series
        self._per_second = 0.0

    @property
    def stored(self) -> int:
        """The number of readings stored."""
        return self._each * SERIES

    def feasible(self, readings: int) -> tuple[int, str]:
        """Return how many of `readings` can be stored, and why not all: free disk space, or the time to fill."""
        more = readings - self.stored
        free = shutil.disk_usage(self._folder).free - RESERVED_DISK_BYTES
        if more * BYTES_A_READING > free:
            return self.stored + max(0, free // BYTES_A_READING), f"{free / 1e9:.0f} GB of disk space are free"
        if self._per_second and more / self._per_second > MAX_SECONDS:
            found = self.stored + int(MAX_SECONDS * self._per_second)
            return found, f"at {self._per_second:,.0f} a second it would take more than {MAX_SECONDS} s to fill"
        return readings, ""

    def fill(self, readings: int) -> None:
        """Store readings until there are `readings`."""
        first, end, before = self._each, readings // SERIES, self.stored
        started = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            done = threads.map(lambda number: self._fill_series(number, first, end), range(SERIES))
            for number, _ in enumerate(done, 1):
                if number % 250 == 0:
                    progress(f"    {before + (end - first) * number:,} readings are stored")
        self._each = end
        self._per_second = (self.stored - before) / (time.perf_counter() - started) if end > first else 0.0

    def _fill_series(self, number: int, first: int, end: int) -> None:
        device, sensor_type = f"device-{number // SENSORS}", f"temperature-{number % SENSORS}"
        template = Template(OWNER, device, Reading(sensor_type, 0.0, 0, 0, 0, unit="celsius"))
        for start in range(first, end, BATCH):
            times = ((at, BEGIN_MS + at * STEP_MS) for at in range(start, min(start + BATCH, end)))
            batch = [RawBSONDocument(template.document(20 + at % 97 / 8, ts, 0, ts + 40)) for at, ts in times]
            self._fast.insert_many(batch, ordered=False)
