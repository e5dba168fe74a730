"""Marks the tests that `make test-fast` leaves out: `server` needs a server or another process, `slow` takes its time.

A pytest plugin. A test is marked `server` if it uses a fixture that starts a server, if one of its parameters names a
server, or if its module or the module of one of its fixtures starts processes, itself or through a helper module that
it imports. `slow` are the modules below, most of whose tests wait for real deadlines.
"""

import ast
import inspect
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HELPERS = ("tests", "testing")
# Its fixtures are the ones listed below.
CONFTEST = ROOT / "tests" / "conftest.py"
FIXTURES = {"rabbitmq_server", "each_rabbitmq_server", "newest_rabbitmq_server", "mariadb_server", "mongodb_server"}
PARAMETERS = {"rabbitmq", "mariadb", "mongodb"}  # of fixtures that run their tests on one system after the other
STARTERS = {
    "subprocess",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "private_mongod",
    "multiprocessing",
    "webdriver",
}
# Modules that take about 10 s or more, or more than a second a test; together twice as long as all others.
SLOW = {
    "tests/auth/http/test_devices.py",
    "tests/auth/test_bad_input.py",
    "tests/clients/test_python_client.py",
    "tests/gateway/limits/test_connections.py",
    "tests/gateway/socket/test_device_socket.py",
    "tests/gateway/socket/test_engine.py",
    "tests/gateway/test_admission.py",
    "tests/gateway/test_from_devices.py",
    "tests/gateway/test_from_http.py",
    "tests/gateway/test_ingest.py",
    "tests/persister/test_worker.py",
    "tests/simulator/test_device.py",
    "tests/simulator/test_http_sender.py",
}
FAST = "not server and not slow"


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "server: starts a server or another process; `make test-fast` leaves it out")
    config.addinivalue_line("markers", "slow: in a slow module; `make test-fast` leaves it out")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip modules that `make test-fast` would deselect as a whole: importing them takes as long as its tests."""
    if config.option.markexpr != FAST or not collection_path.match("test_*.py"):
        return None
    return is_slow(collection_path) or starts_processes(collection_path) or None


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or another process, and what is slow."""
    for item in items:
        if isinstance(item, pytest.Function) and needs_server(item):
            item.add_marker("server")
        if is_slow(item.path):
            item.add_marker("slow")


def is_slow(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix() in SLOW


def needs_server(item: pytest.Function) -> bool:
    """Return whether a test needs a server or another process."""
    if FIXTURES & set(item.fixturenames):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(value, str) and value in PARAMETERS for value in parameters):
        return True
    definitions = [found for several in item._fixtureinfo.name2fixturedefs.values() for found in several]
    modules = {Path(inspect.getfile(found.func)) for found in definitions} - {CONFTEST}
    return any(starts_processes(module) for module in {item.path, *modules} if module.is_relative_to(ROOT / "tests"))


@cache
def starts_processes(path: Path) -> bool:
    """Return whether a module, or a helper module that it imports, at any depth, starts processes."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        names, imported = _read(module)
        if names & STARTERS:
            return True
        waiting += imported
    return False


@cache
def _read(module: Path) -> tuple[set[str], list[Path]]:
    """Return the names that a module uses, and the files of the helper modules that it imports."""
    names: set[str] = set()
    files: list[Path] = []
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.Import(names=aliases):
                files += [file for alias in aliases for file in _files(alias.name)]
            case ast.ImportFrom(module=str(source), names=aliases):
                files += [file for alias in aliases for file in (*_files(f"{source}.{alias.name}"), *_files(source))]
    return names, files


def _files(name: str) -> list[Path]:
    if name.partition(".")[0] not in HELPERS:
        return []
    file = ROOT / f"{name.replace('.', '/')}.py"
    return [file] if file.exists() else []
