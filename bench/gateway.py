"""The gateway compared to the same work in Node.js, and to stock python-socketio: CPU, memory, latency, alternating.

The gateway and the Node.js server verify tokens, decode and check readings, and acknowledge after RabbitMQ's confirm;
only the gateway limits rates and counts. python-socketio does nothing but acknowledge. CPU is that of the server's
process, without RabbitMQ and the load generator.
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

from bench.environment import NAMES, Environment, Peer, start_environment
from bench.idle import idle
from bench.latency import latency
from bench.processes import BenchError
from bench.readings import event
from bench.report import Figure, progress, show
from readings.reading import ReadingPayload
from runtime.process import raise_fd_limit

CONNECTIONS = 20
IN_FLIGHT = 10
BATCH = 100
# Far below the capacity of any of them: each event wakes an idle server. At saturation a server reads many at once.
EQUAL_RATE = 4000
# Tidegate as a whole is to cost a sixth of Node.js with the same broker; the gateway is most of its own code.
MAX_NODE_RATIO = 1 / 6
PARTS = ("one", "equal", "batch", "latency", "idle")


@dataclass(frozen=True)
class Effort:
    """Duration and number of the measurements."""

    rounds: int
    seconds: float
    idle_rounds: int
    idle_from: int
    idle_to: int


FULL = Effort(rounds=5, seconds=3, idle_rounds=3, idle_from=1000, idle_to=4000)
QUICK = Effort(rounds=3, seconds=1, idle_rounds=1, idle_from=200, idle_to=1000)
SMOKE = Effort(rounds=1, seconds=0.2, idle_rounds=1, idle_from=20, idle_to=60)


@contextmanager
def all_peers(environment: Environment) -> Iterator[dict[str, Peer]]:
    """Run every peer, connected and warmed up."""
    with ExitStack() as running:
        peers = {name: running.enter_context(environment.peer(name, CONNECTIONS)) for name in NAMES}
        for peer in peers.values():
            peer.load.request({"connect": CONNECTIONS})
            for size in (1, BATCH):
                measure(peer, 0.5, size)
        yield peers


def measure(
    peer: Peer, seconds: float, size: int, rate: float | None = None, *, placed: bool = False
) -> tuple[float, float]:
    """Return the server's CPU in µs per reading, and readings per second, with events of `size`.

    At saturation, with `IN_FLIGHT` events per connection; with `rate`, at that many events per second.
    """
    before = peer.server.cpu_s()
    ran = peer.load.request({"run": seconds, "size": size, "inFlight": IN_FLIGHT, "rate": rate, "placed": placed})
    used = peer.server.cpu_s() - before
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"{peer.name} did not accept everything: {ran}\n{peer.server.log_tail()}")
    readings = ran["acknowledged"] * size
    return used / readings * 1e6, readings / ran["seconds"]


def alternate(
    environment: Environment,
    peers: dict[str, Peer],
    effort: Effort,
    size: int,
    rate: float | None = None,
    *,
    placed: bool = False,
    baseline: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Return the median CPU of each peer, in µs per reading, and of `baseline`, measured once per round."""
    found: dict[str, list[float]] = {name: [] for name in peers}
    for round_number in range(effort.rounds):
        if baseline is not None:
            found.setdefault("baseline", []).append(baseline())
        for name, peer in peers.items():
            cpu_us, reached = measure(peer, effort.seconds, size, rate, placed=placed)
            found[name].append(cpu_us)
            progress(
                f"  {round_number + 1}/{effort.rounds} {name:8} {cpu_us:8.2f} µs a reading, {reached:9,.0f} readings/s"
            )
        environment.empty_queue()
    return {name: median(values) for name, values in found.items()}


def decode_us(sent: msgspec.Raw) -> float:
    """Return the CPU of the typed decode of an event alone, in µs per reading."""
    decode = msgspec.json.Decoder(list[ReadingPayload]).decode
    return (
        median(timeit.repeat(lambda: decode(sent), timer=time.process_time, number=2000, repeat=5)) / 2000 / BATCH * 1e6
    )


def measure_single(environment: Environment, peers: dict[str, Peer], effort: Effort) -> list[Figure]:
    """Measure events of one reading, at saturation."""
    progress(f"one reading an event, {CONNECTIONS} connections, {IN_FLIGHT} in flight")
    return compare_peers("one reading an event", alternate(environment, peers, effort, 1))


def measure_equal_rate(environment: Environment, peers: dict[str, Peer], effort: Effort) -> list[Figure]:
    """Measure events of one reading, at the same rate for all."""
    what = f"one reading an event, {EQUAL_RATE:,} a second"
    progress(f"{what}, {CONNECTIONS} connections")
    return compare_peers(what, alternate(environment, peers, effort, 1, EQUAL_RATE))


def compare_peers(what: str, cpu: dict[str, float]) -> list[Figure]:
    """Return the figures of events of one reading, with their limits."""
    return [
        *(Figure(f"{what}: {name}", value, "µs a reading") for name, value in cpu.items()),
        Figure("  of the same work's CPU in Node.js", cpu["gateway"] / cpu["node"], "x", MAX_NODE_RATIO),
        Figure("  of stock python-socketio's CPU", cpu["gateway"] / cpu["stock"], "x"),
    ]


def measure_batches(environment: Environment, peers: dict[str, Peer], effort: Effort, *, placed: bool) -> list[Figure]:
    """Measure events of 100 readings."""
    sent = msgspec.json.decode(event(BATCH, 1, placed=placed), type=tuple[str, msgspec.Raw])[1]
    what = f"{BATCH} readings of {len(bytes(sent)) / BATCH:.0f} B an event"
    progress(f"{what}, {CONNECTIONS} connections, {IN_FLIGHT} in flight")
    cpu = alternate(environment, peers, effort, BATCH, placed=placed, baseline=lambda: decode_us(sent))
    decode = cpu.pop("baseline")  # alternating as well: the machine's speed varies from minute to minute
    return [
        *(Figure(f"{what}: {name}", value, "µs a reading") for name, value in cpu.items()),
        Figure("  the typed decode of the same bytes alone", decode, "µs a reading"),
        Figure("  of that decode's time", cpu["gateway"] / decode, "x", 4),
        Figure("  of the same work's CPU in Node.js", cpu["gateway"] / cpu["node"], "x", MAX_NODE_RATIO),
    ]


def run(parts: list[str], effort: Effort, folder: Path) -> list[Figure]:
    """Run the selected parts."""
    figures: list[Figure] = []
    with start_environment(folder) as environment:
        if set(parts) - {"idle"}:
            with all_peers(environment) as peers:
                if "one" in parts:
                    figures += measure_single(environment, peers, effort)
                if "equal" in parts:
                    figures += measure_equal_rate(environment, peers, effort)
                if "batch" in parts:
                    figures += measure_batches(environment, peers, effort, placed=False)
                    figures += measure_batches(environment, peers, effort, placed=True)
                if "latency" in parts:
                    saturation = measure(peers["gateway"], effort.seconds, 1)[1]
                    figures += latency(environment, peers["gateway"], saturation / 2, effort.rounds, effort.seconds)
        if "idle" in parts:
            figures += idle(environment, effort.idle_rounds, effort.idle_from, effort.idle_to)
    return figures


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = run(options.only or list(PARTS), effort, Path(folder))
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("The gateway and its peers", figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
