"""Collects tests with a clock that is an hour behind, so that no test can depend on the time of its collection.

A pytest plugin. On a slow machine, the last tests of a run start an hour after their collection: values computed from a
clock when a module is loaded or a test is parametrized are wrong by then. Lines that read the clock during collection
are recorded, for such a test may pass without testing anything; tests/test_collecting.py reports them.

A patched clock never reaches a test: before and after each test `time.time` and `time.time_ns` must be the real ones.
A test that fails while the machine's own clock is stepped says so in its report.
"""

import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

BEHIND_S = 3600
# A larger difference between the wall clock and the monotonic clock is a step, not drift.
STEP_S = 1.0
ROOT = Path(__file__).parent.parent
REAL = time.time, time.time_ns
MONOTONIC = time.monotonic
OFFSET = pytest.StashKey[float]()
# Lines of this repository that read the clock during collection, or called the code that did.
READERS: list[str] = []


class _Clock:
    """Replaces `time.time` or `time.time_ns`; modules that imported the name keep it, and it becomes right later."""

    def __init__(self, read: Callable[[], Any], behind: int) -> None:
        self._read = read
        self._behind = behind

    def __call__(self) -> Any:
        if self._behind and _in_repository(sys._getframe(1).f_code.co_filename):
            READERS.append(_outermost_line())
        return self._read() - self._behind

    def correct(self) -> None:
        self._behind = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect with clocks that are behind, and restore them however collection ends."""
    clocks = _Clock(REAL[0], BEHIND_S), _Clock(REAL[1], BEHIND_S * 10**9)
    time.time, time.time_ns = clocks
    try:
        return (yield)
    finally:
        restore()
        for clock in clocks:
            clock.correct()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that would start with a patched clock."""
    require_real_clock(f"before {item.nodeid}")
    item.stash[OFFSET] = wall_offset_s()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that leaves a patched clock behind."""
    result = yield
    require_real_clock(f"after {item.nodeid}")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failure by how much the machine's clock was stepped since the test started."""
    report = yield
    step_s = wall_offset_s() - item.stash.get(OFFSET, wall_offset_s())
    if report.failed and abs(step_s) > STEP_S:
        report.sections.append(("clock", f"The machine's clock was stepped by {step_s:+.1f} s during this test."))
    return report


def wall_offset_s() -> float:
    """Return the wall clock's offset from the monotonic clock in seconds: constant unless the clock is stepped."""
    return REAL[0]() - MONOTONIC()


def require_real_clock(when: str) -> None:
    """Restore the real clock and raise AssertionError if it was patched."""
    if (time.time, time.time_ns) != REAL:
        restore()
        raise AssertionError(f"the clock was patched {when}")


def restore() -> None:
    """Put the real clock back."""
    time.time, time.time_ns = REAL


def _in_repository(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / ".venv")


def _outermost_line() -> str:
    frame, found = sys._getframe(2), ""
    while frame.f_back is not None:
        if _in_repository(frame.f_code.co_filename):
            found = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return found
