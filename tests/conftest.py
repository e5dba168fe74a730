"""Real servers, started once a run for the tests that ask for them, and a place of its own on them for each test.

A server that cannot start fails the test: what is not tested must not look tested.
A test that stops, kills, pauses or fills a server starts one of its own: `with RabbitMQServer(tmp_path) as server`.
"""

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
    # Not pytest's own, which keeps the folders of three runs: these are large.
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-") as name:
        yield Path(name)
