"""Collects the tests with clocks that are an hour behind, so that none can depend on the time of collection.

A pytest plugin. On a slow machine the last tests of a run begin an hour after their collection, so a time computed at
import or in parameters is wrong by then. Code that reads a clock during collection is recorded, because such a test may
pass without testing anything; tests/test_collecting.py reports it.
"""

import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

BEHIND_S = 3600
ROOT = Path(__file__).parent.parent
# Lines of the project that read a clock during collection, directly or indirectly.
READERS: list[str] = []


class _Clock:
    """Replaces `time.time` or `time.time_ns`; a module that imported it gets the right time after collection."""

    def __init__(self, ask: Callable[[], Any], behind: int) -> None:
        self._ask = ask
        self._behind = behind

    def __call__(self) -> Any:
        if self._behind and _ours(sys._getframe(1).f_code.co_filename):
            READERS.append(_outermost_line())
        return self._ask() - self._behind

    def correct(self) -> None:
        self._behind = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect with slow clocks."""
    real, real_ns = time.time, time.time_ns
    clocks = _Clock(real, BEHIND_S), _Clock(real_ns, BEHIND_S * 10**9)
    time.time, time.time_ns = clocks
    try:
        return (yield)
    finally:
        time.time, time.time_ns = real, real_ns
        for clock in clocks:
            clock.correct()


def _ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / ".venv")


def _outermost_line() -> str:
    frame, found = sys._getframe(2), ""
    while frame.f_back is not None:
        if _ours(frame.f_code.co_filename):
            found = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return found
