"""Real servers, started once per run for the tests that use them, with a fresh database or vhost for each test.

A server that cannot start fails its tests: an untested behaviour must not look tested. A test that stops, kills, pauses
or fills a server starts one of its own: `with RabbitMQServer(tmp_path) as server`. Tests that must hold both on this
machine's RabbitMQ and on the newest use `each_rabbitmq_server`. If the newest is not available (it needs root and
Debian's packages), the end of the run says so, and in CI those tests fail.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from testing.servers.debian import NotAvailableError, newest_rabbitmq_root, versions_line
from testing.servers.mariadb import MariaDBServer
from testing.servers.mongodb import MongoDBServer
from testing.servers.rabbitmq import RabbitMQServer

pytest_plugins = (
    "tests.compiled",
    "tests.collecting",
    "tests.fast",
    "tests.hanging",
    "tests.rerun",
    "tests.seeds",
    "tests.workers",
)

VERSIONS = pytest.StashKey[list[str]]()
WHY_NOT_NEWEST = pytest.StashKey[str]()


@pytest.fixture(autouse=True)
def logging_is_put_back() -> Iterator[None]:
    """A command that configured the logs would go on to log to a stream that pytest closes after its test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def rabbitmq_server(request: pytest.FixtureRequest) -> Iterator[RabbitMQServer]:
    """RabbitMQ; about 4 s to start."""
    with _temporary_folder() as folder, RabbitMQServer(folder) as server:
        request.config.stash.setdefault(VERSIONS, []).append(server.version)
        yield server


@pytest.fixture(scope="session")
def newest_rabbitmq_server(request: pytest.FixtureRequest) -> Iterator[RabbitMQServer]:
    """The newest RabbitMQ; about 5 s to start, and a minute more the first time on a machine."""
    try:
        root = newest_rabbitmq_root()
    except NotAvailableError as error:
        request.config.stash[WHY_NOT_NEWEST] = str(error)
        if os.environ.get("CI"):
            pytest.fail(f"the newest RabbitMQ is not available: {error}")
        pytest.skip(f"the newest RabbitMQ is not available: {error}")
    with _temporary_folder() as folder, RabbitMQServer(folder, root=root) as server:
        request.config.stash.setdefault(VERSIONS, []).append(server.version)
        yield server


@pytest.fixture(params=["rabbitmq_server", "newest_rabbitmq_server"])
def each_rabbitmq_server(request: pytest.FixtureRequest) -> RabbitMQServer:
    """This machine's RabbitMQ and the newest, in turn."""
    server: RabbitMQServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def each_rabbitmq_url(each_rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """URL of a fresh vhost on each of them."""
    each_rabbitmq_server.check_alive()
    url = each_rabbitmq_server.create_vhost()
    yield url
    each_rabbitmq_server.delete_vhost(url)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the versions that a worker ran to the controller."""
    stash = session.config.stash
    if (handed := getattr(session.config, "workeroutput", None)) is not None:
        handed["rabbitmq"] = stash.get(VERSIONS, []), stash.get(WHY_NOT_NEWEST, "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the versions that a worker ran; a worker that died passes none."""
    versions, why_not = getattr(node, "workeroutput", {}).get("rabbitmq", ([], ""))
    node.config.stash.setdefault(VERSIONS, []).extend(versions)
    if why_not:
        node.config.stash[WHY_NOT_NEWEST] = why_not


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the RabbitMQ versions that ran."""
    versions, why_not = config.stash.get(VERSIONS, []), config.stash.get(WHY_NOT_NEWEST, "")
    if versions or why_not:
        terminalreporter.write_line(versions_line(versions, why_not), yellow=bool(why_not), bold=bool(why_not))


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
    """URL of a fresh vhost, as the names of queues are fixed by contract and must not exist yet."""
    rabbitmq_server.check_alive()
    url = rabbitmq_server.create_vhost()
    yield url
    rabbitmq_server.delete_vhost(url)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """URL of a fresh database."""
    mariadb_server.check_alive()
    url = mariadb_server.create_database()
    yield url
    mariadb_server.drop_database(url)


@pytest.fixture
def mongodb_database(mongodb_server: MongoDBServer) -> Iterator[tuple[str, str]]:
    """URL of the server and the name of a fresh database."""
    mongodb_server.check_alive()
    name = mongodb_server.create_database()
    yield mongodb_server.url, name
    mongodb_server.drop_database(name)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # Not pytest's own, which keeps the folders of three runs: these are large. In memory if there is plenty: shared
    # servers are never killed, so waiting for a disk would test nothing.
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-", dir=_memory()) as name:
        yield Path(name)


def _memory() -> Path | None:
    """Return a file system in memory; None if there is none, or less than 8 GiB is free."""
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
