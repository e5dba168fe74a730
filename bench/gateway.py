"""The gateway beside a Node.js Socket.IO server and stock python-socketio: CPU, memory, latency; in turns, in one run.

The peers only acknowledge; the gateway checks tokens, decodes, checks, encodes, and acknowledges after RabbitMQ's
confirm. Its CPU is its own process's: RabbitMQ's is not in it, and neither is the load's.
"""

import argparse
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from bench.idle import idle
from bench.latency import latency
from bench.processes import BenchError
from bench.readings import event
from bench.report import Figure, progress, show
from bench.stage import NAMES, Peer, Stage, stage
from readings.reading import ReadingPayload
from runtime.process import raise_fd_limit

CONNECTIONS = 20
IN_FLIGHT = 10
BATCH = 100
# Far below what any of them takes: each event finds its server asleep. At saturation a server reads many at once.
EQUAL_RATE = 4000
PARTS = ("one", "equal", "batch", "latency", "idle")


@dataclass(frozen=True)
class Effort:
    """How long and how often things are measured."""

    rounds: int
    seconds: float
    idle_rounds: int
    idle_from: int
    idle_to: int


FULL = Effort(rounds=5, seconds=3, idle_rounds=3, idle_from=1000, idle_to=4000)
QUICK = Effort(rounds=3, seconds=1, idle_rounds=1, idle_from=200, idle_to=1000)
SMOKE = Effort(rounds=1, seconds=0.2, idle_rounds=1, idle_from=20, idle_to=60)


@contextmanager
def all_peers(on: Stage) -> Iterator[dict[str, Peer]]:
    """Run every peer, connected and warmed up."""
    with ExitStack() as running:
        peers = {name: running.enter_context(on.peer(name, CONNECTIONS)) for name in NAMES}
        for peer in peers.values():
            peer.load.ask({"connect": CONNECTIONS})
            for size in (1, BATCH):
                measure(peer, 0.5, size)
        yield peers


def measure(
    peer: Peer, seconds: float, size: int, rate: float | None = None, *, placed: bool = False
) -> tuple[float, float]:
    """Return the server's CPU in µs a reading, and readings a second, with events of `size`.

    As many as it takes with `IN_FLIGHT` a connection; with `rate`, that many events a second.
    """
    before = peer.server.cpu_s()
    ran = peer.load.ask({"run": seconds, "size": size, "inFlight": IN_FLIGHT, "rate": rate, "placed": placed})
    used = peer.server.cpu_s() - before
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"{peer.name} did not accept everything: {ran}\n{peer.server.log_end()}")
    readings = ran["acknowledged"] * size
    return used / readings * 1e6, readings / ran["seconds"]


def in_turns(
    on: Stage,
    peers: dict[str, Peer],
    effort: Effort,
    size: int,
    rate: float | None = None,
    *,
    placed: bool = False,
    aside: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Return the median CPU of each peer, in µs a reading; and of what is measured `aside`, once each turn."""
    found: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(effort.rounds):
        if aside is not None:
            found.setdefault("aside", []).append(aside())
        for name, peer in peers.items():
            cpu_us, reached = measure(peer, effort.seconds, size, rate, placed=placed)
            found[name].append(cpu_us)
            progress(f"  {turn + 1}/{effort.rounds} {name:8} {cpu_us:8.2f} µs a reading, {reached:9,.0f} readings/s")
        on.empty_queue()
    return {name: median(values) for name, values in found.items()}


def decode_us(sent: msgspec.Raw) -> float:
    """Return the CPU of the typed decode of an event's bytes and nothing else, in µs a reading."""
    decode = msgspec.json.Decoder(list[ReadingPayload]).decode
    return (
        median(timeit.repeat(lambda: decode(sent), timer=time.process_time, number=2000, repeat=5)) / 2000 / BATCH * 1e6
    )


def one_figures(on: Stage, peers: dict[str, Peer], effort: Effort) -> list[Figure]:
    """Measure one reading an event, at saturation."""
    progress(f"one reading an event, {CONNECTIONS} connections, {IN_FLIGHT} in flight")
    return beside_peers("one reading an event", in_turns(on, peers, effort, 1))


def equal_figures(on: Stage, peers: dict[str, Peer], effort: Effort) -> list[Figure]:
    """Measure one reading an event where all do the same work in the same time."""
    what = f"one reading an event, {EQUAL_RATE:,} a second"
    progress(f"{what}, {CONNECTIONS} connections")
    return beside_peers(what, in_turns(on, peers, effort, 1, EQUAL_RATE))


def beside_peers(what: str, cpu: dict[str, float]) -> list[Figure]:
    """Return the figures of events of one reading and what is asked of them."""
    return [
        *(Figure(f"{what}: {name}", value, "µs a reading") for name, value in cpu.items()),
        Figure("  of the Node.js server's CPU", cpu["gateway"] / cpu["node"], "x", 0.45),
        Figure("  of stock python-socketio's CPU", cpu["gateway"] / cpu["stock"], "x", 0.25),
    ]


def batch_figures(on: Stage, peers: dict[str, Peer], effort: Effort, *, placed: bool) -> list[Figure]:
    """Measure events of 100 readings."""
    sent = msgspec.json.decode(event(BATCH, 1, placed=placed), type=tuple[str, msgspec.Raw])[1]
    what = f"{BATCH} readings of {len(bytes(sent)) / BATCH:.0f} B an event"
    progress(f"{what}, {CONNECTIONS} connections, {IN_FLIGHT} in flight")
    cpu = in_turns(on, peers, effort, BATCH, placed=placed, aside=lambda: decode_us(sent))
    decode = cpu.pop("aside")  # in turns as well: this machine's speed changes from minute to minute
    return [
        *(Figure(f"{what}: {name}", value, "µs a reading") for name, value in cpu.items()),
        Figure("  the typed decode of the same bytes alone", decode, "µs a reading"),
        Figure("  of that decode's time", cpu["gateway"] / decode, "x", 4),
        Figure("  of the Node.js server's CPU", cpu["gateway"] / cpu["node"], "x"),
    ]


def run(parts: list[str], effort: Effort, folder: Path) -> list[Figure]:
    """Measure the parts that are asked for."""
    figures: list[Figure] = []
    with stage(folder) as on:
        if set(parts) - {"idle"}:
            with all_peers(on) as peers:
                if "one" in parts:
                    figures += one_figures(on, peers, effort)
                if "equal" in parts:
                    figures += equal_figures(on, peers, effort)
                if "batch" in parts:
                    figures += batch_figures(on, peers, effort, placed=False)
                    figures += batch_figures(on, peers, effort, placed=True)
                if "latency" in parts:
                    saturation = measure(peers["gateway"], effort.seconds, 1)[1]
                    figures += latency(on, peers["gateway"], saturation / 2, effort.rounds, effort.seconds)
        if "idle" in parts:
            figures += idle(on, effort.idle_rounds, effort.idle_from, effort.idle_to)
    return figures


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a first look, no verdict")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    effort = SMOKE if asked.smoke else QUICK if asked.quick else FULL
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = run(asked.only or list(PARTS), effort, Path(folder))
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("The gateway and its peers", figures, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
