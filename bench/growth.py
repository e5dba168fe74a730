"""How the cost of a reading grows: with connections, with series, with what is stored already, with persisters.

Each point has a gateway and a persister of its own, freshly started, on a RabbitMQ and a mongod that all share. CPU is
that of all processes, in µs a reading until it is stored and mongod has written its pages; memory is resident, after
the last round of the point. The load is as much as the system takes: 200 events in flight over all connections, and one
on each where there are more.
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.drain import Place
from bench.plot import lines
from bench.processes import BenchError
from bench.report import Figure, progress
from bench.results import Kept, Table, finish
from bench.stored import SERIES as STORED_SERIES
from bench.stored import Store
from bench.systems import OURS, Ground, System, ground, running
from bench.turns import Turns, Workload, idle_cpu, told, turn
from runtime.logs import configure_logs
from runtime.process import raise_fd_limit

IN_FLIGHT = 200
SIZES = (1, 100)
MIB = 1024 * 1024
SERIES_CONNECTIONS = 100
PARTS = ("connections", "series", "stored", "persisters")
CORES_NOTE = (
    "persisters, RabbitMQ and mongod share the processors of this machine: more of them than it has add nothing"
)


@dataclass(frozen=True)
class Effort:
    """Which points are measured, how long and how often.

    `drained` readings take many of the drain's looks, a twentieth of a second each: of fewer it would see only the end.
    """

    connections: tuple[int, ...]
    series: tuple[int, ...]
    stored: tuple[int, ...]
    persisters: tuple[int, ...]
    drained: int
    rounds: int
    seconds: float


FULL = Effort(
    (10, 100, 1000, 5000), (1000, 10_000, 100_000), (10**6, 10**7, 5 * 10**7), (1, 2, 4), 1_000_000, rounds=3, seconds=3
)
QUICK = Effort((10, 200), (1000, 10_000), (100_000, 400_000), (1, 2), 400_000, rounds=1, seconds=1)
SMOKE = Effort((5, 20), (100, 1000), (5000, 20_000), (1, 2), 100_000, rounds=1, seconds=0.2)


@dataclass
class Growth:
    """What was found: a row a point, and what was left out and why."""

    effort: Effort
    table: Table = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def point(self, what: str, system: System, turns: Turns) -> None:
        """Note one point."""
        memory = {f"{name} MiB": value / MIB for name, value in system.memory_bytes().items()}
        self.table[what] = turns.row() | memory

    def figures(self) -> list[Figure]:
        """Return what grows, point by point."""
        figures = []
        for what, row in self.table.items():
            figures.append(Figure(f"{what}: CPU, all processes", row["total"], "µs a reading"))
            figures.append(Figure("  stored", row["perSecond"], "readings/s"))
        return figures

    def svg(self) -> str:
        """Return the plot: a panel each, CPU over points."""
        panels: dict[str, list[tuple[str, float]]] = {}
        for what, row in self.table.items():
            name, _, label = what.partition(": ")
            panels.setdefault(name, []).append((label, row["total"]))
        return lines("How cost grows", "µs of processor time a reading, all processes", panels)


def measure(
    grown: Growth, system: System, workload: Workload, idle: dict[str, float], onto: object | None = None
) -> None:
    """Measure one point, after a turn that does not count: it meets every series for the first time."""
    effort, turns = grown.effort, Turns()
    turn(system, workload, effort.seconds / 3, idle, onto=onto)
    for _ in range(effort.rounds):
        turns.all.append(turn(system, workload, effort.seconds, idle, onto=onto))
        told(workload.name, turns.all[-1])
    grown.point(workload.name, system, turns)


def by_connections(at: Ground, grown: Growth, idle: dict[str, float]) -> None:
    """Measure one reading an event, from few connections and many."""
    for connections in grown.effort.connections:
        workload = Workload(f"connections: {connections:,}", 1, connections, max(1, IN_FLIGHT // connections))
        with running(at, OURS, connections) as system:
            measure(grown, system, workload, idle)


def by_series(at: Ground, grown: Growth, idle: dict[str, float]) -> None:
    """Measure events of one reading and of 100 that go to few series and to many."""
    for series in grown.effort.series:
        with running(at, OURS, SERIES_CONNECTIONS) as system:
            for size in SIZES:
                name = f"series, {size} an event: {series:,}"
                measure(grown, system, Workload(name, size, SERIES_CONNECTIONS, 2, series), idle)


def by_stored(at: Ground, grown: Growth, idle: dict[str, float]) -> None:
    """Measure events of one reading and of 100 of series that have few readings already, and many."""
    with running(at, OURS, 20) as system:
        collection = system.fresh()
        store = Store(collection, at.on.folder)
        for asked in grown.effort.stored:
            readings, why = store.allowed(asked)
            if why:
                grown.left_out[f"{asked:,} readings stored"] = f"{why}; {readings:,} instead"
                progress(f"  {asked:,} readings cannot be stored: {why}; {readings:,} instead")
            store.fill(readings)
            for size in SIZES:
                name = f"stored, {size} an event: {store.stored:,}"
                measure(grown, system, Workload(name, size, 20, 10, STORED_SERIES), idle, collection)
            if why:
                break


def by_persisters(at: Ground, grown: Growth) -> None:
    """Measure how fast a full queue drains; the CPU has the start of the workers in it."""
    place = Place(at.on.folder, at.on.rabbitmq, at.mongodb)
    count = grown.effort.drained
    for workers in grown.effort.persisters:
        asyncio.run(place.fill(count, 1000))
        at.settle()
        before = at.cpu_s()
        drained = place.drain(count, workers=workers)
        at.write_out()
        servers = {name: (value - before[name]) / count * 1e6 for name, value in at.cpu_s().items()}
        cpu_us = {"persister": drained.cpu_s / count * 1e6} | servers
        row = cpu_us | {"total": sum(cpu_us.values()), "perSecond": drained.per_second}
        memory = {"persister MiB": drained.memory_bytes / MIB}
        memory |= {f"{name} MiB": value / MIB for name, value in at.memory_bytes().items()}
        grown.table[f"persisters that drain: {workers}"] = row | memory
        progress(
            f"    {workers} persisters drain {drained.per_second:,.0f} readings/s, {row['total']:.1f} µs a reading"
        )


def run(folder: Path, parts: list[str], effort: Effort) -> Growth:
    """Measure the parts that are asked for."""
    grown = Growth(effort)
    with ground(folder) as at:
        idle = idle_cpu(at)
        for part in parts:
            progress(f"  {part}")
            if part == "connections":
                by_connections(at, grown, idle)
            elif part == "series":
                by_series(at, grown, idle)
            elif part == "stored":
                by_stored(at, grown, idle)
            else:
                by_persisters(at, grown)
    return grown


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points: a first look")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(arguments)
    effort = SMOKE if asked.smoke else QUICK if asked.quick else FULL
    raise_fd_limit()
    configure_logs("warning", "console")  # to standard error: standard output is for what was found
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            grown = run(Path(folder), asked.only or list(PARTS), effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    kept = Kept(grown.table, grown.left_out, {"note": CORES_NOTE}, grown.svg())
    keep = not (asked.smoke or asked.quick or asked.only)
    return finish("growth", "How the cost of a reading grows", grown.figures(), kept, as_json=asked.json, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
