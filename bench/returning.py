"""A fleet that returns with full buffers: how soon live readings are in history meanwhile, and how fast it drains.

1,000 devices send late readings, 100 an event, as fast as they are acknowledged, beside live devices that send one at a
time. Three turns: live readings alone (the quiet hour), with the backlog on its own lane, and with the same backlog and
no lane. What the machine can do is measured with the backlog alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.history_storage import SampledStorage
from bench.history_systems import VersionSystem, running_version
from bench.load import percentile
from bench.processes import BenchError, LineProcess
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.systems import SharedServers, start_servers
from bench.versions import NOW
from runtime.process import raise_fd_limit

MAX_STORAGE_RATIO, MIN_DRAIN_RATIO = 2.0, 0.8
EVENT_READINGS = 100
BEHIND_MS = 3_600_000
# Devices that stay, and their readings a second together; beside them the sampled one sends 50.
LIVE_DEVICES, LIVE_RATE = 20, 100.0
POLL_S = 0.1
STALLED_S = 60.0


@dataclass(frozen=True)
class Effort:
    """Devices that return, seconds for which they send, and rounds."""

    devices: int
    seconds: float
    rounds: int


FULL = Effort(1000, 20, 3)
QUICK = Effort(1000, 10, 1)
SMOKE = Effort(20, 2, 1)


@dataclass(frozen=True)
class Turn:
    """What one turn found: milliseconds until live readings were acknowledged and stored; late ones stored a second."""

    acknowledged_p99_ms: float
    stored_p50_ms: float
    stored_p99_ms: float
    drained_per_second: float

    def __str__(self) -> str:
        live = f"live readings acknowledged after {self.acknowledged_p99_ms:.0f} ms (p99)"
        live += f", stored after {self.stored_p50_ms:.0f} ms (p50), {self.stored_p99_ms:.0f} ms (p99)"
        return f"{live}, {self.drained_per_second:,.0f} late ones a second"


def run_turn(servers: SharedServers, effort: Effort, *, live: bool, backlog: bool, lane: bool = True) -> Turn:
    """Run one turn on a fresh pipeline."""
    database = f"returning_{'live' if live else 'alone'}_{'backlog' if backlog else 'quiet'}_{'lane' if lane else 'no'}"
    servers.fresh(database)
    gateway = {} if lane else {"BACKFILL_AFTER_SECONDS": "0"}
    with (
        # What is stored is counted in one place: 20 s of it are more than a hot collection holds.
        running_version(servers, NOW, database, LIVE_DEVICES, gateway, SEALING="off") as system,
        _returning(servers, system, effort.devices) as returning,
        SampledStorage(servers.environment, servers.client[database], system, sealing=False) as sampled,
    ):
        servers.flush_writes()
        started = time.monotonic()
        if backlog:
            command = {"run": effort.seconds, "size": EVENT_READINGS, "inFlight": 1, "behindMs": BEHIND_MS}
            returning.send(command)
        each_ms, acknowledged_ms = _live(system, sampled, effort.seconds) if live else ([], 0.0)
        drained = _drained(servers, returning, database, started) if backlog else 0.0
    servers.client.drop_database(database)
    return Turn(acknowledged_ms, percentile(each_ms, 0.5), percentile(each_ms, 0.99), drained)


@contextmanager
def _returning(servers: SharedServers, system: VersionSystem, devices: int) -> Iterator[LineProcess]:
    """Connect the devices that return; they are not those that stay."""
    environment = servers.environment
    command = [sys.executable, "-m", "bench.load", str(system.port)]
    with LineProcess(command, log=environment.folder / "returning-load.log") as load:
        load.send([environment.device_auth(LIVE_DEVICES + number) for number in range(devices)])
        load.request({"connect": devices})
        yield load


def _live(system: VersionSystem, sampled: SampledStorage, seconds: float) -> tuple[list[float], float]:
    """Send live readings; return the milliseconds until each sampled one was stored, and until 99 % were answered."""
    system.load.send({"run": seconds, "size": 1, "rate": LIVE_RATE, "inFlight": 1})
    each_ms = sampled.each_ms(seconds)
    ran = system.load.receive()
    _require_accepted(ran)
    return each_ms, ran["p99Ms"]


def _drained(servers: SharedServers, returning: LineProcess, database: str, started: float) -> float:
    """Wait until every late reading is stored; return how many were per second, from the first event on."""
    ran = returning.receive()
    _require_accepted(ran)
    expected = ran["acknowledged"] * EVENT_READINGS
    collection = servers.client[database]["readings"]
    count, since = -1, time.monotonic()
    while (found := collection.estimated_document_count()) < expected:
        if found > count:
            count, since = found, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            raise BenchError(f"{expected - found:,} of {expected:,} late readings are not stored")
        time.sleep(POLL_S)
    return float(expected / (time.monotonic() - started))


def _require_accepted(ran: dict[str, Any]) -> None:
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"not everything was accepted: {ran}")


def run(servers: SharedServers, effort: Effort) -> tuple[list[Figure], dict[str, dict[str, Any]]]:
    """Run all turns in each round; return the figures, and a table of the medians."""
    turns = {
        "a quiet hour": {"live": True, "backlog": False},
        "a backlog on its own lane": {"live": True, "backlog": True},
        "the same without the lane": {"live": True, "backlog": True, "lane": False},
        "the backlog alone": {"live": False, "backlog": True},
    }
    found: dict[str, list[Turn]] = {name: [] for name in turns}
    for number in range(effort.rounds):
        for name in turns if number % 2 == 0 else reversed(turns):
            found[name].append(run_turn(servers, effort, **turns[name]))
            progress(f"  {number + 1}/{effort.rounds} {name}: {found[name][-1]}")
    table = {
        name: {
            "live, acknowledged p99, ms": median(one.acknowledged_p99_ms for one in of),
            "live, stored p50, ms": median(one.stored_p50_ms for one in of),
            "live, stored p99, ms": median(one.stored_p99_ms for one in of),
            "late readings a second": median(one.drained_per_second for one in of),
        }
        for name, of in found.items()
    }
    quiet, lane, no_lane, alone = table.values()
    figures = []
    for column in ("live, stored p50, ms", "live, stored p99, ms"):
        figures += [
            Figure(f"{column}: a quiet hour", quiet[column], "ms"),
            Figure("  with the backlog on its own lane", lane[column], "ms"),
            Figure("    of a quiet hour", lane[column] / quiet[column], "x", MAX_STORAGE_RATIO),
            Figure("  with the backlog and no lane", no_lane[column], "ms"),
        ]
    column = "late readings a second"
    figures += [
        Figure(f"{column}, alone", alone[column], "a second"),
        Figure("  beside live readings", lane[column], "a second"),
        Figure("    of alone", lane[column] / alone[column], "x", at_least=MIN_DRAIN_RATIO),
    ]
    return figures, table


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench returning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten seconds, one round")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            with start_servers(Path(folder)) as servers:
                figures, table = run(servers, effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    title = f"{effort.devices:,} devices return with full buffers"
    about = {"devices": effort.devices, "seconds": effort.seconds, "rounds": effort.rounds}
    details = Details(table, {}, about, table_title="Medians of the rounds")
    return finish("returning", title, figures, details, as_json=options.json, save=effort is FULL)


if __name__ == "__main__":
    sys.exit(main())
