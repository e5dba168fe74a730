"""A reading's whole way on Python 3.11, 3.13 and 3.14: services as they are, and with compiled modules.

In turns, in one run, on the same servers. All three Pythons are Debian's, built alike, each with the C library of its
suite; as root on Debian they are unpacked beside this machine's (testing/servers). This one runs as well, but is not
compared: it may be built otherwise. The verdict is on the Python of the image, against the cheapest of the three:
the processor time of gateway and persister, the processes that run on it.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.measurements import Measurement, idle_cpu, measure_system, print_measurement
from bench.processes import ROOT, BenchError
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.systems import SharedServers, System, running_on, start_servers
from bench.targets import W1, W100
from runtime.command_line import whole_number
from runtime.process import raise_fd_limit
from testing.servers.debian import NotAvailableError, unpacked, unpacked_version, write_wrapper
from testing.servers.pythons import packages_for

OWN = "own"
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
PACKAGES = ("python3-dev", "gcc", "libc6-dev", "libstdc++6", "tzdata")
REQUIREMENTS = ROOT / "requirements"
# What the two services and the build need, as in the image.
SOURCES = ("access", "broker", "gateway", "persister", "readings", "runtime", "storage", "tools/build_fast.py")
FILES = ("pyproject.toml", "requirements/build.txt")
BUILD_TIMEOUT_S = 900
WORKLOADS = (W1, W100)
ON_PYTHON = ("gateway", "persister")
# A difference below this is one of two turns on a busy machine, not of two Pythons.
MAX_RATIO = 1.05


@dataclass(frozen=True)
class Python:
    """An interpreter with the services' packages; `folder` has their sources, and a build of its own in build/."""

    version: str
    program: Path
    folder: Path
    compiled: bool

    @property
    def names(self) -> list[str]:
        """What is measured on it."""
        return [f"Python {self.version}", *([f"Python {self.version}, compiled"] if self.compiled else [])]


def prepare(which: str, folder: Path, missing: dict[str, str], *, compiled: bool) -> Python:
    """Return a Python that can run the services; NotAvailableError. What cannot be compiled is noted in `missing`."""
    program, packages = folder / f"python-{which}", tuple[Path, ...]()
    if which == OWN:
        version = f"{platform.python_version()} of this machine"
        write_wrapper(program, None, sys.executable)
    else:
        root = unpacked(SUITES[which], *PACKAGES)
        version = unpacked_version(root)
        if not version.startswith(f"{which}."):
            raise NotAvailableError(f"Debian {SUITES[which]} has Python {version}")
        services = packages_for(root, version, REQUIREMENTS / "services.txt")
        packages = (packages_for(root, version, REQUIREMENTS / "build.txt"),) if compiled else ()
        write_wrapper(program, root, "/usr/bin/python3", PYTHONPATH=services)
    made = copied(folder / which)
    if compiled and (why := built(program, made, packages)):
        missing[f"Python {version}, compiled"] = why
        compiled = False
    return Python(version, program, made, compiled)


def copied(folder: Path) -> Path:
    """Return a folder with the sources of the services, so that each Python has a build of its own."""
    for name in SOURCES + FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def built(program: Path, folder: Path, packages: tuple[Path, ...]) -> str:
    """Compile the modules of a copy; return why that fails, empty if it does not."""
    progress(f"compiling for {program.name}")
    environment = os.environ | {"PYTHONPATH": ":".join(map(str, packages))}
    command = [str(program), "tools/build_fast.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
    )
    return done.stderr.strip().splitlines()[0] if done.returncode else ""


Found = dict[str, dict[str, list[Measurement]]]
"""The turns, by workload and system."""


def on_python(turns: list[Measurement]) -> float:
    """Return the median of what runs on the Python, in µs a reading."""
    return median(sum(one.cpu_us[process] for process in ON_PYTHON) for one in turns)


def image_version(dockerfile: str) -> str:
    """Return the version of the Python that the image runs, such as "3.13"."""
    versions = set(re.findall(r"^FROM python:(\d+\.\d+)", dockerfile, re.MULTILINE))
    if len(versions) != 1:
        raise BenchError(f"the Dockerfile has not one Python: {sorted(versions)}")
    return str(versions.pop())


def figures_of(found: Found, image: str) -> list[Figure]:
    """Return what each system takes, and for each workload a verdict on the image's Python, as it is and compiled."""
    figures: list[Figure] = []
    for workload, systems in found.items():
        figures.append(Figure(workload, 0, ""))
        for name, turns in systems.items():
            each = [sum(one.cpu_us[process] for process in ON_PYTHON) for one in turns]
            figures.append(Figure(f"{name}: gateway and persister", median(each), "µs a reading"))
            figures.append(Figure("  from", min(each), "µs a reading"))
            figures.append(Figure("  to", max(each), "µs a reading"))
            for process in ON_PYTHON:
                part = median(one.cpu_us[process] for one in turns)
                figures.append(Figure(f"  {process}", part, "µs a reading"))
            figures.append(Figure("  all processes", median(one.total_us for one in turns), "µs a reading"))
        for build in ("", ", compiled"):
            figures += _verdict(systems, image, build)
    return figures


def _verdict(systems: dict[str, list[Measurement]], image: str, build: str) -> list[Figure]:
    """Return the ratio of each Python to Python 3.11, and of the image's to the cheapest; Debian's Pythons only."""
    pattern = re.compile(rf"Python (\d+\.\d+)\.\d+{build}")
    costs = {match[1]: on_python(turns) for name, turns in systems.items() if (match := pattern.fullmatch(name))}
    oldest = next(iter(SUITES))
    figures = [
        Figure(f"Python {version}{build}, of {oldest}'s", cost / costs[oldest], "x")
        for version, cost in costs.items()
        if oldest in costs and version != oldest
    ]
    if image in costs and len(costs) > 1:
        ratio = costs[image] / min(costs.values())
        figures.append(Figure(f"the image's Python {image}{build}, of the cheapest", ratio, "x", MAX_RATIO))
    return figures


def measure(servers: SharedServers, pythons: list[Python], rounds: int, seconds: float) -> Found:
    """Measure all Pythons in turns."""
    found: Found = {workload.name: {} for workload in WORKLOADS}
    connections = max(workload.connections for workload in WORKLOADS)
    with ExitStack() as stack:
        systems: list[System] = []
        for python in pythons:
            for name in python.names:
                progress(f"starting: {name}")
                running = running_on(
                    servers,
                    name,
                    connections,
                    python=str(python.program),
                    folder=python.folder,
                    compiled=name.endswith("compiled"),
                )
                systems.append(stack.enter_context(running))
        idle = idle_cpu(servers)
        for number in range(rounds):
            for workload in WORKLOADS:
                progress(f"  {number + 1}/{rounds} {workload.name}")
                for system in systems if number % 2 == 0 else systems[::-1]:
                    one = measure_system(system, workload, seconds, idle)
                    if one.lost:
                        raise BenchError(f"{system.name} has acknowledged {one.lost:,} readings that it did not store")
                    print_measurement(system.name, one)
                    found[workload.name].setdefault(system.name, []).append(one)
    return found


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench pythons", description=__doc__)
    parser.add_argument("--only", action="append", choices=(*SUITES, OWN), help="one of them; may be repeated")
    parser.add_argument("--pure", action="store_true", help="compile nothing")
    parser.add_argument("--rounds", type=whole_number(1), metavar="N", help="number of rounds (default: 7)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    rounds, seconds = (1, 0.25) if options.smoke else (3, 1.5) if options.quick else (7, 3.0)
    rounds = options.rounds or rounds
    missing: dict[str, str] = {}
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as temporary:
        folder, pythons = Path(temporary), []
        for which in options.only or (*SUITES, OWN):
            try:
                pythons.append(prepare(which, folder, missing, compiled=not options.pure))
            except NotAvailableError as error:
                missing[f"Python {which}"] = str(error)
        if not pythons:
            print(*missing.values(), sep="\n", file=sys.stderr)
            return 2
        try:
            with start_servers(folder) as servers:
                found = measure(servers, pythons, rounds, seconds)
                about = {
                    "turns": {
                        f"{workload}: {name}": [one.cpu_us for one in turns]
                        for workload, systems in found.items()
                        for name, turns in systems.items()
                    }
                }
                details = Details(not_measured=missing, about=about | servers.versions())
            figures = figures_of(found, image_version((ROOT / "Dockerfile").read_text()))
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    is_full_run = not (options.smoke or options.quick or options.only or options.pure or options.rounds)
    return finish("pythons", "Pythons", figures, details, as_json=options.json, save=is_full_run)


if __name__ == "__main__":
    sys.exit(main())
