"""A reading's whole way, from the device's socket to MongoDB: Tidegate and what one would otherwise take, in turns.

CPU is that of all processes at the serving end: server, RabbitMQ, consumer, mongod. The load's own is shown apart. A
turn ends when everything that was acknowledged is stored. Every write is journaled and waits for the majority, tokens
are real and verified at connect, and there are 1,000 series whose values change. The collection is an ordinary one,
which is the default; "clustered" is Tidegate on a clustered one.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.processes import BenchError, Speaking
from bench.report import Figure, progress
from bench.results import Kept, finish
from bench.systems import FLOOR, OURS, SYSTEMS, Ground, System, ground, running
from bench.turns import Turn, Turns, Workload, bare_turn, idle_cpu, told, turn, wait_until_stored
from bench.verdicts import P50_P99_MS, WORKLOADS, Found, Waits, figures_of, table_of
from runtime.process import raise_open_files

CONNECTIONS = max(workload.connections for workload in WORKLOADS)
WARM_UP_S = 2.0  # Node.js compiles what is hot in the first seconds
FLOOR_READINGS_A_SECOND = 60_000  # of `--seconds`: enough for a mongod that is measured in hundredths of a second
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


def warm_up(systems: list[System], seconds: float) -> None:
    """Let everyone meet each workload: its series are new, its code is not compiled yet."""
    progress("warming up")
    for system in systems:
        for workload in WORKLOADS:
            turn(system, workload, min(WARM_UP_S, seconds), {})


def in_turns(systems: list[System], floor: Floor, rounds: int, seconds: float, idle: dict[str, float]) -> Found:
    """Measure every workload on every system, each round in another order; the floor beside the last workload."""
    found: Found = {}
    for number in range(rounds):
        for workload in WORKLOADS:
            progress(f"  {number + 1}/{rounds} {workload.name}")
            everyone: list[System | Floor] = [*systems]
            if workload is WORKLOADS[-1]:
                everyone.append(floor)
            first = number % len(everyone)
            for one in everyone[first:] + everyone[:first]:
                took = turn(one, workload, seconds, idle) if isinstance(one, System) else one.turn(seconds, idle)
                told(one.name, took)
                found.setdefault((workload, one.name), Turns()).all.append(took)
                if isinstance(one, System):
                    one.fresh()  # nothing of it is left to be written while the next has its turn
    return found


def latencies(system: System, workload: Workload, turns: Turns, rounds: int, seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of the acknowledgement at half of saturation, in ms: medians of rounds."""
    # Of what is stored for as long as one likes: more is acknowledged for a while, and the queue grows.
    rate = turns.per_second / workload.size / 2
    ran = []
    for _ in range(rounds):
        collection, started = system.fresh(), time.perf_counter()
        ran.append(system.load.ask(workload.asked(seconds, rate)))
        if ran[-1]["refused"] or ran[-1]["unanswered"]:
            raise BenchError(f"{system.name} did not accept everything: {ran[-1]}")
        wait_until_stored(system, collection, ran[-1]["acknowledged"] * workload.size, started)
        progress(
            f"  at {rate * workload.size:,.0f} readings/s: p50 {ran[-1]['p50Ms']:.1f}, p99 {ran[-1]['p99Ms']:.1f} ms"
        )
    return median(one["p50Ms"] for one in ran), median(one["p99Ms"] for one in ran)


def run(folder: Path, names: list[str], rounds: int, seconds: float, *, replica_set: bool) -> tuple[list[Figure], Kept]:
    """Start everything, measure, and return the figures and what is kept of them."""
    with ground(folder, replica_set=replica_set) as at, ExitStack() as stack:
        systems, missing = start(at, names, stack)
        command = [sys.executable, "-m", "bench.bare_insert", at.mongodb.url, FLOOR_DATABASE]
        floor = Floor(at, stack.enter_context(Speaking(command, log=folder / "bare_insert.log")))
        if seconds >= 1:  # a moment is only to see that it runs
            warm_up(systems, seconds)
        idle = idle_cpu(at)
        progress("idle: " + ", ".join(f"{name} {value * 100:.1f} % of a core" for name, value in idle.items()))
        found = in_turns(systems, floor, rounds, seconds, idle)
        waits: Waits = {}
        for workload in P50_P99_MS:
            waits[workload] = latencies(systems[0], workload, found[workload, OURS], rounds, seconds)
        kept = Kept(table_of(found), missing, {"idleCores": idle} | at.versions())
    return figures_of(found, waits), kept


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
    raise_open_files()
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
    whole = not (asked.smoke or asked.quick or asked.only)
    name = "pipeline_replica_set" if asked.replica_set else "pipeline"
    title = f"A reading's whole way, MongoDB {'as a replica set of one' if asked.replica_set else 'alone'}"
    return finish(name, title, figures, kept, as_json=asked.json, keep=whole)


if __name__ == "__main__":
    sys.exit(main())
