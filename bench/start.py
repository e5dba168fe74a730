"""How long a start takes: a onebox to its first stored reading, and each service until it is ready.

Both versions in turns, on one machine, with all files in its cache and all modules compiled to bytecode, as in the
image and after a first start: this tree, and the commit that the targets are ratios to. A service is ready when its
`/readyz` says so; RabbitMQ, MongoDB and `auth` are up by then. The target is for the onebox, and for the service that
was slowest.
"""

import argparse
import compileall
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.environment import Environment, start_environment
from bench.history_comparison import Comparison
from bench.processes import BenchError, BenchProcess
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.versions import BASE, NOW, Version, base_version
from runtime.command_line import whole_number
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port

MAX_RATIO = 0.5
TIMEOUT_S = 60.0
POLL_S = 0.01
# Collecting the metrics of a onebox takes it 10 ms.
METRICS_POLL_S = 0.1
STORED = re.compile(r'^tidegate_persister_readings_total\{outcome="stored"\} [1-9]', re.MULTILINE)
SECRET = "a secret of this benchmark only"
SERVICES = ("auth", "gateway", "persister", "reader")


@dataclass(frozen=True)
class Started:
    """Seconds from the start of the process, and the CPU seconds that it has taken by then (not its children)."""

    seconds: float
    cpu_s: float


def until(process: BenchProcess, url: str, is_so: Callable[[str], bool], poll_s: float = POLL_S) -> Started:
    """Ask until the answer is as wanted; BenchError if the process ends, or after TIMEOUT_S."""
    began = time.monotonic()
    while time.monotonic() < began + TIMEOUT_S:
        process.require_running()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
                if is_so(answer.read().decode()):
                    return Started(time.monotonic() - began, process.cpu_s())
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(poll_s)
    raise BenchError(f"{url} has not given what it should in {TIMEOUT_S:g} s\n{process.log_tail()}")


def onebox(version: Version, data: Path, log: Path) -> Started:
    """Start a onebox with one device; return when its first reading is stored."""
    ops_port = free_port()
    arguments = ("--devices", "1", "--rate", "20", "--port", "0", "--data", str(data))
    settings = {"OPS_PORT": str(ops_port), "OPS_HOST": "127.0.0.1"}
    with version.service("onebox", *arguments, log=log, settings=settings) as process:
        return until(process, f"http://127.0.0.1:{ops_port}/metrics", stored, METRICS_POLL_S)


def stored(metrics: str) -> bool:
    """Return whether the persister of these metrics has stored a reading."""
    return STORED.search(metrics) is not None


def compile_modules(version: Version) -> None:
    """Write the bytecode of its modules, which PYTHONDONTWRITEBYTECODE keeps a start from writing."""
    for package in {file.parent for file in version.folder.glob("*/__init__.py")}:
        compileall.compile_dir(package, quiet=2)


class Sites:
    """What services need, the same for both versions; users' databases are their own."""

    def __init__(self, environment: Environment, mongodb: MongoDBServer, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._readings = {"READINGS_URL": mongodb.url, "READINGS_DATABASE": "start"}

    def started(self, version: Version, service: str) -> Started:
        """Start a service; return when it is ready."""
        port, ops_port = free_port(), free_port()
        settings = self._environment.gateway_settings(port, ops_port) | self._readings
        if service == "auth":
            users = self._folder / f"{version.name}-users.sqlite3"
            settings |= {"AUTH_DATABASE_URL": f"sqlite+aiosqlite:///{users}", "SIGNING_KEY_SECRET": SECRET}
            if not users.exists():
                self._migrated(version, settings)
        log = self._folder / f"{version.name}-{service}.log"
        with version.service(service, log=log, settings=settings) as process:
            return until(process, f"http://127.0.0.1:{ops_port}/readyz", lambda _: True)

    def _migrated(self, version: Version, settings: dict[str, str]) -> None:
        command = [sys.executable, "-m", "auth", "migrate"]
        subprocess.run(command, cwd=version.folder, env=os.environ | settings, check=True, timeout=TIMEOUT_S)


def in_turns(versions: list[Version], rounds: int, start: Callable[[Version, int], Started]) -> dict[str, Started]:
    """Start each version so often; return the medians."""
    found: dict[str, list[Started]] = {version.name: [] for version in versions}
    for number in range(rounds):
        for version in versions if number % 2 == 0 else versions[::-1]:
            found[version.name].append(start(version, number))
    return {
        name: Started(median(one.seconds for one in all_), median(one.cpu_s for one in all_))
        for name, all_ in found.items()
    }


def compared(what: str, found: dict[str, Started], at_most: float | None = None) -> list[Figure]:
    """Return the lines of one start; `at_most` is a limit of the ratio of its seconds."""
    now, before = found[NOW.name], found.get("before")
    if before is None:
        return [Figure(what, now.seconds, "s"), Figure(f"{what}: its CPU", now.cpu_s, "s")]
    return [
        *Comparison(what, "s", now.seconds, before.seconds).figures(),
        Figure("  of that", now.seconds / before.seconds, "x", at_most),
        *Comparison(f"{what}: its CPU", "s", now.cpu_s, before.cpu_s).figures(),
        Figure("  of that", now.cpu_s / before.cpu_s, "x"),
    ]


def run(
    environment: Environment, mongodb: MongoDBServer, folder: Path, base: Version | None, rounds: int
) -> list[Figure]:
    """Measure everything."""
    versions = [NOW, *([base] if base else [])]
    sites = Sites(environment, mongodb, folder)

    def begun(version: Version, number: int) -> Started:
        return onebox(version, folder / f"data-{version.name}-{number}", folder / "onebox.log")

    lines: list[Figure] = []
    for version in versions:
        compile_modules(version)
    for which in ("the first start", "the second start"):
        progress(f"onebox: {which}")
        lines += compared(f"onebox to the first stored reading, {which}", in_turns(versions, rounds, begun), MAX_RATIO)
    services: dict[str, dict[str, Started]] = {}
    for service in SERVICES:
        progress(f"{service}: start to ready")
        services[service] = in_turns(versions, rounds, lambda version, _, name=service: sites.started(version, name))  # type: ignore[misc]
    slowest = max(SERVICES, key=lambda service: services[service][versions[-1].name].seconds)
    for service, found in services.items():
        lines += compared(f"{service} to ready", found, MAX_RATIO if service == slowest else None)
    return lines


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench start", description=__doc__)
    parser.add_argument("--base", type=Path, metavar="DIR", help=f"a checkout of {BASE} (default: a work tree)")
    parser.add_argument(
        "--rounds", type=whole_number(1), metavar="N", help="starts of each kind and version (default: 5)"
    )
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    rounds = 1 if options.smoke else options.rounds or 5
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as temporary:
        folder = Path(temporary)
        try:
            with (
                base_version(options.base, folder) as base,
                start_environment(folder) as environment,
                MongoDBServer(folder / "mongodb") as mongodb,
            ):
                figures = run(environment, mongodb, folder, base, rounds)
                missing = {} if base else {"the comparison": f"this repository has no commit {BASE}"}
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    details = Details(not_measured=missing, about={"rounds": rounds})
    return finish(
        "start", "From start to use", figures, details, as_json=options.json, save=not (options.smoke or options.rounds)
    )


if __name__ == "__main__":
    sys.exit(main())
