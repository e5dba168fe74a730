"""Several workers on one machine (pytest-xdist): who may be beside whom, and what is begun first.

A pytest plugin; in a run without workers it does nothing. Each worker has servers of its own. A test that measures time
or memory is marked `alone`: it waits until the tests of the other workers have ended, and they wait for it, before the
time that a test may take begins to count.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

A_WORKER = "PYTEST_XDIST_WORKER" in os.environ
# Locked for the workers of this checkout: two files that are there anyway.
DOOR, ROOM = Path(__file__), Path(__file__).with_name("__init__.py")
# The files that take longest, which must not come last.
LONGEST = (
    "tests/faults/test_chaos.py",
    "tests/bench/test_systems.py",
    "tests/e2e/test_dashboard.py",
    "tests/auth/cli/test_users.py",
    "tests/broker/operator/test_dead_letters.py",
    "tests/auth/cli/test_keys.py",
    "tests/e2e/test_onebox.py",
    "tests/integration/test_pipeline.py",
    "tests/integration/test_outages.py",
    "tests/auth/test_fuzz.py",
)
MODES = {"shared": fcntl.LOCK_SH, "alone": fcntl.LOCK_EX}


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the marker."""
    config.addinivalue_line("markers", "alone: measures time or memory, so that no other worker's test runs meanwhile")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest; the other files stay in their order."""
    if A_WORKER:
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run a test in its turn."""
    if not A_WORKER:
        return (yield)
    with turn("alone" if item.get_closest_marker("alone") else "shared", DOOR, ROOM):
        return (yield)


@contextmanager
def turn(mode: Literal["shared", "alone"], door: Path, room: Path) -> Iterator[None]:
    """Be in the room with others, or alone. Nobody enters before one who waits to be alone."""
    with door.open("rb") as before, room.open("rb") as inside:
        fcntl.flock(before, fcntl.LOCK_EX)
        fcntl.flock(inside, MODES[mode])
        fcntl.flock(before, fcntl.LOCK_UN)
        yield
