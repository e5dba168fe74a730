"""A persister drains a deep queue, compared to a bare `insert_many` of the same documents into the same collection.

Readings wait in RabbitMQ in messages of 1,000, as a busy gateway sends them; then in messages of the maximum size, to
measure memory; then two workers are compared to one, with 20 ms added to each MongoDB call: waiting for MongoDB must
not delay another worker.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import bson
from pymongo import MongoClient, WriteConcern

from bench.processes import BenchError, BenchProcess
from bench.report import Figure, progress, show
from broker.connect import open_broker
from broker.message import Message
from broker.topology import READINGS_EXCHANGE
from readings.document import encode_document
from readings.reading import Reading
from runtime.command_line import whole_number
from runtime.logs import configure_logs
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer

DEVICES = 50
POLL_EVERY_S = 0.05
BARE_BATCH = 4000
MIN_READINGS = 1000
DELAY_MS = 20
OPTIONS: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
SAFE = WriteConcern("majority", j=True)
MIB = 1024 * 1024
MAX_MEMORY_MIB = 200e6 / MIB
# Of nearly 1 MiB each.
LARGE_MESSAGES = 260
TIMEOUT_S = 300


def documents(count: int) -> Iterator[bytes]:
    """Yield readings of 50 alternating devices, as a gateway sends them."""
    for number in range(count):
        reading = Reading("temperature", number / 7, 1_700_000_000_000 + number, 0, 1_700_000_000_000 + number)
        yield encode_document("owner", f"device-{number % DEVICES}", reading)


def large_documents(count: int) -> Iterator[bytes]:
    """Yield the same with long texts: a thousand of them are just below 1 MiB."""
    tags = {f"tag-{number}": "t" * 256 for number in range(2)}
    for number in range(count):
        ts_ms = 1_700_000_000_000 + number
        reading = Reading("text", "v" * 256, ts_ms, 0, ts_ms, location="l" * 50, tags=tags)
        yield encode_document("owner", f"device-{number % DEVICES}", reading)


@dataclass
class Drained:
    """The figures of one drain, from the first sample with any reading; readings already stored then are not counted.

    `tenths_s` are the seconds until each tenth of the remaining `readings` was stored.
    """

    readings: int
    tenths_s: list[float]
    memory_bytes: int = 0
    cpu_s: float = 0.0  # of all workers, from that sample on

    @classmethod
    def from_samples(cls, samples: list[tuple[float, int]], count: int) -> "Drained":
        """Evaluate samples of (seconds, stored readings); BenchError if more than half were stored at the first one."""
        (first_s, first), *rest = [sample for sample in samples if sample[1]]
        if first > count / 2:
            raise BenchError(f"{first} of {count} readings were stored at the first sample: use more")
        tenths: list[float] = []
        for sample_s, found in rest:
            tenths += [sample_s - first_s] * ((found - first) * 10 // (count - first) - len(tenths))
        return cls(count - first, tenths)

    @property
    def per_second(self) -> float:
        """Readings stored per second."""
        return self.readings / self.tenths_s[-1]

    @property
    def last_to_first(self) -> float:
        """The time of the last tenth divided by that of the first."""
        return (self.tenths_s[-1] - self.tenths_s[-2]) / self.tenths_s[0]


class DrainSetup:
    """The servers, and their queue and collection."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQServer, mongodb: MongoDBServer) -> None:
        self._folder = folder
        self.broker_url = rabbitmq.create_vhost()
        self.mongodb = mongodb
        self._client: MongoClient[dict[str, Any]] = MongoClient(mongodb.url)
        self._database = self._client["bench"]

    def fresh(self) -> Any:
        """Return an empty collection with the options that a persister sets."""
        self._client.drop_database("bench")
        return self._database.create_collection("readings", write_concern=SAFE, **OPTIONS)

    def bare_per_second(self, count: int) -> float:
        """Insert the documents as dicts; return documents per second."""
        collection, taken_s, batch = self.fresh(), 0.0, []
        for number, document in enumerate(documents(count), 1):
            batch.append(bson.decode(document))
            if len(batch) == BARE_BATCH or number == count:
                started = time.perf_counter()
                collection.insert_many(batch, ordered=False)
                taken_s += time.perf_counter() - started
                batch = []
        return count / taken_s

    async def fill(self, count: int, a_message: int, make: Callable[[int], Iterator[bytes]] = documents) -> None:
        """Publish `count` readings in confirmed messages of `a_message` readings."""
        found = make(count)
        async with open_broker(self.broker_url) as broker, broker.publisher(confirm_timeout_s=60) as publisher:
            slots = asyncio.Semaphore(8)

            async def publish(message: Message) -> None:
                try:
                    await publisher.publish(message, READINGS_EXCHANGE)
                finally:
                    slots.release()

            async with asyncio.TaskGroup() as tasks:
                while batch := list(islice(found, a_message)):
                    await slots.acquire()
                    tasks.create_task(publish(Message.of(batch)))

    def drain(self, count: int, *, workers: int = 1, url: str = "", **settings: str) -> Drained:
        """Start workers and sample their progress until everything is stored."""
        collection = self.fresh()
        with ExitStack() as stack:
            started = [stack.enter_context(self._worker(url or self.mongodb.url, settings)) for _ in range(workers)]
            found, memory, cpu_before, samples = 0, 0, 0.0, list[tuple[float, int]]()
            deadline = time.monotonic() + TIMEOUT_S
            while found < count:
                time.sleep(POLL_EVERY_S)
                for worker in started:
                    worker.require_running()
                memory = max(memory, *(worker.peak_memory_bytes() for worker in started))
                found = collection.estimated_document_count()
                if not found:
                    cpu_before = sum(worker.cpu_s() for worker in started)
                samples.append((time.perf_counter(), found))
                if time.monotonic() > deadline:
                    raise BenchError(f"{found} of {count} readings are stored after {TIMEOUT_S} s")
            used = sum(worker.cpu_s() for worker in started) - cpu_before
        return replace(Drained.from_samples(samples, count), memory_bytes=memory, cpu_s=used)

    @contextmanager
    def _worker(self, url: str, settings: dict[str, str]) -> Iterator[BenchProcess]:
        environment = {
            "BROKER_URL": self.broker_url,
            "READINGS_URL": url,
            "READINGS_DATABASE": "bench",
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(free_port()),
            **settings,
        }
        log = self._folder / "persister.log"
        with BenchProcess([sys.executable, "-m", "persister"], log=log, environment=environment) as worker:
            yield worker


class SlowLinkProcess(BenchProcess):
    """A proxy to MongoDB that delays each call."""

    def __init__(self, folder: Path, port: int, to_port: int) -> None:
        command = [sys.executable, "-m", "bench.slow_link", str(port), str(to_port), str(DELAY_MS)]
        super().__init__(command, log=folder / "slow_link.log")
        self.port = port


def large_messages(setup: DrainSetup) -> Figure:
    """Measure the memory of a worker with messages of the maximum size."""
    progress(f"{LARGE_MESSAGES} messages of 1 MiB")
    asyncio.run(setup.fill(LARGE_MESSAGES * 1000, 1000, large_documents))
    drained = setup.drain(LARGE_MESSAGES * 1000)
    progress(f"  {drained.per_second:,.0f} a second")
    return Figure("messages of 1 MiB: memory at most", drained.memory_bytes / MIB, "MiB", MAX_MEMORY_MIB)


def run(folder: Path, count: int, slow_count: int) -> list[Figure]:
    """Run the whole benchmark."""
    with RabbitMQServer(folder / "rabbitmq") as rabbitmq, MongoDBServer(folder / "mongodb") as mongodb:
        setup = DrainSetup(folder, rabbitmq, mongodb)
        progress(f"bare insert_many of {count:,} documents as dicts")
        before = setup.bare_per_second(count)
        progress(f"  {before:,.0f} a second; now {count:,} wait in RabbitMQ")
        asyncio.run(setup.fill(count, 1000))
        drained = setup.drain(count)
        progress(f"  {drained.per_second:,.0f} a second; and the bare insert once more")
        bare = (before + setup.bare_per_second(count)) / 2
        figures = [
            Figure("bare insert_many of dicts", bare, "readings/s"),
            Figure("one persister drains", drained.per_second, "readings/s"),
            Figure("  its time to that of the bare insert", bare / drained.per_second, "x", 1 / 0.9),
            Figure("  time of the last tenth to the first", drained.last_to_first, "x", 1.15),
            Figure("  memory at most", drained.memory_bytes / MIB, "MiB", MAX_MEMORY_MIB),
        ]
        figures.append(large_messages(setup))
        port = free_port()
        with SlowLinkProcess(folder, port, mongodb.port) as link:
            link.wait_for_port(port)
            url = mongodb.url.replace(f":{mongodb.port}", f":{port}")
            taken = []
            for workers in (1, 2):
                progress(f"{workers} with {DELAY_MS} ms more a call, {slow_count:,} readings in batches of 500")
                asyncio.run(setup.fill(slow_count, 100))
                slow = setup.drain(slow_count, workers=workers, url=url, BATCH_READINGS="500", WRITES_IN_FLIGHT="1")
                taken.append(slow.tenths_s[-1] - slow.tenths_s[0])
                progress(f"  {slow.per_second:,.0f} a second")
        figures.append(Figure("two persisters' time to one's, behind 20 ms", taken[1] / taken[0], "x", 1 / 1.8))
        return figures


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench drain", description=__doc__)
    parser.add_argument(
        "--readings",
        type=whole_number(MIN_READINGS),
        default=1_000_000,
        help="number of readings in the queue (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    configure_logs("warning", "console")  # to standard error: standard output is for the figures
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = run(Path(folder), options.readings, max(MIN_READINGS, options.readings // 10))
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("A persister and a deep queue", figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
