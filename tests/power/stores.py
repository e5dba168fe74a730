"""The stores under test: each starts on a folder, is written to by a process of its own, is killed and read again."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

import pymongo

from broker.connect import open_broker
from broker.topology import READINGS
from device.buffer import Buffer
from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.process import Server
from testing.servers.rabbitmq import RabbitMQServer
from tests.power.writer import COLLECTION, DATABASE


class Writing:
    """The process that writes; what it sent, and when and how fast each number was acknowledged."""

    def __init__(self, store: str, url: str, first: int, errors: Path) -> None:
        self.sent: set[int] = set()
        self.acknowledged: dict[int, tuple[float, float]] = {}  # number: (monotonic time, seconds it took)
        command = [sys.executable, "-m", "tests.power.writer", store, url, str(first)]
        with errors.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.endswith("\n"):
                return  # cut off in the middle
            kind, number, *seconds = line.split()
            if kind == "s":
                self.sent.add(int(number))
            else:
                self.acknowledged[int(number)] = (time.monotonic(), float(seconds[0]))

    def end(self) -> None:
        """Kill it, unless that was done; what it has said until then counts."""
        self.process.kill()
        self.process.wait()
        self._reading.join()
        assert self.process.stdout
        self.process.stdout.close()


class Store(ABC):
    """A store on a folder, with what writes to it."""

    writer: str
    # It replaces a file by renaming another that it has not synced.
    needs_data_before_rename = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def url(self) -> str: ...

    def create(self) -> None:  # noqa: B027 - nothing to do where no server is
        """Start for the first time."""

    def start(self) -> None:  # noqa: B027 - nothing to do where no server is
        """Start on what the disk has."""

    def kill(self, writing: Writing) -> None:
        """Kill it; at once, and before its writer."""
        writing.end()

    def end(self) -> None:  # noqa: B027 - nothing to do where no server is
        """End it for good."""

    @property
    def ended_itself(self) -> bool:
        return False

    @abstractmethod
    def numbers(self) -> list[int]:
        """Return what is stored; a queue may be empty afterwards."""


async def taken(url: str) -> list[int]:
    """Take all numbers out of the queue."""
    found: list[int] = []
    async with open_broker(url) as broker, broker.consumer(READINGS, prefetch=1000) as consumer:
        with suppress(TimeoutError):
            while True:
                delivery = await asyncio.wait_for(consumer.get(), 2)
                found.append(int(delivery.message.body))
                await consumer.acknowledge(delivery)
    return found


class EmbeddedQueue(Store):
    writer = "broker"

    @property
    def url(self) -> str:
        return f"embedded://{self.folder / 'queue.sqlite'}"

    def create(self) -> None:
        self.numbers()

    def numbers(self) -> list[int]:
        return asyncio.run(taken(self.url))


class DeviceBuffer(Store):
    writer = "buffer"

    @property
    def url(self) -> str:
        return str(self.folder / "buffer.sqlite")

    def create(self) -> None:
        self.numbers()

    def numbers(self) -> list[int]:
        buffer = Buffer(self.url)
        try:
            return [json.loads(row.body)["value"] for row in buffer.after(0, 10**9)]
        finally:
            buffer.close()


class Served(Store):
    """A store that is a server."""

    server: Server

    @property
    def url(self) -> str:
        return self.server.url

    def create(self) -> None:
        self.server.start()

    def start(self) -> None:
        self.server.restart()

    def kill(self, writing: Writing) -> None:
        self.end()
        writing.end()

    def end(self) -> None:
        if self.server.running:
            self.server.kill()

    @property
    def ended_itself(self) -> bool:
        return not self.server.running


class RabbitMQ(Served):
    writer = "broker"
    needs_data_before_rename = True  # RabbitMQ 3.10 does so with `schema.DAT`, which it cannot start without

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server: RabbitMQServer = RabbitMQServer(folder)

    def create(self) -> None:
        super().create()
        asyncio.run(_declare(self.url))
        self.server.wait_until_registered(self.url, READINGS.name)

    def numbers(self) -> list[int]:
        return asyncio.run(taken(self.url))


async def _declare(url: str) -> None:
    async with open_broker(url) as broker:
        await broker.declare()


class MongoDB(Served):
    writer = "mongodb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = MongoDBServer(folder)

    def numbers(self) -> list[int]:
        with pymongo.MongoClient[dict[str, int]](self.url) as client:
            return [one["_id"] for one in client[DATABASE][COLLECTION].find()]


class MariaDB(Served):
    writer = "mariadb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server: MariaDBServer = MariaDBServer(folder)

    @property
    def url(self) -> str:
        return self.server.url + DATABASE

    def create(self) -> None:
        super().create()
        self.server.execute(f"CREATE DATABASE {DATABASE}")
        # No key: a number that is stored twice is to be seen.
        self.server.execute(f"CREATE TABLE {DATABASE}.{COLLECTION} (number BIGINT) ENGINE=InnoDB")

    def numbers(self) -> list[int]:
        rows = self.server.execute(f"SELECT number FROM {DATABASE}.{COLLECTION}")  # noqa: S608 - two constants
        return [row[0] for row in rows]


STORES: dict[str, type[Store]] = {
    "embedded": EmbeddedQueue,
    "device": DeviceBuffer,
    "mongodb": MongoDB,
    "rabbitmq": RabbitMQ,
    "mariadb": MariaDB,
}
