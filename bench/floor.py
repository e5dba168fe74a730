"""The floor: what the parts cost by themselves, with nothing around them, that no system can do without.

The typed decode of an event's bytes; a bare aiohttp WebSocket that parses JSON and acknowledges; a confirmed publish of
one reading, of 100, of a full message; `insert_many` of dicts and of raw BSON into the same collection, 4,000 a batch,
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

from bench.processes import BenchError, Speaking, Started
from bench.readings import event
from bench.report import Figure, progress
from bench.results import Kept, Table, finish
from bench.systems import Ground, ground
from bench.turns import Turns, bare_turn, idle_cpu, told
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

Parts = tuple[Started, Speaking, Speaking]  # the bare WebSocket, its load, the publisher


def decode_us(size: int) -> float:
    """Return the CPU of the typed decode of an event of `size` readings, in µs a reading."""
    sent = msgspec.json.decode(event(size, 1), type=tuple[str, msgspec.Raw])[1]
    wanted: Any = ReadingPayload if size == 1 else list[ReadingPayload]
    decode: Callable[[msgspec.Raw], Any] = msgspec.json.Decoder(wanted).decode
    times = DECODED * 100 // size
    taken = timeit.repeat(lambda: decode(sent), timer=time.process_time, number=times, repeat=3)
    return median(taken) / times / size * 1_000_000


@contextmanager
def bare_socket(folder: Path) -> Iterator[tuple[Started, Speaking]]:
    """Run a bare WebSocket and a load that is connected to it."""
    port, log = free_port(), folder / "bare_websocket.log"
    command = [sys.executable, "-m", "bench.bare_websocket", str(port)]
    load_command = [sys.executable, "-m", "bench.load", str(port)]
    with Started(command, log=log) as server, Speaking(load_command, log=folder / "bare-load.log") as load:
        server.wait_for_port(port)
        load.say([{}] * CONNECTIONS)
        load.ask({"connect": CONNECTIONS})
        yield server, load


def acknowledging_us(server: Started, load: Speaking, size: int, seconds: float) -> float:
    """Return the CPU of the bare WebSocket with events of `size`, in µs a reading."""
    before = server.cpu_s()
    ran = load.ask({"run": seconds, "size": size, "inFlight": IN_FLIGHT})
    readings: int = ran["acknowledged"] * size
    return (server.cpu_s() - before) / readings * 1e6


def publishing_us(
    at: Ground, publisher: Speaking, what: str, seconds: float, idle: dict[str, float]
) -> tuple[float, float]:
    """Return the CPU of a confirmed publish, client's and RabbitMQ's, in µs a message."""
    readings, rate = PUBLISHED[what]
    before, started = (publisher.cpu_s(), at.cpu_s()["RabbitMQ"]), time.perf_counter()
    ran = publisher.ask({"run": seconds, "rate": rate, "bytes": readings * DOCUMENT_BYTES})
    taken = time.perf_counter() - started
    client = publisher.cpu_s() - before[0]
    broker = at.cpu_s()["RabbitMQ"] - before[1] - idle["RabbitMQ"] * taken
    return client / ran["confirmed"] * 1e6, max(0.0, broker) / ran["confirmed"] * 1e6


class Medians:
    """Values by name, in the order of their first sight."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[float]] = {}

    def add(self, what: str, unit: str, value: float) -> None:
        """Note one value."""
        self._found.setdefault((what, unit), []).append(value)

    def figures(self) -> list[Figure]:
        """Return the medians."""
        return [Figure(what, median(values), unit) for (what, unit), values in self._found.items()]


def one_round(at: Ground, parts: Parts, seconds: float, idle: dict[str, float], into: Medians) -> None:
    """Measure the decode, the WebSocket and the publish once each."""
    server, load, publisher = parts
    for size in SIZES:
        into.add(f"typed decode, {size} an event", "µs a reading", decode_us(size))
    for size in SIZES:
        cost = acknowledging_us(server, load, size, seconds)
        into.add(f"bare aiohttp WebSocket, {size} an event: parse, acknowledge", "µs a reading", cost)
    for what in PUBLISHED:
        client, broker = publishing_us(at, publisher, what, seconds, idle)
        into.add(f"confirmed publish of {what}: client", "µs a message", client)
        into.add(f"confirmed publish of {what}: RabbitMQ", "µs a message", broker)


def inserts(at: Ground, client: Speaking, readings: int, idle: dict[str, float], into: dict[str, Turns]) -> None:
    """Insert in each form once."""
    for form, clustered in INSERTS:
        at.fresh(DATABASE, clustered=clustered)
        name = f"insert_many, {form}" + (", clustered" if clustered else "")
        one = bare_turn(at, client, readings, idle, form)
        told(name, one)
        into.setdefault(name, Turns()).all.append(one)


def run(folder: Path, rounds: int, seconds: float, readings: int) -> tuple[list[Figure], Kept]:
    """Measure every part, in turns."""
    found, inserted = Medians(), dict[str, Turns]()
    with ground(folder) as at, bare_socket(folder) as socket:
        publish = [sys.executable, "-m", "bench.bare_publish", at.on.rabbitmq.create_vhost()]
        insert = [sys.executable, "-m", "bench.bare_insert", at.mongodb.url, DATABASE]
        with (
            Speaking(publish, log=folder / "publish.log") as publisher,
            Speaking(insert, log=folder / "insert.log") as client,
        ):
            publisher.ask({"run": 0.2, "rate": 100, "bytes": 1000})
            idle = idle_cpu(at)
            for number in range(rounds):
                progress(f"  {number + 1}/{rounds} decode, acknowledge, publish, insert")
                one_round(at, (*socket, publisher), seconds, idle, found)
                inserts(at, client, readings, idle, inserted)
        about = {"idleCores": idle} | at.versions()
    figures = found.figures()
    table: Table = {f"bare inserts: {name}": turns.row() for name, turns in inserted.items()}
    for name, turns in inserted.items():
        figures += [Figure(f"{name}: {part}", value, "µs a reading") for part, value in _parts(turns)]
        figures.append(Figure(f"{name}: at a rate of", turns.per_second, "readings/s"))
    return figures, Kept(table, about=about)


def _parts(turns: Turns) -> list[tuple[str, float]]:
    row = turns.row()
    return [(name, row[name]) for name in ("client", "mongod", "total")]


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench floor", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a first look")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(arguments)
    effort = (1, 0.2, 8000) if asked.smoke else (1, 1.0, 80_000) if asked.quick else (5, 3.0, 400_000)
    raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures, kept = run(Path(folder), *effort)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    title = "What the parts cost by themselves"
    return finish("floor", title, figures, kept, as_json=asked.json, keep=not (asked.quick or asked.smoke))


if __name__ == "__main__":
    sys.exit(main())
