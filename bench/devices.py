"""What a device costs that uses the library, beside one that uses the bare official client, over the same gateway.

Both run in a process of their own, for many devices at once, and send the same readings: one at a time, each awaited
until it is acknowledged; and as they come, where the library may send together what waits, and the bare client awaits
each as before. The library's buffers are files, those of a device that is meant to survive its own end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.environment import Environment, start_environment
from bench.processes import ENDS_WITH_PARENT, ROOT, BenchError
from bench.report import Figure, progress
from bench.results import Details, finish
from runtime.process import raise_fd_limit

MAX_SINGLE_RATIO, MAX_BATCH_RATIO = 1.5, 0.3
TIMEOUT_S = 1800.0
KINDS = ("library", "bare")
COLUMNS = {"µs of CPU a reading": "cpuUs", "readings a second": "perSecond", "kB of memory a device": "kilobytes"}


@dataclass(frozen=True)
class Effort:
    """Devices, readings of each one by one and as they come, and rounds."""

    devices: int
    single: int
    batches: int
    rounds: int


FULL = Effort(2000, 20, 50, 3)
QUICK = Effort(200, 20, 200, 1)
SMOKE = Effort(5, 3, 20, 1)


def measure(environment: Environment, effort: Effort, kind: str, *, batches: bool) -> dict[str, float]:
    """Run one process of devices against a fresh gateway; return its figures."""
    with environment.peer("gateway", 1) as peer:
        plan = {
            "url": f"http://127.0.0.1:{peer.port}",
            "kind": kind,
            "auths": [environment.device_auth(number) for number in range(effort.devices)],
            "each": effort.batches if batches else effort.single,
            "batches": batches,
        }
        done = subprocess.run(
            [*ENDS_WITH_PARENT, sys.executable, "-m", "bench.device_load"],
            cwd=ROOT,
            input=json.dumps(plan) + "\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    environment.empty_queue()
    if done.returncode:
        raise BenchError(f"the devices ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(environment: Environment, effort: Effort) -> tuple[list[Figure], dict[str, dict[str, Any]]]:
    """Measure both kinds in turns."""
    figures: list[Figure] = []
    table: dict[str, dict[str, Any]] = {}
    for batches, what, most in ((False, "one at a time", MAX_SINGLE_RATIO), (True, "as they come", MAX_BATCH_RATIO)):
        rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(effort.rounds):
            for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
                found = measure(environment, effort, kind, batches=batches)
                rounds[kind].append(found)
                progress(f"  {number + 1}/{effort.rounds} {what}, {kind:8} {found['cpuUs']:7.1f} µs a reading")
        of = {kind: {name: median(one[name] for one in rounds[kind]) for name in rounds[kind][0]} for kind in KINDS}
        figures += [
            Figure(f"{what}: the library", of["library"]["cpuUs"], "µs a reading"),
            Figure(f"{what}: the bare client", of["bare"]["cpuUs"], "µs a reading"),
            Figure("  the library, of that", of["library"]["cpuUs"] / of["bare"]["cpuUs"], "x", most),
        ]
        for name, column in COLUMNS.items():
            table[f"{what}, {name}"] = {kind: of[kind][column] for kind in KINDS}
        if not batches:
            for kind, name in zip(KINDS, ("the library", "the bare client"), strict=True):
                figures.append(Figure(f"memory of a device: {name}", of[kind]["kilobytes"], "kB"))
    return figures, table


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench devices", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 devices, one round")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--save", action="store_true", help="store the figures of a smaller run as well")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    raise_fd_limit()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            with start_environment(Path(folder)) as environment:
                figures, table = run(environment, effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    title = f"{effort.devices:,} devices of the library and of the bare client"
    about: dict[str, Any] = {
        "devices": effort.devices,
        "readings": [effort.single, effort.batches],
        "rounds": effort.rounds,
    }
    about["machineLoad"] = load
    details = Details(table, {}, about, table_title="Medians of the rounds")
    return finish("devices", title, figures, details, as_json=options.json, save=effort is FULL or options.save)


if __name__ == "__main__":
    sys.exit(main())
