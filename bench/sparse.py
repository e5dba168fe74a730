"""Many connections with little to say: 5,000 that send one reading every 10 s, and 20,000 that are idle.

Tidegate, an earlier commit of it, and Node.js with the same broker and the same checks take turns; for events also
Tidegate without its compiled modules, where `make build-fast` has built them. Events: the CPU of all processes until
each reading is stored, at one reading a connection every 10 s, and at saturation with one on its way on each
connection. Pings, presence and an idle server's own work count: they are part of keeping connections. Idle: memory and
CPU of a connection, from the slope between two numbers of connections to a fresh server.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.idle import slope
from bench.measurements import (
    SHORTEST_MEASUREMENT_S,
    Measurements,
    Workload,
    idle_cpu,
    measure_system,
    print_measurement,
)
from bench.processes import ROOT, BenchError
from bench.report import Figure, progress
from bench.results import Details, Table, finish
from bench.systems import (
    BEFORE,
    NODE_CHECKED,
    PURE,
    TIDEGATE,
    SharedServers,
    System,
    missing_build,
    running,
    start_servers,
)
from bench.versions import BASE, base_version
from runtime.command_line import whole_number
from runtime.process import raise_fd_limit

# How often a connection has a reading.
EVERY_S = 10.0
# At saturation each connection sends several times in this time.
WARM_UP_S = 3.0
MAX_OF_BEFORE, MIN_OF_NODE = 0.6, 4.0
MAX_MEMORY_RATIO, MAX_CONNECT_RATIO = 0.8, 1.0
# Open files of a process beside its connections.
OTHER_FILES = 200
# Those with idle connections, and the name of each server in `Environment.peer`.
SERVERS = {TIDEGATE: "gateway", BEFORE: "gateway", NODE_CHECKED: "node"}
PARTS = ("events", "idle")


@dataclass(frozen=True)
class Effort:
    """Connections that send, seconds of a turn at their own pace and at saturation, turns; idle connections, turns."""

    connections: int
    paced_s: float
    saturated_s: float
    rounds: int
    idle_from: int
    idle_to: int
    idle_rounds: int


FULL = Effort(5000, 20, 3, 3, 2000, 20_000, 2)
QUICK = Effort(1000, 5, 1, 2, 500, 2000, 1)
SMOKE = Effort(40, 1, 0.2, 1, 20, 120, 1)


def events(
    servers: SharedServers, versions: dict[str, Path], effort: Effort, missing: dict[str, str]
) -> tuple[list[Figure], Table, dict[str, Any]]:
    """Measure events of one reading from all connections, each system in turn."""
    one = Workload(f"{effort.connections:,} connections, one reading each", 1, effort.connections, 1)
    rate = effort.connections / EVERY_S
    found: dict[tuple[str, str], Measurements] = {}
    idle = idle_cpu(servers)
    with ExitStack() as stack:
        systems: list[System] = []
        for name, folder in versions.items():
            progress(f"starting: {name}")
            try:
                systems.append(stack.enter_context(running(servers, name, effort.connections, folder=folder)))
            except BenchError as error:
                if name == TIDEGATE:
                    raise
                missing[name] = str(error)
        shapes: dict[str, tuple[float, float | None]] = {
            "at saturation": (effort.saturated_s, None),
            f"every {EVERY_S:g} s": (effort.paced_s, rate),
        }
        if effort.saturated_s >= SHORTEST_MEASUREMENT_S:
            progress("warming up")
            for system in systems:  # the first reading of a connection costs more, and Node.js compiles hot code
                measure_system(system, one, min(WARM_UP_S, effort.saturated_s), idle)
        for number in range(effort.rounds):
            for what, (seconds, paced) in shapes.items():
                progress(f"  {number + 1}/{effort.rounds} {one.name} {what}")
                for system in systems if number % 2 == 0 else systems[::-1]:
                    measured = measure_system(system, one, seconds, idle, rate=paced)
                    print_measurement(system.name, measured)
                    found.setdefault((what, system.name), Measurements()).all.append(measured)
    figures: list[Figure] = []
    for what in shapes:
        figures += event_figures(
            f"{one.name} {what}", {name: of for (shape, name), of in found.items() if shape == what}
        )
    table = {f"{what}: {name}": measurements.row() for (what, name), measurements in found.items()}
    return figures, table, {f"{what}: {name}": measurements.each() for (what, name), measurements in found.items()}


def _ratio(value: float, base: float) -> float:
    """Return the ratio; 0 where a smoke run is too short for the kernel to have counted any time."""
    return value / base if base else 0.0


def event_figures(what: str, found: dict[str, Measurements]) -> list[Figure]:
    """Return what an event costs each system, and the verdicts on each build of Tidegate."""
    builds = {name: found[name] for name in (TIDEGATE, PURE) if name in found}
    figures = [Figure(f"{what}: {TIDEGATE}, all processes", found[TIDEGATE].total_us, "µs a reading")]
    if (pure := found.get(PURE)) is not None:
        figures.append(Figure(f"  {PURE}", pure.total_us, "µs a reading"))
    if (before := found.get(BEFORE)) is not None:
        figures.append(Figure(f"  {BEFORE}", before.total_us, "µs a reading"))
        for name, ours in builds.items():
            figures += [
                Figure(f"    {name}, of that", _ratio(ours.total_us, before.total_us), "x", MAX_OF_BEFORE),
                Figure("    its gateway, of that", _ratio(ours.row()["gateway"], before.row()["gateway"]), "x"),
            ]
    if (node := found.get(NODE_CHECKED)) is not None:
        figures.append(Figure(f"  {NODE_CHECKED}", node.total_us, "µs a reading"))
        for name, ours in builds.items():
            dearer = _ratio(node.total_us, ours.total_us)
            figures.append(Figure(f"    times as dear as {name}", dearer, "x", at_least=MIN_OF_NODE))
    return figures


def idle_connections(
    servers: SharedServers, versions: dict[str, Path], effort: Effort, most: int
) -> tuple[list[Figure], dict[str, list[tuple[float, float]]]]:
    """Measure memory and CPU of a connection that only connects, each version in turn."""
    more = min(effort.idle_to, most)
    progress(f"idle connections, from {effort.idle_from:,} to {more:,}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for number in range(effort.idle_rounds):
        for name, folder in versions.items():
            one = slope(servers.environment, SERVERS[name], effort.idle_from, more, folder)
            found[name].append(one)
            progress(f"  {number + 1}/{effort.idle_rounds} {name:46} {one[0]:6.1f} kB, {one[1]:6.0f} µs to connect")
    figures = []
    for index, (what, unit, limit) in enumerate(
        (("memory of an idle connection", "kB", MAX_MEMORY_RATIO), ("CPU to connect", "µs", MAX_CONNECT_RATIO))
    ):
        of = {name: median(one[index] for one in rounds) for name, rounds in found.items()}
        figures.append(Figure(f"{what}, of {more:,}: {TIDEGATE}", of[TIDEGATE], unit))
        for name in (BEFORE, NODE_CHECKED):
            if name in of:
                figures.append(Figure(f"  {name}", of[name], unit))
                asked = limit if name == NODE_CHECKED else None
                figures.append(Figure("    Tidegate, of that", _ratio(of[TIDEGATE], of[name]), "x", asked))
    return figures, found


def run(folder: Path, parts: list[str], effort: Effort, most: int) -> tuple[list[Figure], Details]:
    """Start everything, measure, and return the figures and the details to store."""
    figures: list[Figure] = []
    table: Table = {}
    missing: dict[str, str] = {}
    about: dict[str, Any] = {"machineLoad": os.getloadavg()[0], "openFiles": most}
    with start_servers(folder) as servers, base_version(None, folder) as base:
        versions = {TIDEGATE: ROOT, BEFORE: ROOT if base is None else base.folder, NODE_CHECKED: ROOT}
        if base is None:
            missing[BEFORE] = f"this repository has no commit {BASE}"
            del versions[BEFORE]
        if effort != SMOKE:
            if not_built := missing_build():
                missing |= not_built
            else:
                versions[PURE] = ROOT
        if "events" in parts:
            of_events, table, about["turns"] = events(servers, versions, effort, missing)
            figures += of_events
        if "idle" in parts:
            kept = {name: path for name, path in versions.items() if name in SERVERS and name not in missing}
            of_idle, about["idle"] = idle_connections(servers, kept, effort, most)
            figures += of_idle
        about |= servers.versions()
    return figures, Details(table, missing, about)


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench sparse", description=__doc__)
    parser.add_argument(
        "--rounds", type=whole_number(1), help="number of turns of each measurement (default: 3, idle 2)"
    )
    parser.add_argument("--quick", action="store_true", help="1,000 connections, shorter turns")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--save", action="store_true", help="store the figures of a smaller run as well")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    if options.rounds:
        effort = replace(effort, rounds=options.rounds, idle_rounds=options.rounds)
    most = raise_fd_limit() - OTHER_FILES
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, details = run(Path(folder), options.only or list(PARTS), effort, most)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    is_full_run = effort == FULL and not options.only
    title = f"{effort.connections:,} connections with a reading each {EVERY_S:g} s, and idle ones"
    return finish("sparse", title, figures, details, as_json=options.json, save=is_full_run or options.save)


if __name__ == "__main__":
    sys.exit(main())
