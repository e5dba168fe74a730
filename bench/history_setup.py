"""The setup of the history benchmark: services of both versions, one mongod, and what is asked of a reader."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from pymongo import MongoClient

from bench.environment import Environment
from bench.history_series import OWNER
from bench.processes import BenchError, BenchProcess
from bench.versions import NOW, Version
from testing.issuer import ISSUER
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port

REQUEST_TIMEOUT_S = 60.0
RECONNECT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RunningReader:
    """A reader and the token of the owner whose readings it shows."""

    process: BenchProcess
    url: str
    token: str

    def session(self) -> aiohttp.ClientSession:
        """Return a session that is authorized and has one connection."""
        return aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )


class HistorySetup:
    """Servers, and the services of both versions; `base` is None if only this version is measured."""

    def __init__(self, environment: Environment, mongodb: MongoDBServer, base: Version | None) -> None:
        self.environment = environment
        self.mongodb = mongodb
        self.base = base
        self._brokers = {NOW.name: environment.broker_url}
        if base is not None:
            # Each declares its own queues.
            self._brokers[base.name] = environment.rabbitmq.create_vhost()

    @property
    def versions(self) -> list[Version]:
        """The versions to measure, the earlier one first."""
        return [NOW] if self.base is None else [self.base, NOW]

    def settings(self, version: Version, database: str, **more: str) -> dict[str, str]:
        """Return the environment variables of a service; PORT and OPS_PORT are free ones."""
        return {
            "BROKER_URL": self._brokers[version.name],
            "READINGS_URL": self.mongodb.url,
            "READINGS_DATABASE": database,
            "AUTH_URL": self.environment.auth_url,
            "TOKEN_ISSUER": ISSUER,
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(free_port()),
            **more,
        }

    @contextmanager
    def reader(self, version: Version, database: str) -> Iterator[RunningReader]:
        """Run a reader of a version."""
        settings = self.settings(version, database)
        log = self.environment.folder / f"reader-{version.name}-{database}.log"
        with version.running("reader", log=log, settings=settings) as process:
            url = f"http://127.0.0.1:{settings['PORT']}"
            yield RunningReader(process, url, self.environment.user_token(OWNER))

    @contextmanager
    def client(self) -> Iterator[MongoClient[dict[str, Any]]]:
        """Open a client."""
        with MongoClient[dict[str, Any]](self.mongodb.url) as client:
            yield client

    def checkpoint(self) -> None:
        """Make mongod write all its pages."""
        with self.client() as client:
            client.admin.command("fsync")

    def empty_caches(self) -> None:
        """Restart mongod, and drop what the kernel has cached of its files."""
        self.checkpoint()
        self.mongodb.restart()
        for file in sorted((self.mongodb.folder / "data").rglob("*")):
            if file.is_file():
                _drop_cached(file)


def _drop_cached(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # only what is on disk can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


async def get_json(session: aiohttp.ClientSession, path: str, query: dict[str, str]) -> dict[str, Any]:
    """Return the answer to a request; BenchError if it is an error."""
    async with session.get(path, params=query) as answer:
        if answer.status != 200:
            raise BenchError(f"{path} {query}: {answer.status} {(await answer.text())[:300]}")
        found: dict[str, Any] = await answer.json()
        return found


async def reconnect(session: aiohttp.ClientSession) -> None:
    """Return when a reader has found a restarted mongod; asks for a device that does not exist."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT_S
    while time.monotonic() < deadline:
        query = {"device": "none", "sensorType": "none", "limit": "1"}
        async with session.get("/readings", params=query) as answer:
            if answer.status in (200, 404):
                return
    raise BenchError("a reader did not find mongod after its restart")


async def timed(request: Callable[[], Awaitable[None]], requests: int) -> list[float]:
    """Return the seconds that each of several requests in a row took."""
    taken = []
    for _ in range(requests):
        started = time.perf_counter()
        await request()
        taken.append(time.perf_counter() - started)
    return taken


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return median(seconds) * 1000
