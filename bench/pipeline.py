"""End to end, from the device's socket to MongoDB: Tidegate and its alternatives, alternating.

CPU is that of all server processes: server, RabbitMQ, consumer, mongod; the load generator's is shown separately. A
measurement's time ends when all acknowledged readings are stored, its CPU when mongod has also written its pages. Every
write is journaled and waits for the majority, tokens are real and verified at connect, and there are 1,000 series with
changing values. The collection is an ordinary one, the default; "clustered" is Tidegate on a clustered one. Tidegate
has compiled modules if `make build-fast` has built them; beside it run the same without them, and an earlier commit.
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

from bench.measurements import (
    SHORTEST_MEASUREMENT_S,
    Measurement,
    Measurements,
    Workload,
    idle_cpu,
    measure_bare_insert,
    measure_system,
    print_measurement,
    wait_until_stored,
)
from bench.processes import ROOT, BenchError, LineProcess
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.systems import (
    BEFORE,
    FLOOR,
    OURS,
    PURE,
    SYSTEMS,
    TIDEGATE,
    VERSIONS,
    SharedServers,
    System,
    missing_build,
    running,
    start_servers,
)
from bench.targets import MAX_P50_P99_MS, WORKLOADS, Found, figures_of, table_of
from bench.versions import BASE, base_version
from runtime.command_line import positive_number, whole_number
from runtime.process import raise_fd_limit

CONNECTIONS = max(workload.connections for workload in WORKLOADS)
ORDER_SEED = 1
WARM_UP_S = 2.0  # Node.js compiles hot code in the first seconds
FLOOR_READINGS_A_SECOND = 240_000  # of `--seconds`: about as many as Tidegate stores in one measurement
FLOOR_DATABASE = "bench_floor"


class Floor:
    """A bare client that inserts into the same kind of collection."""

    name = FLOOR

    def __init__(self, servers: SharedServers, client: LineProcess) -> None:
        self._servers = servers
        self._client = client

    def measure(self, seconds: float, idle: dict[str, float]) -> Measurement:
        """Insert raw BSON, the readings of the last workload."""
        self._servers.fresh(FLOOR_DATABASE)
        return measure_bare_insert(self._servers, self._client, round(seconds * FLOOR_READINGS_A_SECOND), idle)


def start(
    servers: SharedServers, names: list[str], stack: ExitStack, folder: Path
) -> tuple[list[System], dict[str, str]]:
    """Start systems; return those that run, and the reasons of the others. `folder` is for a checkout."""
    systems = list[System]()
    missing = missing_build() if PURE in names else {}
    if missing:
        names = [name for name in names if name != PURE]
    for name in names:
        progress(f"starting: {name}")
        try:
            base = stack.enter_context(base_version(None, folder)) if name == BEFORE else None
            if name == BEFORE and base is None:
                missing[name] = f"this repository has no commit {BASE}"
                continue
            code = ROOT if base is None else base.folder
            systems.append(stack.enter_context(running(servers, name, CONNECTIONS, folder=code)))
        except BenchError as error:
            if name == TIDEGATE:
                raise
            missing[name] = str(error)
            progress(f"  not measured: {error}")
    return systems, missing


class Rounds:
    """The rounds of all systems. A failing system is excluded from then on and named; if Tidegate fails, it raises."""

    def __init__(
        self, systems: list[System], floor: Floor, missing: dict[str, str], seconds: float, idle: dict[str, float]
    ) -> None:
        self._systems = systems
        self._floor = floor
        self._missing = missing
        self._seconds = seconds
        self._idle = idle
        # Shuffled, so that the leftovers of one system do not always burden the same successor.
        self._order = random.Random(ORDER_SEED)
        self.found: Found = {}

    def warm_up(self) -> None:
        """Run each workload once on all systems: series are new, and code is not compiled yet."""
        progress("warming up")
        for workload in WORKLOADS:
            for one in self._participants(workload):
                self._measure(one, workload, min(WARM_UP_S, self._seconds))

    def measure(self, number: int, rounds: int) -> None:
        """Measure every workload once on all systems, in random order; the floor with the last workload."""
        for workload in WORKLOADS:
            progress(f"  {number + 1}/{rounds} {workload.name}")
            for one in self._participants(workload):
                if (measurement := self._measure(one, workload, self._seconds)) is not None:
                    print_measurement(one.name, measurement)
                    self.found.setdefault((workload, one.name), Measurements()).all.append(measurement)

    def _participants(self, workload: Workload) -> list[System | Floor]:
        participants: list[System | Floor] = [*self._systems]
        if workload is WORKLOADS[-1]:
            participants.append(self._floor)
        self._order.shuffle(participants)
        return participants

    def _measure(self, one: System | Floor, workload: Workload, seconds: float) -> Measurement | None:
        if isinstance(one, Floor):
            return one.measure(seconds, self._idle)
        if one.name in self._missing:
            return None
        try:
            return measure_system(one, workload, seconds, self._idle)
        except BenchError as error:
            if one.name in OURS and one.name != BEFORE:
                raise
            self._missing[one.name] = f"excluded during the run; its remaining work may slow down the others: {error}"
            progress(f"    {one.name} is excluded from now on: {error}")
            return None


@dataclass
class AckRounds:
    """The acknowledgement latencies at half of saturation, per round."""

    rate: float
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def p50_p99_ms(self) -> tuple[float, float]:
        """The medians over the rounds."""
        return median(one["p50Ms"] for one in self.rounds), median(one["p99Ms"] for one in self.rounds)

    def details(self) -> dict[str, Any]:
        """Return the details to store: each round's percentiles, histogram and send delay."""
        names = ("p50Ms", "p99Ms", "lateP99Ms", "histogram")
        return {"eventsPerSecond": self.rate, "rounds": [{name: one[name] for name in names} for one in self.rounds]}


def measure_acks(
    system: System, workload: Workload, measurements: Measurements, rounds: int, seconds: float
) -> AckRounds:
    """Measure at half of the sustained storage rate; acknowledgements alone can exceed it for a while."""
    found = AckRounds(measurements.per_second / workload.size / 2)
    for _ in range(rounds):
        collection = system.fresh()
        system.servers.flush_writes()
        started = time.perf_counter()
        ran = system.load.request(workload.command(seconds, found.rate))
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


def run(
    folder: Path, names: list[str], rounds: int, seconds: float, *, replica_set: bool
) -> tuple[list[Figure], Details]:
    """Start everything, measure, and return the figures and the details to store."""
    with start_servers(folder, replica_set=replica_set) as servers, ExitStack() as stack:
        systems, missing = start(servers, names, stack, folder)
        command = [sys.executable, "-m", "bench.bare_insert", servers.mongodb.url, FLOOR_DATABASE]
        floor = Floor(servers, stack.enter_context(LineProcess(command, log=folder / "bare_insert.log")))
        idle = idle_cpu(servers)
        progress("idle: " + ", ".join(f"{name} {value * 100:.1f} % of a core" for name, value in idle.items()))
        all_rounds = Rounds(systems, floor, missing, seconds, idle)
        if seconds >= SHORTEST_MEASUREMENT_S:
            all_rounds.warm_up()
        for number in range(rounds):
            all_rounds.measure(number, rounds)
        found = all_rounds.found
        acks = {one: measure_acks(systems[0], one, found[one, TIDEGATE], rounds, seconds) for one in MAX_P50_P99_MS}
        about = {
            "idleCores": idle,
            "turns": {
                f"{workload.name}: {name}": measurements.each() for (workload, name), measurements in found.items()
            },
            "acknowledged": {workload.name: ack_rounds.details() for workload, ack_rounds in acks.items()},
        }
        details = Details(table_of(found), missing, about | servers.versions())
    return figures_of(found, {workload: ack_rounds.p50_p99_ms for workload, ack_rounds in acks.items()}), details


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench pipeline", description=__doc__)
    parser.add_argument("--rounds", type=whole_number(1), help="number of rounds (default: 5)")
    parser.add_argument("--seconds", type=positive_number, help="duration of each measurement (default: 3)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument(
        "--replica-set", action="store_true", help="MongoDB as a replica set of one (default: standalone)"
    )
    parser.add_argument(
        "--only", action="append", choices=(*SYSTEMS, *VERSIONS), help=f"{TIDEGATE} and this system; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 0.25) if options.smoke else (2, 1.5) if options.quick else (5, 3.0)
    usual = SYSTEMS if options.smoke else (*SYSTEMS, *VERSIONS)
    names = [name for name in (*SYSTEMS, *VERSIONS) if name == TIDEGATE or name in (options.only or usual)]
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, details = run(
                Path(folder),
                names,
                options.rounds or rounds,
                options.seconds or seconds,
                replica_set=options.replica_set,
            )
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    is_full_run = not (options.smoke or options.quick or options.only or options.rounds or options.seconds)
    name = "pipeline_replica_set" if options.replica_set else "pipeline"
    title = f"A reading's whole way, MongoDB {'as a replica set of one' if options.replica_set else 'alone'}"
    return finish(name, title, figures, details, as_json=options.json, save=is_full_run)


if __name__ == "__main__":
    sys.exit(main())
