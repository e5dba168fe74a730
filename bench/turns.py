"""One turn of a system under a workload: what a reading costs until everything that was acknowledged is stored.

The time ends there; the processor time has also what mongod needs to write its pages, so that each turn pays for itself
and leaves nothing to the next.
"""

import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.processes import BenchError, Speaking
from bench.report import progress
from bench.systems import CLUSTERED, OURS, Ground, System

SERIES = 1000
# A queue that is drained slowly is waited for; one from which nothing comes any more has lost what is missing.
STANDSTILL_S = 15
LOOK_S = 0.02
IDLE_LOOK_S = 3.0


@dataclass(frozen=True)
class Workload:
    """What devices send: readings an event, connections, events in flight on each, and series over all of them."""

    name: str
    size: int
    connections: int
    in_flight: int
    series: int = SERIES

    def asked(self, seconds: float, rate: float | None = None) -> dict[str, Any]:
        """Return what the load process is told; with `rate`, so many events a second, else as many as it takes."""
        sensors = max(1, self.series // self.connections)
        shape = {"size": self.size, "of": self.connections, "inFlight": self.in_flight, "sensors": sensors}
        return {"run": seconds, "rate": rate, **shape}


@dataclass(frozen=True)
class Turn:
    """One measurement: CPU of each process and of the load in µs a reading, and readings stored a second.

    `lost` is what was acknowledged and never stored.
    """

    cpu_us: dict[str, float]
    load_us: float
    per_second: float
    lost: int = 0

    @property
    def total_us(self) -> float:
        """All processes of the serving end."""
        return sum(self.cpu_us.values())


@dataclass
class Turns:
    """The turns of one system under one workload, and their medians."""

    all: list[Turn] = field(default_factory=list)

    @property
    def total_us(self) -> float:
        """The CPU of all processes, in µs a reading."""
        return median(turn.total_us for turn in self.all)

    @property
    def per_second(self) -> float:
        """Readings a second, stored."""
        return median(turn.per_second for turn in self.all)

    @property
    def load_us(self) -> float:
        """The CPU of the load, in µs a reading."""
        return median(turn.load_us for turn in self.all)

    def each(self) -> list[dict[str, float]]:
        """Return what each turn found, to be kept beside the medians."""
        return [turn.cpu_us | {"load": turn.load_us, "perSecond": turn.per_second} for turn in self.all]

    @property
    def lost(self) -> int:
        """Readings of all turns that were acknowledged and not stored."""
        return sum(turn.lost for turn in self.all)

    def row(self) -> dict[str, float]:
        """Return a row of the table: µs a reading by process, and the rest."""
        parts = {name: median(turn.cpu_us[name] for turn in self.all) for name in self.all[0].cpu_us}
        rest = {"total": self.total_us, "load": self.load_us}
        return parts | rest | {"perSecond": self.per_second, "lost": self.lost}


def idle_cpu(at: Ground, seconds: float = IDLE_LOOK_S) -> dict[str, float]:
    """Return what the shared servers use while nobody sends, in seconds a second: it is taken off every turn."""
    before = at.cpu_s()
    time.sleep(seconds)
    return {name: (value - before[name]) / seconds for name, value in at.cpu_s().items()}


def turn(
    system: System, workload: Workload, seconds: float, idle: dict[str, float], *, onto: Any | None = None
) -> Turn:
    """Run one turn on an empty collection, or `onto` what a collection holds already."""
    collection = system.fresh() if onto is None else onto
    already = collection.estimated_document_count()
    system.ground.settle()
    before, started = system.cpu_s(), time.perf_counter()
    ran = system.load.ask(workload.asked(seconds))
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"{system.name} did not accept everything: {ran}")
    readings = ran["acknowledged"] * workload.size
    taken, found = wait_until_stored(system, collection, already + readings, started)
    stored = found - already
    system.ground.write_out()
    passed = time.perf_counter() - started
    used = {name: value - before[name] - idle.get(name, 0.0) * passed for name, value in system.cpu_s().items()}
    if stored != readings and system.name in (OURS, CLUSTERED):
        raise BenchError(f"{system.name} has acknowledged {readings:,} readings and stored {stored:,}")
    return Turn(
        {name: max(0.0, value) / readings * 1e6 for name, value in used.items()},
        ran["cpuS"] / readings * 1e6,
        readings / taken,
        readings - stored,
    )


def wait_until_stored(system: System, collection: Any, readings: int, started: float) -> tuple[float, int]:
    """Return how long after `started` the last reading was stored, and how many there are."""
    stored, moved_at = 0, time.perf_counter()
    while True:
        found = collection.estimated_document_count()
        now = time.perf_counter()
        if found != stored:
            stored, moved_at = found, now
        if stored >= readings or now - moved_at > STANDSTILL_S:
            return moved_at - started, stored
        system.must_run()
        time.sleep(LOOK_S)


def bare_turn(at: Ground, client: Speaking, readings: int, idle: dict[str, float], form: str = "raw") -> Turn:
    """Insert so many readings with a bare client, `form` being `raw` or `dicts`; the CPU is its own and mongod's."""
    at.settle()
    before, started = at.cpu_s()["mongod"], time.perf_counter()
    ran = client.ask({"readings": readings, "form": form})
    at.write_out()
    used = at.cpu_s()["mongod"] - before - idle.get("mongod", 0.0) * (time.perf_counter() - started)
    cpu_us = {"client": ran["cpuS"] / readings * 1e6, "mongod": used / readings * 1e6}
    return Turn(cpu_us, 0.0, readings / ran["seconds"])


def told(name: str, one: Turn) -> None:
    """Say on standard error how a turn went."""
    parts = ", ".join(f"{part} {value:.1f}" for part, value in one.cpu_us.items())
    lost = f", {one.lost:,} LOST" if one.lost else ""
    progress(
        f"    {name:30} {one.total_us:7.1f} µs a reading ({parts}; load {one.load_us:.1f}), "
        f"{one.per_second:9,.0f} readings/s{lost}"
    )
