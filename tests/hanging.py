"""A test that hangs where pytest-timeout cannot reach it ends its process, and the run goes on without it.

A pytest plugin. pytest-timeout raises an exception, once: code that swallows it, a teardown after it, and native code
that does not return all hang on. This dumps where every thread is and exits. The process is then a crashed worker to
pytest-xdist, which names the test, reports it as failed and starts another worker.
"""

import faulthandler
import os
from collections.abc import Generator
from typing import Any

import pytest

STDERR = pytest.StashKey[int]()
GRACE_S = 60.0


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real stderr, which pytest replaces while a test runs."""
    config.stash[STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    if (stderr := config.stash.get(STDERR, None)) is not None:
        del config.stash[STDERR]
        os.close(stderr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch a test from its setup to the end of its teardown."""
    _watch(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Watch again: pytest gives up on it when a test fails."""
    _watch(item)


def _watch(item: pytest.Item) -> None:
    limit_s = float(item.config.getini("timeout")) + GRACE_S
    faulthandler.dump_traceback_later(limit_s, exit=True, file=item.config.stash[STDERR])
