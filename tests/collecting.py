"""Tests are collected with a clock that is an hour behind, so that none can depend on when that was.

A pytest plugin. The last tests of a run on a slow machine begin an hour after they were collected: what is computed
where a module is loaded or a test parametrized is wrong by then. Who reads the clock all the same is noted, for a test
that passes may be one that tests nothing any more; tests/test_collecting.py says who it was.
"""

import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

BEHIND_S = 3600
ROOT = Path(__file__).parent.parent
# Lines of ours that have read the clock during the collection, or have called what did.
READERS: list[str] = []


class _Clock:
    """Stands for `time.time` or `time.time_ns`; kept by a module that imported its name, it is right again later."""

    def __init__(self, ask: Callable[[], Any], behind: int) -> None:
        self._ask = ask
        self._behind = behind

    def __call__(self) -> Any:
        if self._behind and _ours(sys._getframe(1).f_code.co_filename):
            READERS.append(_outermost_line())
        return self._ask() - self._behind

    def be_right(self) -> None:
        self._behind = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect with clocks that are behind."""
    real, real_ns = time.time, time.time_ns
    clocks = _Clock(real, BEHIND_S), _Clock(real_ns, BEHIND_S * 10**9)
    time.time, time.time_ns = clocks
    try:
        return (yield)
    finally:
        time.time, time.time_ns = real, real_ns
        for clock in clocks:
            clock.be_right()


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
