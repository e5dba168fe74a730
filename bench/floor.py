"""The floor: the minimum cost of each part that any such system needs, measured in isolation.

The typed decode of an event; a bare aiohttp WebSocket that parses JSON and acknowledges; a confirmed publish of one
reading, of 100, of a full message; `insert_many` of dicts and of raw BSON into the same collection, 4,000 per batch,
journaled.
"""

import argparse
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.measurements import Measurements, idle_cpu, measure_bare_insert, print_measurement
from bench.processes import BenchError, BenchProcess, LineProcess
from bench.readings import event
from bench.report import Figure, progress
from bench.results import Details, Table, finish
from bench.systems import SharedServers, start_servers
from readings.reading import ReadingPayload
from runtime.process import raise_fd_limit
from testing.servers.ports import free_port

DATABASE = "bench_floor"
CONNECTIONS, IN_FLIGHT = 20, 10
SIZES = (1, 100)
DOCUMENT_BYTES = 160
PUBLISHED = {"1 reading": (1, 2000), "100 readings": (100, 500), "1,000 readings": (1000, 100)}  # readings, messages/s
INSERTS = (("dicts", False), ("raw", False), ("raw", True))
DECODED = 2000

Parts = tuple[BenchProcess, LineProcess, LineProcess]  # the bare WebSocket, its load, the publisher


def decode_us(size: int) -> float:
    """Return the CPU of the typed decode of an event of `size` readings, in µs per reading."""
    sent = msgspec.json.decode(event(size, 1), type=tuple[str, msgspec.Raw])[1]
    wanted: Any = ReadingPayload if size == 1 else list[ReadingPayload]
    decode: Callable[[msgspec.Raw], Any] = msgspec.json.Decoder(wanted).decode
    times = DECODED * 100 // size
    taken = timeit.repeat(lambda: decode(sent), timer=time.process_time, number=times, repeat=3)
    return median(taken) / times / size * 1_000_000


@contextmanager
def bare_socket(folder: Path) -> Iterator[tuple[BenchProcess, LineProcess]]:
    """Run a bare WebSocket and a load generator that is connected to it."""
    port, log = free_port(), folder / "bare_websocket.log"
    command = [sys.executable, "-m", "bench.bare_websocket", str(port)]
    load_command = [sys.executable, "-m", "bench.load", str(port)]
    with BenchProcess(command, log=log) as server, LineProcess(load_command, log=folder / "bare-load.log") as load:
        server.wait_for_port(port)
        load.send([{}] * CONNECTIONS)
        load.request({"connect": CONNECTIONS})
        yield server, load


def acknowledging_us(server: BenchProcess, load: LineProcess, size: int, seconds: float) -> float:
    """Return the CPU of the bare WebSocket with events of `size`, in µs per reading."""
    before = server.cpu_s()
    ran = load.request({"run": seconds, "size": size, "inFlight": IN_FLIGHT})
    readings: int = ran["acknowledged"] * size
    return (server.cpu_s() - before) / readings * 1e6


def publishing_us(
    servers: SharedServers, publisher: LineProcess, what: str, seconds: float, idle: dict[str, float]
) -> tuple[float, float]:
    """Return the CPU of a confirmed publish of the client and of RabbitMQ, in µs per message."""
    readings, rate = PUBLISHED[what]
    before, started = (publisher.cpu_s(), servers.cpu_s()["RabbitMQ"]), time.perf_counter()
    ran = publisher.request({"run": seconds, "rate": rate, "bytes": readings * DOCUMENT_BYTES})
    taken = time.perf_counter() - started
    client = publisher.cpu_s() - before[0]
    broker = servers.cpu_s()["RabbitMQ"] - before[1] - idle["RabbitMQ"] * taken
    return client / ran["confirmed"] * 1e6, max(0.0, broker) / ran["confirmed"] * 1e6


class Medians:
    """Values by name, in order of first appearance."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[float]] = {}

    def add(self, what: str, unit: str, value: float) -> None:
        """Add one value."""
        self._found.setdefault((what, unit), []).append(value)

    def figures(self) -> list[Figure]:
        """Return the medians."""
        return [Figure(what, median(values), unit) for (what, unit), values in self._found.items()]


def one_round(servers: SharedServers, parts: Parts, seconds: float, idle: dict[str, float], into: Medians) -> None:
    """Measure the decode, the WebSocket and the publish once each."""
    server, load, publisher = parts
    for size in SIZES:
        into.add(f"typed decode, {size} an event", "µs a reading", decode_us(size))
    for size in SIZES:
        cost = acknowledging_us(server, load, size, seconds)
        into.add(f"bare aiohttp WebSocket, {size} an event: parse, acknowledge", "µs a reading", cost)
    for what in PUBLISHED:
        client, broker = publishing_us(servers, publisher, what, seconds, idle)
        into.add(f"confirmed publish of {what}: client", "µs a message", client)
        into.add(f"confirmed publish of {what}: RabbitMQ", "µs a message", broker)


def inserts(
    servers: SharedServers, client: LineProcess, readings: int, idle: dict[str, float], into: dict[str, Measurements]
) -> None:
    """Insert in each form once."""
    for form, clustered in INSERTS:
        servers.fresh(DATABASE, clustered=clustered)
        name = f"insert_many, {form}" + (", clustered" if clustered else "")
        one = measure_bare_insert(servers, client, readings, idle, form)
        print_measurement(name, one)
        into.setdefault(name, Measurements()).all.append(one)


def run(folder: Path, rounds: int, seconds: float, readings: int) -> tuple[list[Figure], Details]:
    """Measure every part, alternating."""
    found, inserted = Medians(), dict[str, Measurements]()
    with start_servers(folder) as servers, bare_socket(folder) as socket:
        publish = [sys.executable, "-m", "bench.bare_publish", servers.environment.rabbitmq.create_vhost()]
        insert = [sys.executable, "-m", "bench.bare_insert", servers.mongodb.url, DATABASE]
        with (
            LineProcess(publish, log=folder / "publish.log") as publisher,
            LineProcess(insert, log=folder / "insert.log") as client,
        ):
            publisher.request({"run": 0.2, "rate": 100, "bytes": 1000})
            idle = idle_cpu(servers)
            for number in range(rounds):
                progress(f"  {number + 1}/{rounds} decode, acknowledge, publish, insert")
                one_round(servers, (*socket, publisher), seconds, idle, found)
                inserts(servers, client, readings, idle, inserted)
        about = {"idleCores": idle} | servers.versions()
    figures = found.figures()
    table: Table = {f"bare inserts: {name}": measurements.row() for name, measurements in inserted.items()}
    for name, measurements in inserted.items():
        figures += [Figure(f"{name}: {part}", value, "µs a reading") for part, value in _parts(measurements)]
        figures.append(Figure(f"{name}: at a rate of", measurements.per_second, "readings/s"))
    return figures, Details(table, about=about)


def _parts(measurements: Measurements) -> list[tuple[str, float]]:
    row = measurements.row()
    return [(name, row[name]) for name in ("client", "mongod", "total")]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench floor", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    effort = (1, 0.2, 8000) if options.smoke else (1, 1.0, 80_000) if options.quick else (5, 3.0, 400_000)
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, details = run(Path(folder), *effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    title = "What the parts cost by themselves"
    return finish("floor", title, figures, details, as_json=options.json, save=not (options.quick or options.smoke))


if __name__ == "__main__":
    sys.exit(main())
