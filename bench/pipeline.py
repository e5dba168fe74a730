"""A reading's whole way, from the device's socket to MongoDB: Tidegate and what one would otherwise take, in turns.

CPU is that of all processes at the serving end: server, RabbitMQ, consumer, mongod. The load's own is shown apart. A
turn's time ends when everything that was acknowledged is stored, its CPU when mongod has written its pages, too. Every
write is journaled and waits for the majority, tokens are real and verified at connect, and there are 1,000 series whose
values change. The collection is an ordinary one, which is the default; "clustered" is Tidegate on a clustered one.
"""

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.processes import BenchError, Speaking
from bench.report import Figure, progress
from bench.results import Kept, finish
from bench.systems import CLUSTERED, FLOOR, OURS, SYSTEMS, Ground, System, ground, running
from bench.turns import Turn, Turns, Workload, bare_turn, idle_cpu, told, turn, wait_until_stored
from bench.verdicts import P50_P99_MS, WORKLOADS, Found, figures_of, table_of
from runtime.process import raise_fd_limit

CONNECTIONS = max(workload.connections for workload in WORKLOADS)
ORDER_SEED = 1
WARM_UP_S = 2.0  # Node.js compiles what is hot in the first seconds
FLOOR_READINGS_A_SECOND = 240_000  # of `--seconds`: about as many as Tidegate stores in a turn
FLOOR_DATABASE = "bench_floor"


class Floor:
    """A bare client that inserts into a collection like the others'."""

    name = FLOOR

    def __init__(self, at: Ground, client: Speaking) -> None:
        self._at = at
        self._client = client

    def turn(self, seconds: float, idle: dict[str, float]) -> Turn:
        """Insert raw BSON, the readings of the last workload."""
        self._at.fresh(FLOOR_DATABASE)
        return bare_turn(self._at, self._client, round(seconds * FLOOR_READINGS_A_SECOND), idle)


def start(at: Ground, names: list[str], stack: ExitStack) -> tuple[list[System], dict[str, str]]:
    """Start systems; return those that run, and of the others why not."""
    systems, missing = [], {}
    for name in names:
        progress(f"starting: {name}")
        try:
            systems.append(stack.enter_context(running(at, name, CONNECTIONS)))
        except BenchError as error:
            if name == OURS:
                raise
            missing[name] = str(error)
            progress(f"  not measured: {error}")
    return systems, missing


class Rounds:
    """Everybody's turns. Who fails is left out from then on, and named; not so Tidegate, whose failure is an error."""

    def __init__(
        self, systems: list[System], floor: Floor, missing: dict[str, str], seconds: float, idle: dict[str, float]
    ) -> None:
        self._systems = systems
        self._floor = floor
        self._missing = missing
        self._seconds = seconds
        self._idle = idle
        # Everyone follows everyone else now and then: what one leaves to do is not always the same neighbour's burden.
        self._order = random.Random(ORDER_SEED)
        self.found: Found = {}

    def warm_up(self) -> None:
        """Let everyone meet each workload: its series are new, its code is not compiled yet."""
        progress("warming up")
        for workload in WORKLOADS:
            for one in self._everyone(workload):
                self._turn(one, workload, min(WARM_UP_S, self._seconds))

    def measure(self, number: int, rounds: int) -> None:
        """Measure every workload on everyone once, in an order of chance; the floor beside the last workload."""
        for workload in WORKLOADS:
            progress(f"  {number + 1}/{rounds} {workload.name}")
            for one in self._everyone(workload):
                if (took := self._turn(one, workload, self._seconds)) is not None:
                    told(one.name, took)
                    self.found.setdefault((workload, one.name), Turns()).all.append(took)

    def _everyone(self, workload: Workload) -> list[System | Floor]:
        everyone: list[System | Floor] = [*self._systems]
        if workload is WORKLOADS[-1]:
            everyone.append(self._floor)
        self._order.shuffle(everyone)
        return everyone

    def _turn(self, one: System | Floor, workload: Workload, seconds: float) -> Turn | None:
        if isinstance(one, Floor):
            return one.turn(seconds, self._idle)
        if one.name in self._missing:
            return None
        try:
            return turn(one, workload, seconds, self._idle)
        except BenchError as error:
            if one.name in (OURS, CLUSTERED):
                raise
            self._missing[one.name] = f"left out in the middle, and what it still does weighs on the others: {error}"
            progress(f"    {one.name} is left out from now on: {error}")
            return None


@dataclass
class Waiting:
    """How long acknowledgements took at half of saturation, round by round."""

    rate: float
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def p50_p99_ms(self) -> tuple[float, float]:
        """The medians of the rounds."""
        return median(one["p50Ms"] for one in self.rounds), median(one["p99Ms"] for one in self.rounds)

    def kept(self) -> dict[str, Any]:
        """Return what is kept beside the figures: each round's percentiles and histogram, and how late it was sent."""
        names = ("p50Ms", "p99Ms", "lateP99Ms", "histogram")
        return {"eventsPerSecond": self.rate, "rounds": [{name: one[name] for name in names} for one in self.rounds]}


def waiting(system: System, workload: Workload, turns: Turns, rounds: int, seconds: float) -> Waiting:
    """Send at half of saturation, of what is stored for as long as one likes: more is acknowledged for a while."""
    found = Waiting(turns.per_second / workload.size / 2)
    for _ in range(rounds):
        collection = system.fresh()
        system.ground.settle()
        started = time.perf_counter()
        ran = system.load.ask(workload.asked(seconds, found.rate))
        readings = ran["acknowledged"] * workload.size
        _, stored = wait_until_stored(system, collection, readings, started)
        if ran["refused"] or ran["unanswered"] or ran["lost"] or stored != readings:
            raise BenchError(f"{system.name} has stored {stored:,} readings, and did not accept everything: {ran}")
        found.rounds.append(ran)
        progress(
            f"  at {found.rate * workload.size:,.0f} readings/s: p50 {ran['p50Ms']:.1f}, p99 {ran['p99Ms']:.1f} ms; "
            f"99 % were sent within {ran['lateP99Ms']:.1f} ms of their time"
        )
    return found


def run(folder: Path, names: list[str], rounds: int, seconds: float, *, replica_set: bool) -> tuple[list[Figure], Kept]:
    """Start everything, measure, and return the figures and what is kept of them."""
    with ground(folder, replica_set=replica_set) as at, ExitStack() as stack:
        systems, missing = start(at, names, stack)
        command = [sys.executable, "-m", "bench.bare_insert", at.mongodb.url, FLOOR_DATABASE]
        floor = Floor(at, stack.enter_context(Speaking(command, log=folder / "bare_insert.log")))
        idle = idle_cpu(at)
        progress("idle: " + ", ".join(f"{name} {value * 100:.1f} % of a core" for name, value in idle.items()))
        everyone = Rounds(systems, floor, missing, seconds, idle)
        if seconds >= 1:  # a moment is only to see that it runs
            everyone.warm_up()
        for number in range(rounds):
            everyone.measure(number, rounds)
        found = everyone.found
        waits = {one: waiting(systems[0], one, found[one, OURS], rounds, seconds) for one in P50_P99_MS}
        about = {
            "idleCores": idle,
            "turns": {f"{workload.name}: {name}": turns.each() for (workload, name), turns in found.items()},
            "acknowledged": {workload.name: wait.kept() for workload, wait in waits.items()},
        }
        kept = Kept(table_of(found), missing, about | at.versions())
    return figures_of(found, {workload: wait.p50_p99_ms for workload, wait in waits.items()}), kept


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench pipeline", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often each is measured (default: 5)")
    parser.add_argument("--seconds", type=float, help="how long each is under load (default: 3)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a first look")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--replica-set", action="store_true", help="MongoDB as a replica set of one; default: alone")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help=f"{OURS} and this; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(arguments)
    rounds, seconds = (1, 0.25) if asked.smoke else (2, 1.5) if asked.quick else (5, 3.0)
    names = [name for name in SYSTEMS if name == OURS or not asked.only or name in asked.only]
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, kept = run(
                Path(folder),
                names,
                asked.rounds or rounds,
                asked.seconds or seconds,
                replica_set=asked.replica_set,
            )
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    whole = not (asked.smoke or asked.quick or asked.only or asked.rounds or asked.seconds)
    name = "pipeline_replica_set" if asked.replica_set else "pipeline"
    title = f"A reading's whole way, MongoDB {'as a replica set of one' if asked.replica_set else 'alone'}"
    return finish(name, title, figures, kept, as_json=asked.json, keep=whole)


if __name__ == "__main__":
    sys.exit(main())
