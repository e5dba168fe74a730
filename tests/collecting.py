"""Tests are collected with a clock that is an hour behind, so that none can depend on when that was.

A pytest plugin. The last tests of a run on a slow machine begin an hour after they were collected: what is computed
where a module is loaded or a test parametrized is wrong by then. tests/test_structure.py looks for the clocks that no
test can set back.
"""

import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

BEHIND_S = 3600


class _Clock:
    """Stands for `time.time` or `time.time_ns`; kept by a module that imported its name, it is right again later."""

    def __init__(self, ask: Callable[[], Any], behind: int) -> None:
        self._ask = ask
        self._behind = behind

    def __call__(self) -> Any:
        return self._ask() - self._behind

    def be_right(self) -> None:
        self._behind = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect with clocks that are behind."""
    real, real_ns = time.time, time.time_ns
    clocks = _Clock(real, BEHIND_S), _Clock(real_ns, BEHIND_S * 10**9)
    time.time, time.time_ns = clocks  # type: ignore[assignment]
    try:
        return (yield)
    finally:
        time.time, time.time_ns = real, real_ns
        for clock in clocks:
            clock.be_right()
