"""Whole systems beside each other: what a reading costs from the device's socket to MongoDB, in turns, in one run.

CPU is that of all processes at the serving end: server, RabbitMQ, consumer, mongod; the load's own is shown apart. A
turn ends when everything that was acknowledged is stored, and a system that stores less is told.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.floor import Floor, bare_inserts
from bench.processes import BenchError, raise_open_files
from bench.report import Figure, progress, show
from bench.results import keep
from bench.systems import NAMES, OURS, Machine, System, cpu_s, machine, reader_of_cpu, running

SERIES = 1000
MOST_CONNECTIONS = 200
STORED_WITHIN_S = 60
LOOK_S = 0.02


@dataclass(frozen=True)
class Workload:
    """What devices send."""

    name: str
    size: int
    connections: int
    in_flight: int

    def asked(self, seconds: float, rate: float | None = None) -> dict[str, Any]:
        """Return what the load process is told."""
        sensors = SERIES // self.connections
        shape = {"size": self.size, "of": self.connections, "inFlight": self.in_flight, "sensors": sensors}
        return {"run": seconds, "rate": rate, **shape}


W1 = Workload("1 an event, 20 connections x 10", 1, 20, 10)
W1_WIDE = Workload("1 an event, 200 connections x 2", 1, 200, 2)
W100 = Workload("100 an event, 20 connections x 10", 100, 20, 10)
WORKLOADS = (W1, W1_WIDE, W100)
# At most so many times dearer as Tidegate each of them has to be, by workload.
ASKED = {
    "Node.js, MongoDB": {W1: 12.0, W1_WIDE: 12.0, W100: 3.5},
    "Node.js, RabbitMQ, MongoDB": {W1: 4.0, W1_WIDE: 4.0, W100: 10.0},
    "Python, plain": {W1: 15.0, W1_WIDE: 15.0, W100: 40.0},
}
TO_FLOOR = 2.2
PER_SECOND = {W1: 25_000, W1_WIDE: 25_000, W100: 230_000}
LATENCY_MS = {W1: (5, 25), W100: (8, 40)}


@dataclass(frozen=True)
class Turn:
    """One measurement: CPU of each process in µs a reading, the load's, readings a second until all were stored."""

    cpu_us: dict[str, float]
    load_us: float
    per_second: float
    acknowledged_per_second: float

    @property
    def total_us(self) -> float:
        """All of the serving end."""
        return sum(self.cpu_us.values())


@dataclass
class Found:
    """The turns of one system under one workload."""

    turns: list[Turn] = field(default_factory=list)

    @property
    def total_us(self) -> float:
        """The median cost."""
        return median(turn.total_us for turn in self.turns)

    def table_row(self) -> dict[str, float]:
        """Return medians by process, and the rest."""
        names = self.turns[0].cpu_us
        row = {name: median(turn.cpu_us[name] for turn in self.turns) for name in names}
        return row | {
            "total": self.total_us,
            "load": median(turn.load_us for turn in self.turns),
            "perSecond": median(turn.per_second for turn in self.turns),
        }


def idle_cpu(at: Machine, seconds: float) -> dict[str, float]:
    """Return what the shared servers use while nobody sends, in seconds a second."""
    before = {name: cpu_s(pid) for name, pid in at.servers().items()}
    time.sleep(seconds)
    return {name: (cpu_s(pid) - before[name]) / seconds for name, pid in at.servers().items()}


def measure(at: Machine, system: System, workload: Workload, seconds: float) -> Turn:
    """Run one turn."""
    return turn(at, system, at.fresh(system.database, clustered=system.clustered), workload.asked(seconds))


def turn(at: Machine, system: System, collection: Any, asked: dict[str, Any], already: int = 0) -> Turn:
    """Run the load that is asked for, into a collection that holds `already` so many."""
    cpu = reader_of_cpu(at, system)
    before, started = cpu(), time.perf_counter()
    ran = system.load.ask(asked)
    readings = ran["acknowledged"] * asked["size"]
    taken = wait_until_stored(system, collection, already + readings, started)
    used = {name: value - before[name] for name, value in cpu().items()}
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"{system.name} did not accept everything: {ran}")
    return Turn(
        {name: value / readings * 1e6 for name, value in used.items()},
        ran["cpuS"] / readings * 1e6,
        readings / taken,
        readings / ran["seconds"],
    )


def wait_until_stored(system: System, collection: Any, readings: int, started: float) -> float:
    """Return how long it took since `started` until as many readings were stored; BenchError when they never are."""
    deadline = time.perf_counter() + STORED_WITHIN_S
    while (stored := collection.estimated_document_count()) < readings:
        if time.perf_counter() > deadline:
            raise BenchError(f"{system.name} has acknowledged {readings:,} readings and stored {stored:,}")
        system.must_run()
        time.sleep(LOOK_S)
    return time.perf_counter() - started


def in_turns(at: Machine, systems: list[System], rounds: int, seconds: float) -> dict[tuple[str, str], Found]:
    """Measure every workload on every system, each round in another order."""
    idle = idle_cpu(at, min(2.0, seconds))
    progress(
        "idle, and not subtracted: "
        + ", ".join(f"{name} {value * 100:.1f} % of a core" for name, value in idle.items())
    )
    found: dict[tuple[str, str], Found] = {}
    for turn in range(rounds):
        for workload in WORKLOADS:
            for place in range(len(systems)):
                system = systems[(place + turn) % len(systems)]
                one = measure(at, system, workload, seconds)
                found.setdefault((system.name, workload.name), Found()).turns.append(one)
                parts = ", ".join(f"{name} {value:.1f}" for name, value in one.cpu_us.items())
                progress(
                    f"  {turn + 1}/{rounds} {workload.name}, {system.name}: {one.total_us:.1f} µs a reading ({parts};"
                    f" load {one.load_us:.1f}), {one.per_second:,.0f} readings/s"
                )
    return found


def latencies(system: System, workload: Workload, found: Found, rounds: int, seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of the acknowledgement at half of saturation, in ms."""
    rate = median(turn.acknowledged_per_second for turn in found.turns) / workload.size / 2
    ran = [system.load.ask(workload.asked(seconds, rate)) for _ in range(rounds)]
    return median(one["p50Ms"] for one in ran), median(one["p99Ms"] for one in ran)


def figures_of(
    found: dict[tuple[str, str], Found], floors: dict[str, Floor], waits: dict[Workload, tuple[float, float]]
) -> list[Figure]:
    """Return every figure beside what is asked of it."""
    figures = []
    for workload in WORKLOADS:
        ours = found[OURS[0], workload.name]
        figures.append(Figure(f"{workload.name}: Tidegate, all processes", ours.total_us, "µs a reading"))
        for peer, asked in ASKED.items():
            if (peer, workload.name) in found:
                cost = found[peer, workload.name].total_us
                figures.append(Figure(f"  {peer}", cost, "µs a reading"))
                figures.append(Figure("    times as dear", cost / ours.total_us, "x", at_least=asked[workload]))
        if workload is W100 and floors:
            floor = floors["raw"].total_us
            figures.append(Figure("  bare insert_many of raw BSON, with mongod", floor, "µs a reading"))
            figures.append(Figure("    Tidegate to that", ours.total_us / floor, "x", TO_FLOOR))
        per_second = median(turn.per_second for turn in ours.turns)
        figures.append(
            Figure("  stored, with the load on this machine", per_second, "readings/s", None, PER_SECOND[workload])
        )
        if workload in waits:
            for name, value, most in zip(("p50", "p99"), waits[workload], LATENCY_MS[workload], strict=True):
                figures.append(Figure(f"  acknowledged at half of saturation: {name}", value, "ms", most))
    return figures


def run(
    folder: Path, names: list[str], rounds: int, seconds: float, *, replica_set: bool = False
) -> tuple[list[Figure], dict[str, Any]]:
    """Start everything, measure, and return the figures and what is kept of them."""
    with machine(folder, replica_set=replica_set) as at, ExitStack() as stack:
        systems = []
        for name in names:
            progress(f"starting: {name}")
            systems.append(stack.enter_context(running(at, name, MOST_CONNECTIONS)))
        progress("warming up")
        for system in systems:
            for workload in WORKLOADS:
                measure(at, system, workload, min(3.0, seconds))  # Node.js compiles what is hot in the first seconds
        found = in_turns(at, systems, rounds, seconds)
        floors = bare_inserts(at, rounds)
        waits = {}
        for workload in LATENCY_MS:
            at.fresh(systems[0].database)
            waits[workload] = latencies(systems[0], workload, found[names[0], workload.name], rounds, seconds)
    table = {f"{workload}: {name}": one.table_row() for (name, workload), one in found.items()}
    table |= {f"bare insert_many, {name}": floor.row() for name, floor in floors.items()}
    return figures_of(found, floors, waits), table


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench pipeline", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns: a first look")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--only", action="append", choices=NAMES, help="beside Tidegate only this; may be repeated")
    parser.add_argument("--replica-set", action="store_true", help="mongod as a replica set of one, as in compose.yaml")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    rounds, seconds = (1, 0.3) if asked.smoke else (2, 1.5) if asked.quick else (5, 4.0)
    names = [name for name in NAMES if name == OURS[0] or not asked.only or name in asked.only]
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, table = run(Path(folder), names, rounds, seconds, replica_set=asked.replica_set)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    if not (asked.smoke or asked.quick or asked.only):
        keep("pipeline", figures, table)
    return show("A reading's way through whole systems", figures, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
