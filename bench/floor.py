"""The floor: what the parts cost by themselves, that no system can do without.

The typed decode of an event's bytes; a bare aiohttp WebSocket that parses JSON and acknowledges; a confirmed publish;
and `insert_many` into the same collection, of dicts and of documents that are BSON already.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from bench.processes import BenchError, Speaking, Started, raise_open_files
from bench.readings import event
from bench.report import Figure, progress, show
from bench.systems import Machine, cpu_s, machine
from tests.servers.ports import free_port

READINGS = 200_000
CONNECTIONS = 20


@dataclass(frozen=True)
class Floor:
    """A bare insert: µs of processor time a reading, and readings a second."""

    client_us: float
    mongod_us: float
    per_second: float

    @property
    def total_us(self) -> float:
        """Client and mongod."""
        return self.client_us + self.mongod_us

    def row(self) -> dict[str, float]:
        """Return it as a row of the table."""
        found = {"client": self.client_us, "mongod": self.mongod_us}
        return found | {"total": self.total_us, "perSecond": self.per_second}


def bare_inserts(at: Machine, rounds: int, readings: int = READINGS) -> dict[str, Floor]:
    """Insert dicts and raw BSON in turns, into ordinary and clustered collections; return medians."""
    found: dict[str, list[Floor]] = {}
    command = [sys.executable, "-m", "bench.bare_insert", at.mongodb.url, "bench_floor"]
    with Speaking(command, log=at.on.folder / "bare_insert.log") as client:
        for _ in range(rounds):
            for name, raw, clustered in (("dicts", 0, 0), ("raw", 1, 0), ("raw, clustered", 1, 1)):
                at.fresh("bench_floor", clustered=bool(clustered))
                before = cpu_s(at.mongodb.pid)
                ran = client.ask({"readings": readings, "raw": bool(raw)})
                mongod = (cpu_s(at.mongodb.pid) - before) / readings * 1e6
                one = Floor(ran["cpuS"] / readings * 1e6, mongod, readings / ran["seconds"])
                found.setdefault(name, []).append(one)
                progress(
                    f"  bare insert_many, {name}: client {one.client_us:.2f}, mongod {one.mongod_us:.2f} µs a reading"
                )
    return {
        name: Floor(
            *(median(getattr(floor, part) for floor in floors) for part in ("client_us", "mongod_us", "per_second"))
        )
        for name, floors in found.items()
    }


def acknowledging_us(folder: Path, rounds: int, seconds: float) -> float:
    """Return the CPU of a bare aiohttp WebSocket that parses an event of one reading and acknowledges, in µs."""
    port = free_port()
    log = folder / "bare_websocket.log"
    with Started([sys.executable, "-m", "bench.bare_websocket", str(port)], log=log) as server:
        server.wait_for_port(port)
        with Speaking([sys.executable, "-m", "bench.load", str(port)], log=log) as load:
            load.say([{}] * CONNECTIONS)
            load.ask({"connect": CONNECTIONS})
            found = []
            for _ in range(rounds):
                before = server.cpu_s()
                ran = load.ask({"run": seconds, "size": 1, "inFlight": 10})
                found.append((server.cpu_s() - before) / ran["acknowledged"] * 1e6)
    cost: float = median(found)
    return cost


def publishing_us(at: Machine, size: int, rounds: int, seconds: float) -> tuple[float, float]:
    """Return the CPU of a confirmed publish of `size` bytes, client's and broker's, in µs."""
    command = [sys.executable, "-m", "bench.bare_publish", at.on.rabbitmq.create_vhost()]
    client, broker = [], []
    with Speaking(command, log=at.on.folder / "bare_publish.log") as publisher:
        for _ in range(rounds):
            before = publisher.cpu_s(), cpu_s(at.on.rabbitmq.pid)
            ran = publisher.ask({"run": seconds, "rate": 1000, "bytes": size})
            client.append((publisher.cpu_s() - before[0]) / ran["confirmed"] * 1e6)
            broker.append((cpu_s(at.on.rabbitmq.pid) - before[1]) / ran["confirmed"] * 1e6)
    return median(client), median(broker)


def run(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    """Measure every part."""
    from bench.gateway import decode_us  # noqa: PLC0415 - the gateway's bench has it

    sent = msgspec.json.decode(event(100, 1), type=tuple[str, msgspec.Raw])[1]
    figures = [
        Figure("typed decode, 100 an event", decode_us(sent), "µs a reading"),
        Figure("bare aiohttp WebSocket: parse, acknowledge", acknowledging_us(folder, rounds, seconds), "µs an event"),
    ]
    with machine(folder) as at:
        for size in (160, 16_000, 64_000):
            client, broker = publishing_us(at, size, rounds, seconds)
            figures.append(Figure(f"confirmed publish of {size:,} B: client", client, "µs a message"))
            figures.append(Figure("  RabbitMQ", broker, "µs a message"))
        for name, floor in bare_inserts(at, rounds).items():
            figures.append(Figure(f"insert_many, {name}: client", floor.client_us, "µs a reading"))
            figures.append(Figure("  mongod", floor.mongod_us, "µs a reading"))
            figures.append(Figure("  at a rate of", floor.per_second, "readings/s"))
    return figures


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench floor", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = run(Path(folder), *((1, 1.0) if asked.quick else (3, 3.0)))
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("What the parts cost by themselves", figures, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
