"""How the cost of a reading scales: with connections, series, stored readings, and persisters.

Each point has a freshly started gateway and persister, on a shared RabbitMQ and mongod. CPU is that of all processes,
in µs per reading until it is stored and mongod has written its pages; memory is resident, after the last round of the
point. The load saturates the system: 200 events in flight over all connections, one on each if there are more.
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.drain import DrainSetup
from bench.measurements import Measurements, Workload, idle_cpu, measure_system, print_measurement
from bench.plot import lines
from bench.preload import SERIES as STORED_SERIES
from bench.preload import Preloader
from bench.processes import BenchError
from bench.report import Figure, progress
from bench.results import Details, Table, finish
from bench.systems import TIDEGATE, SharedServers, System, running, start_servers
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
    """The points to measure, the duration and the number of rounds.

    Draining `drained` readings must take many samples of a twentieth of a second each.
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
class ScalingResults:
    """The results: one row per point, and what was left out and why."""

    effort: Effort
    table: Table = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def point(self, what: str, system: System, measurements: Measurements) -> None:
        """Add one point."""
        memory = {f"{name} MiB": value / MIB for name, value in system.memory_bytes().items()}
        self.table[what] = measurements.row() | memory

    def figures(self) -> list[Figure]:
        """Return the figures of all points."""
        figures = []
        for what, row in self.table.items():
            figures.append(Figure(f"{what}: CPU, all processes", row["total"], "µs a reading"))
            figures.append(Figure("  stored", row["perSecond"], "readings/s"))
        return figures

    def svg(self) -> str:
        """Return the plot: one panel per dimension, CPU over its points."""
        panels: dict[str, list[tuple[str, float]]] = {}
        for what, row in self.table.items():
            name, _, label = what.partition(": ")
            panels.setdefault(name, []).append((label, row["total"]))
        return lines("How cost grows", "µs of processor time a reading, all processes", panels)


def measure(
    results: ScalingResults, system: System, workload: Workload, idle: dict[str, float], onto: object | None = None
) -> None:
    """Measure one point, after a warm-up that writes every series for the first time."""
    effort, measurements = results.effort, Measurements()
    measure_system(system, workload, effort.seconds / 3, idle, onto=onto)
    for _ in range(effort.rounds):
        measurements.all.append(measure_system(system, workload, effort.seconds, idle, onto=onto))
        print_measurement(workload.name, measurements.all[-1])
    results.point(workload.name, system, measurements)


def by_connections(servers: SharedServers, results: ScalingResults, idle: dict[str, float]) -> None:
    """Measure events of one reading, from few and many connections."""
    for connections in results.effort.connections:
        workload = Workload(f"connections: {connections:,}", 1, connections, max(1, IN_FLIGHT // connections))
        with running(servers, TIDEGATE, connections) as system:
            measure(results, system, workload, idle)


def by_series(servers: SharedServers, results: ScalingResults, idle: dict[str, float]) -> None:
    """Measure events of one reading and of 100, to few and many series."""
    for series in results.effort.series:
        with running(servers, TIDEGATE, SERIES_CONNECTIONS) as system:
            for size in SIZES:
                name = f"series, {size} an event: {series:,}"
                measure(results, system, Workload(name, size, SERIES_CONNECTIONS, 2, series), idle)


def by_stored(servers: SharedServers, results: ScalingResults, idle: dict[str, float]) -> None:
    """Measure events of one reading and of 100, to series with few and many stored readings."""
    with running(servers, TIDEGATE, 20) as system:
        collection = system.fresh()
        preloader = Preloader(collection, servers.environment.folder)
        for target in results.effort.stored:
            readings, why = preloader.feasible(target)
            if why:
                results.left_out[f"{target:,} readings stored"] = f"{why}; {readings:,} instead"
                progress(f"  {target:,} readings cannot be stored: {why}; {readings:,} instead")
            preloader.fill(readings)
            for size in SIZES:
                name = f"stored, {size} an event: {preloader.stored:,}"
                measure(results, system, Workload(name, size, 20, 10, STORED_SERIES), idle, collection)
            if why:
                break


def by_persisters(servers: SharedServers, results: ScalingResults) -> None:
    """Measure how fast a full queue drains; the CPU includes the start of the workers."""
    setup = DrainSetup(servers.environment.folder, servers.environment.rabbitmq, servers.mongodb)
    count = results.effort.drained
    for workers in results.effort.persisters:
        asyncio.run(setup.fill(count, 1000))
        servers.flush_writes()
        before = servers.cpu_s()
        drained = setup.drain(count, workers=workers)
        servers.checkpoint()
        server_us = {name: (value - before[name]) / count * 1e6 for name, value in servers.cpu_s().items()}
        cpu_us = {"persister": drained.cpu_s / count * 1e6} | server_us
        row = cpu_us | {"total": sum(cpu_us.values()), "perSecond": drained.per_second}
        memory = {"persister MiB": drained.memory_bytes / MIB}
        memory |= {f"{name} MiB": value / MIB for name, value in servers.memory_bytes().items()}
        results.table[f"persisters that drain: {workers}"] = row | memory
        progress(
            f"    {workers} persisters drain {drained.per_second:,.0f} readings/s, {row['total']:.1f} µs a reading"
        )


def run(folder: Path, parts: list[str], effort: Effort) -> ScalingResults:
    """Run the selected parts."""
    results = ScalingResults(effort)
    with start_servers(folder) as servers:
        idle = idle_cpu(servers)
        for part in parts:
            progress(f"  {part}")
            if part == "connections":
                by_connections(servers, results, idle)
            elif part == "series":
                by_series(servers, results, idle)
            elif part == "stored":
                by_stored(servers, results, idle)
            else:
                by_persisters(servers, results)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points, for a first impression")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    raise_fd_limit()
    configure_logs("warning", "console")  # to standard error: standard output is for the figures
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            results = run(Path(folder), options.only or list(PARTS), effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    details = Details(results.table, results.left_out, {"note": CORES_NOTE}, results.svg())
    save = not (options.smoke or options.quick or options.only)
    return finish(
        "growth", "How the cost of a reading grows", results.figures(), details, as_json=options.json, save=save
    )


if __name__ == "__main__":
    sys.exit(main())
