"""Measures a system under a workload: the cost of a reading until everything acknowledged is stored.

The time ends there; the CPU time includes mongod's writing of its pages, so that each measurement pays for itself and
leaves nothing to the next.
"""

import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.processes import BenchError, LineProcess
from bench.report import progress
from bench.systems import OURS, SharedServers, System

SERIES = 1000
# A slow queue is waited for; if nothing arrives for this time, the missing readings are lost.
STALL_TIMEOUT_S = 15
POLL_S = 0.02
IDLE_SAMPLE_S = 3.0
FIRST_WRITES_S = 0.5
# A shorter run is a smoke run: it only shows that it works, and its figures say nothing.
SHORTEST_MEASUREMENT_S = 1.0


@dataclass(frozen=True)
class Workload:
    """What devices send: readings per event, connections, events in flight on each, and series in total."""

    name: str
    size: int
    connections: int
    in_flight: int
    series: int = SERIES

    def command(self, seconds: float, rate: float | None = None) -> dict[str, Any]:
        """Return the command for the load generator; `rate` is in events per second, None for saturation.

        In a smoke run each connection has one event of many readings in flight: the slowest peer takes a second for
        each 1,000 readings.
        """
        sensors = max(1, self.series // self.connections)
        in_flight = self.in_flight if self.size == 1 or seconds >= SHORTEST_MEASUREMENT_S else 1
        shape = {"size": self.size, "of": self.connections, "inFlight": in_flight, "sensors": sensors}
        return {"run": seconds, "rate": rate, **shape}


@dataclass(frozen=True)
class Measurement:
    """One measurement: CPU of each process and of the load in µs per reading, and readings stored per second.

    `lost` counts readings that were acknowledged and never stored.
    """

    cpu_us: dict[str, float]
    load_us: float
    per_second: float
    lost: int = 0

    @property
    def total_us(self) -> float:
        """The CPU of all server processes, in µs per reading."""
        return sum(self.cpu_us.values())


@dataclass
class Measurements:
    """The measurements of one system under one workload, and their medians."""

    all: list[Measurement] = field(default_factory=list)

    @property
    def total_us(self) -> float:
        """The CPU of all server processes, in µs per reading."""
        return median(one.total_us for one in self.all)

    @property
    def per_second(self) -> float:
        """Readings stored per second."""
        return median(one.per_second for one in self.all)

    @property
    def load_us(self) -> float:
        """The CPU of the load generator, in µs per reading."""
        return median(one.load_us for one in self.all)

    def each(self) -> list[dict[str, float]]:
        """Return each measurement, to be stored with the medians."""
        return [one.cpu_us | {"load": one.load_us, "perSecond": one.per_second} for one in self.all]

    @property
    def lost(self) -> int:
        """Readings that were acknowledged and not stored, in all measurements."""
        return sum(one.lost for one in self.all)

    def row(self) -> dict[str, float]:
        """Return a row of the table: µs per reading by process, and the other values."""
        parts = {name: median(one.cpu_us[name] for one in self.all) for name in self.all[0].cpu_us}
        rest = {"total": self.total_us, "load": self.load_us}
        return parts | rest | {"perSecond": self.per_second, "lost": self.lost}


def idle_cpu(servers: SharedServers, seconds: float = IDLE_SAMPLE_S) -> dict[str, float]:
    """Return the idle CPU of the shared servers, in seconds per second; it is subtracted from every measurement."""
    before = servers.cpu_s()
    time.sleep(seconds)
    return {name: (value - before[name]) / seconds for name, value in servers.cpu_s().items()}


def measure_system(
    system: System,
    workload: Workload,
    seconds: float,
    idle: dict[str, float],
    *,
    onto: Any | None = None,
    rate: float | None = None,
) -> Measurement:
    """Measure once on an empty collection, or `onto` a filled one; with `rate`, at that many events a second.

    A smoke run pays for what earlier ones have left.
    """
    collection = _fresh(system, workload, min(FIRST_WRITES_S, seconds)) if onto is None else onto
    already = collection.estimated_document_count()
    if seconds >= SHORTEST_MEASUREMENT_S:
        system.servers.flush_writes()
    before, started = system.cpu_s(), time.perf_counter()
    ran = system.load.request(workload.command(seconds, rate))
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"{system.name} did not accept everything: {ran}")
    readings = ran["acknowledged"] * workload.size
    taken, found = wait_until_stored(system, collection, already + readings, started)
    stored = found - already
    system.servers.checkpoint()
    passed = time.perf_counter() - started
    used = {name: value - before[name] - idle.get(name, 0.0) * passed for name, value in system.cpu_s().items()}
    if stored != readings and system.name in OURS:
        raise BenchError(f"{system.name} has acknowledged {readings:,} readings and stored {stored:,}")
    return Measurement(
        {name: max(0.0, value) / readings * 1e6 for name, value in used.items()},
        ran["cpuS"] / readings * 1e6,
        readings / taken,
        readings - stored,
    )


def _fresh(system: System, workload: Workload, seconds: float) -> Any:
    """Return a new collection to which everybody has written once.

    Inserts of a Tidegate persister name the collection that was dropped, so mongod refuses the first batches, once:
    with 2,700 to 8,000 documents at some 70 us each, that looked like 0.8 to 2.3 us of mongod per reading in 3 s.
    """
    collection = system.fresh()
    ran = system.load.request(workload.command(seconds))
    wait_until_stored(system, collection, ran["acknowledged"] * workload.size, time.perf_counter())
    return collection


def wait_until_stored(system: System, collection: Any, readings: int, started: float) -> tuple[float, int]:
    """Return the seconds from `started` until the last reading was stored, and the number stored."""
    stored, moved_at = 0, time.perf_counter()
    while True:
        found = collection.estimated_document_count()
        now = time.perf_counter()
        if found != stored:
            stored, moved_at = found, now
        if stored >= readings or now - moved_at > STALL_TIMEOUT_S:
            return moved_at - started, stored
        system.require_running()
        time.sleep(POLL_S)


def measure_bare_insert(
    servers: SharedServers, client: LineProcess, readings: int, idle: dict[str, float], form: str = "raw"
) -> Measurement:
    """Insert `readings` with a bare client as `form`, `raw` or `dicts`; the CPU is its own and mongod's."""
    servers.flush_writes()
    before, started = servers.cpu_s()["mongod"], time.perf_counter()
    ran = client.request({"readings": readings, "form": form})
    servers.checkpoint()
    used = servers.cpu_s()["mongod"] - before - idle.get("mongod", 0.0) * (time.perf_counter() - started)
    cpu_us = {"client": ran["cpuS"] / readings * 1e6, "mongod": used / readings * 1e6}
    return Measurement(cpu_us, 0.0, readings / ran["seconds"])


def print_measurement(name: str, one: Measurement) -> None:
    """Print a measurement to standard error."""
    parts = ", ".join(f"{part} {value:.1f}" for part, value in one.cpu_us.items())
    lost = f", {one.lost:,} LOST" if one.lost else ""
    progress(
        f"    {name:30} {one.total_us:7.1f} µs a reading ({parts}; load {one.load_us:.1f}), "
        f"{one.per_second:9,.0f} readings/s{lost}"
    )
