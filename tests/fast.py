"""The selection of `make test-fast`: every test that needs no server and no other process is left unmarked.

A pytest plugin. A test is marked `server` if it uses a fixture that starts a server, or if its module starts processes,
itself or through a helper module that it imports.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HELPERS = ("tests", "testing")
FIXTURES = {"rabbitmq_server", "newest_rabbitmq_server", "mariadb_server", "mongodb_server"}
STARTERS = {"subprocess", "create_subprocess_exec", "create_subprocess_shell", "private_mongod", "multiprocessing"}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "server: starts a server or another process; `make test-fast` leaves it out")


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or another process."""
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())) or starts_processes(item.path):
            item.add_marker("server")


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
