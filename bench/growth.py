"""How Tidegate's cost grows: with connections, with series, with what is stored already, and with persisters.

Each point is one system on fresh data; CPU is that of gateway, RabbitMQ, persister and mongod together.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern

from bench.bare_insert import document
from bench.drain import Place
from bench.pipeline import Turn, turn
from bench.plot import lines
from bench.processes import BenchError, raise_open_files
from bench.report import Figure, progress, show
from bench.results import FOLDER, keep
from bench.systems import OURS, Machine, System, machine, running
from tests.servers.mongodb import MongoDBServer
from tests.servers.rabbitmq import RabbitMQServer

MIB = 1024 * 1024
FILL_BATCH = 10_000
# What a stored reading takes on the disk while it is written, with its index and the journal: seen, and rounded up.
BYTES_STORED = 120
# Long before the readings of a measurement, so that they never meet.
FILLED_FROM_MS = 1_600_000_000_000


@dataclass(frozen=True)
class Effort:
    """How far it goes."""

    seconds: float
    connections: tuple[int, ...]
    series: tuple[int, ...]
    stored: tuple[int, ...]
    persisters: tuple[int, ...]
    drained: int


FULL = Effort(
    5.0, (10, 100, 1000, 5000), (1000, 10_000, 100_000), (1_000_000, 10_000_000, 50_000_000), (1, 2, 4), 1_000_000
)
QUICK = Effort(1.0, (10, 100, 1000), (1000, 10_000), (100_000, 500_000), (1, 2), 100_000)
SMOKE = Effort(0.2, (10, 20), (1000,), (20_000,), (1,), 20_000)


@dataclass(frozen=True)
class Point:
    """One measurement: where on which axis, and what was seen."""

    axis: str
    at: int
    turn: Turn
    memory: dict[str, int]

    def figures(self) -> Iterator[Figure]:
        """Return what is printed of it."""
        yield Figure(f"{self.at:,} {self.axis}", self.turn.total_us, "µs a reading")
        yield Figure("  readings a second", self.turn.per_second, "readings/s")
        for name, size in self.memory.items():
            yield Figure(f"  memory of {name}", size / MIB, "MiB")


def memory_of(at: Machine, system: System) -> dict[str, int]:
    """Return the resident memory of each process, in bytes."""
    found = {name: process.memory_bytes() for name, process in system.processes.items()}
    for name, pid in at.servers().items():
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        found[name] = int(line.split()[1]) * 1024
    return found


def point(at: Machine, axis: str, where: int, devices: int, asked: dict[str, Any], already: int = 0) -> Point:
    """Measure once on a system of its own; `already` so many readings are stored before."""
    with running(at, OURS[0], devices) as system:
        collection = at.fresh(system.database)
        if already:
            fill(collection, already)
        warm = turn(at, system, collection, asked | {"run": asked["run"] / 2}, already)
        stored = collection.estimated_document_count()
        found = turn(at, system, collection, asked, stored)
        memory = memory_of(at, system)
        at.client.drop_database(system.database)
    progress(
        f"  {where:,} {axis}: {found.total_us:.1f} µs a reading (first {warm.total_us:.1f}), {found.per_second:,.0f}/s"
    )
    return Point(axis, where, found, memory)


def fill(collection: Any, readings: int) -> None:
    """Store that many of 1,000 series, as quickly as it goes."""
    fast = collection.with_options(write_concern=WriteConcern(1))
    for first in range(0, readings, FILL_BATCH):
        numbers = range(first, min(first + FILL_BATCH, readings))
        fast.insert_many([RawBSONDocument(document(number, FILLED_FROM_MS)) for number in numbers], ordered=False)
        if first % 5_000_000 == 0 and first:
            progress(f"    {first:,} are stored")


def room_for(stored: tuple[int, ...], folder: Path) -> list[int]:
    """Leave out what the disk has no room for, and say so."""
    free = shutil.disk_usage(folder).free // 2
    fits = [readings for readings in stored if readings * BYTES_STORED < free]
    for readings in stored[len(fits) :]:
        progress(f"NOT MEASURED: {readings:,} stored readings, for the disk has room for {free // BYTES_STORED:,}")
    return fits


def with_persisters(folder: Path, effort: Effort) -> Iterator[Figure]:
    """Drain a deep queue with more and more persisters."""
    with RabbitMQServer(folder / "rabbitmq2") as rabbitmq, MongoDBServer(folder / "mongodb2") as mongodb:
        place = Place(folder, rabbitmq, mongodb)
        for workers in effort.persisters:
            asyncio.run(place.fill(effort.drained, 1000))
            drained = place.drain(effort.drained, workers=workers)
            progress(f"  {workers} persisters drain {drained.per_second:,.0f} readings/s")
            yield Figure(f"{workers} persisters drain a deep queue", drained.per_second, "readings/s")


def run(folder: Path, effort: Effort) -> tuple[list[Figure], dict[str, list[tuple[str, float]]]]:
    """Measure along every axis; return the figures, and the points of the plot."""
    points = []
    with machine(folder) as at:
        for connections in effort.connections:
            asked = {"size": 1, "inFlight": max(1, 400 // connections), "sensors": 1, "run": effort.seconds}
            points.append(point(at, "connections", connections, connections, asked))
        for series in effort.series:
            asked = {"size": 100, "inFlight": 2, "sensors": series // 100, "run": effort.seconds}
            points.append(point(at, "series", series, 100, asked))
        for stored in room_for(effort.stored, folder):
            asked = {"size": 100, "inFlight": 10, "sensors": 50, "run": effort.seconds}
            points.append(point(at, "readings stored already", stored, 20, asked, stored))
    figures = [figure for one in points for figure in one.figures()]
    figures += with_persisters(folder, effort)
    plotted: dict[str, list[tuple[str, float]]] = {}
    for one in points:
        plotted.setdefault(one.axis, []).append((f"{one.at:,}", one.turn.total_us))
    return figures, plotted


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points: a first look")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    effort = SMOKE if asked.smoke else QUICK if asked.quick else FULL
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, plotted = run(Path(folder), effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    if effort is FULL:
        keep("growth", figures, {})
        (FOLDER / "growth.svg").write_text(lines("Cost of a reading as things grow", "µs, all processes", plotted))
    return show("How the cost of a reading grows", figures, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
