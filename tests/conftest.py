"""Real servers, started once a run for the tests that ask for them, and a place of its own on them for each test.

A server that cannot start fails the test: what is not tested must not look tested.
A test that stops, kills, pauses or fills a server starts one of its own: `with RabbitMQServer(tmp_path) as server`.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.mariadb import MariaDBServer
from tests.servers.mongodb import MongoDBServer
from tests.servers.rabbitmq import RabbitMQServer

pytest_plugins = ("tests.collecting", "tests.seeds", "tests.workers")


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """RabbitMQ; about 4 s to start."""
    with _temporary_folder() as folder, RabbitMQServer(folder) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """MariaDB; about 1 s to start."""
    with _temporary_folder() as folder, MariaDBServer(folder) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[MongoDBServer]:
    """mongod, standalone; about 1 s to start."""
    with _temporary_folder() as folder, MongoDBServer(folder) as server:
        yield server


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """URL of a fresh vhost: names are fixed by contract, so each test gets a broker that knows none of them yet."""
    url = rabbitmq_server.create_vhost()
    yield url
    rabbitmq_server.delete_vhost(url)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """URL of a fresh database."""
    url = mariadb_server.create_database()
    yield url
    mariadb_server.drop_database(url)


@pytest.fixture
def mongodb_database(mongodb_server: MongoDBServer) -> Iterator[tuple[str, str]]:
    """URL of the server and the name of a fresh database."""
    name = mongodb_server.create_database()
    yield mongodb_server.url, name
    mongodb_server.drop_database(name)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # Not pytest's own, which keeps the folders of three runs: these are large. In memory where there is plenty: what
    # all tests share is never killed, and a wait for a disk tests nothing.
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-", dir=_memory()) as name:
        yield Path(name)


def _memory() -> Path | None:
    """Return a file system in memory; None where there is none, or less than 8 GiB is free."""
    shared, enough = Path("/dev/shm"), 8 * 1024**3
    try:
        free = os.statvfs(shared)
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo, re.MULTILINE)
    if available is None or int(available[1]) * 1024 < enough or free.f_bavail * free.f_frsize < enough:
        return None
    return shared
