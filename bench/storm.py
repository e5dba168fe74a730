"""Thousands of devices connect at once: what one that is connected notices, and how much memory stays with the gateway.

This gateway, an earlier commit of it, and Node.js with the same broker and the same checks take turns, each freshly
started. A device sends 20 readings a second meanwhile, each at its time, whether the one before is acknowledged or not.
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

from bench.environment import Environment, start_environment
from bench.load import percentile
from bench.processes import ROOT, BenchError, LineProcess
from bench.report import Figure, progress
from bench.results import Details, Table, finish
from bench.systems import BEFORE, NODE_CHECKED, TIDEGATE
from bench.versions import BASE, base_version
from runtime.command_line import whole_number
from runtime.process import raise_fd_limit

RATE = 20.0
# The device sends for so long before the others come, and at least so long in all.
QUIET_S, SENDS_S = 1.0, 15.0
SETTLE_S = 3.0
TABLE = "Seconds, milliseconds, and kB of memory"
PEERS = {TIDEGATE: "gateway", BEFORE: "gateway", NODE_CHECKED: "node"}


@dataclass(frozen=True)
class Effort:
    """Devices that connect at once, and turns."""

    devices: int
    rounds: int


FULL, QUICK, SMOKE = Effort(6000, 3), Effort(2000, 1), Effort(30, 1)


@dataclass(frozen=True)
class Storm:
    """One turn: seconds until all were connected, a reading's acknowledgement in ms, and kB of memory a connection."""

    connected_s: float
    p50_ms: float
    longest_ms: float
    kilobytes: float

    def __str__(self) -> str:
        return (
            f"all connected after {self.connected_s:.1f} s, a reading acknowledged after {self.p50_ms:.0f} ms (p50), "
            f"{self.longest_ms:.0f} ms at the longest, {self.kilobytes:.1f} kB a connection"
        )


def storm(environment: Environment, name: str, devices: int, folder: Path) -> Storm:
    """Have that many devices connect at once to a fresh peer."""
    with environment.peer(PEERS[name], devices + 1, folder) as peer, _paced(environment, peer.port, devices) as paced:
        before = peer.server.memory_bytes()
        paced.request({"run": SENDS_S})
        time.sleep(QUIET_S)
        started = time.monotonic()
        peer.load.request({"connect": devices, "atOnce": devices})
        connected_s = time.monotonic() - started
        acknowledged = paced.receive()["acknowledged"]
        time.sleep(SETTLE_S)
        kilobytes = (peer.server.memory_bytes() - before) / devices / 1000
    began_ms = acknowledged[0][0] + QUIET_S * 1000
    each = [at - ts for ts, at in acknowledged if began_ms <= ts < began_ms + connected_s * 1000]
    if not each:
        raise BenchError("no reading was acknowledged while the devices connected")
    return Storm(connected_s, percentile(each, 0.5), max(each), kilobytes)


@contextmanager
def _paced(environment: Environment, port: int, number: int) -> Iterator[LineProcess]:
    command = [sys.executable, "-m", "bench.paced", f"http://127.0.0.1:{port}"]
    with LineProcess(command, log=environment.folder / "paced.log") as device:
        token = environment.device_auth(number)["token"]
        device.send({"token": token, "device": f"device-{number}", "sensorType": "temperature", "rate": RATE})
        yield device


def run(folder: Path, effort: Effort) -> tuple[list[Figure], Details]:
    """Measure every peer in turn; return the figures and the details to store."""
    missing: dict[str, str] = {}
    found: dict[str, list[Storm]] = {}
    with start_environment(folder) as environment, base_version(None, folder) as base:
        folders = {TIDEGATE: ROOT, BEFORE: ROOT if base is None else base.folder, NODE_CHECKED: ROOT}
        if base is None:
            missing[BEFORE] = f"this repository has no commit {BASE}"
            del folders[BEFORE]
        for number in range(effort.rounds):
            for name, of in folders.items():
                if name in missing:
                    continue
                try:
                    one = storm(environment, name, effort.devices, of)
                except BenchError as error:
                    if name == TIDEGATE:
                        raise
                    missing[name] = str(error)
                    continue
                found.setdefault(name, []).append(one)
                progress(f"  {number + 1}/{effort.rounds} {name:28} {one}")
    return _figures(found), Details(_table(found), missing, {"devices": effort.devices}, table_title=TABLE)


def _table(found: dict[str, list[Storm]]) -> Table:
    return {
        name: {
            "connected s": median(one.connected_s for one in storms),
            "p50 ms": median(one.p50_ms for one in storms),
            "longest ms": median(one.longest_ms for one in storms),
            "kB a connection": median(one.kilobytes for one in storms),
        }
        for name, storms in found.items()
    }


def _figures(found: dict[str, list[Storm]]) -> list[Figure]:
    figures: list[Figure] = []
    table = _table(found)
    for what, key, unit in (
        ("all connected after", "connected s", "s"),
        ("a reading's acknowledgement meanwhile, p50", "p50 ms", "ms"),
        ("the longest one", "longest ms", "ms"),
        ("memory of a connection", "kB a connection", "kB"),
    ):
        ours = table[TIDEGATE][key]
        figures.append(Figure(f"{what}: {TIDEGATE}", ours, unit))
        for name in (BEFORE, NODE_CHECKED):
            if name in table:
                figures.append(Figure(f"  {name}", table[name][key], unit))
                figures.append(Figure("    Tidegate, of that", ours / table[name][key] if table[name][key] else 0, "x"))
    return figures


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench storm", description=__doc__)
    parser.add_argument("--devices", type=whole_number(1), help="devices that connect at once (default: 6000)")
    parser.add_argument("--rounds", type=whole_number(1), help="number of turns of each server (default: 3)")
    parser.add_argument("--quick", action="store_true", help="2,000 devices, one turn")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--save", action="store_true", help="store the figures of a smaller run as well")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    given = SMOKE if options.smoke else QUICK if options.quick else FULL
    effort = Effort(options.devices or given.devices, options.rounds or given.rounds)
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, details = run(Path(folder), effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    title = f"{effort.devices:,} devices that connect at once"
    save = effort == FULL or options.save
    return finish("storm", title, figures, details, as_json=options.json, save=save)


if __name__ == "__main__":
    sys.exit(main())
