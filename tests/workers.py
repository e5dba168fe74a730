"""Parallel workers on one machine (pytest-xdist): which tests may run at the same time, and which files come first.

A pytest plugin; it does nothing in a run without workers. Each worker has its own servers. A test that measures time or
memory is marked `alone`: it waits until the other workers' tests have ended, and they wait for it, all before the
timeout of a test begins. Beside a test of four minutes, two workers would wait four minutes: files with such tests come
last, when only short tests are left.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

A_WORKER = "PYTEST_XDIST_WORKER" in os.environ
# Files that the workers of this checkout lock; any two that exist would do.
DOOR, ROOM = Path(__file__), Path(__file__).with_name("__init__.py")
# The slowest files, which must not come last. Faults have deadlines: beside them run those that mostly wait, and those
# that load the machine come when the faults are over, after some eight minutes.
LONGEST = (
    "tests/faults/test_chaos.py",
    "tests/clients/test_readme_devices.py",
    "tests/device/test_python_faults.py",
    "tests/persister/test_requeues.py",
    "tests/clients/test_reconnect.py",
    "tests/broker/rabbitmq/test_connector.py",
    "tests/persister/test_clocks.py",
    "tests/power/test_power.py",
    "tests/integration/test_outages.py",
    "tests/auth/cli/test_users.py",
    "tests/broker/operator/test_dead_letters.py",
    "tests/auth/cli/test_keys.py",
    "tests/e2e/test_onebox.py",
    "tests/integration/test_pipeline.py",
    "tests/docs/test_second_broker.py",
    "tests/persister/compaction/test_faults.py",
    "tests/bench/test_history.py",
    "tests/auth/test_fuzz.py",
    "tests/bench/test_pipeline.py",
    "tests/soak/test_soak.py",
    "tests/bench/test_benches.py",
    "tests/bench/test_dashboard.py",
)
MODES = {"shared": fcntl.LOCK_SH, "alone": fcntl.LOCK_EX}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "alone: measures time or memory, so no other worker runs a test meanwhile")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slowest files, and end with those that have tests to be alone; the others keep their order."""
    if A_WORKER:
        places = {name: place for place, name in enumerate(LONGEST)}
        last = {_file(item): len(places) + 1 for item in items if item.get_closest_marker("alone")}
        items.sort(key=lambda item: (places | last).get(_file(item), len(places)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run a test once it is its turn."""
    if not A_WORKER:
        return (yield)
    with turn("alone" if item.get_closest_marker("alone") else "shared", DOOR, ROOM):
        return (yield)


@contextmanager
def turn(mode: Literal["shared", "alone"], door: Path, room: Path) -> Iterator[None]:
    """Hold the room with others or alone; new tests wait behind one that waits to be alone."""
    with door.open("rb") as before, room.open("rb") as inside:
        fcntl.flock(before, fcntl.LOCK_EX)
        fcntl.flock(inside, MODES[mode])
        fcntl.flock(before, fcntl.LOCK_UN)
        yield
