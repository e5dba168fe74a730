"""Marks the tests that need a server or another process as `server`: `make test-fast` runs all others.

A pytest plugin. A test is marked if it uses a fixture that starts a server, if one of its parameters names a server, or
if its module or the module of one of its fixtures starts processes, itself or through a helper module that it imports.
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


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "server: starts a server or another process; `make test-fast` leaves it out")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip modules that `-m "not server"` would deselect as a whole: importing them takes as long as the tests."""
    if config.option.markexpr != "not server" or not collection_path.match("test_*.py"):
        return None
    return starts_processes(collection_path) or None


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or another process."""
    for item in items:
        if isinstance(item, pytest.Function) and needs_server(item):
            item.add_marker("server")


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
