"""No test depends on the time of its collection."""

import ast
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.collecting import BEHIND_S, READERS, REAL, pytest_collection, require_real_clock

ROOT = Path(__file__).parent
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "now", "utcnow", "today"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def clock() -> tuple[float, int]:
    return time.time(), time.time_ns()


AT_COLLECTION = clock()
IMPORTED_DURING_COLLECTION = time.time


def test_the_clock_of_collection_was_an_hour_behind_and_is_right_now() -> None:
    now = datetime.now(UTC).timestamp()  # not patched
    assert AT_COLLECTION[0] < now - BEHIND_S
    assert AT_COLLECTION[1] < (now - BEHIND_S) * 1e9
    assert time.time() == pytest.approx(now, abs=1)
    assert (time.time, time.time_ns) == REAL


def test_a_clock_that_a_module_imported_during_collection_is_right_now() -> None:
    assert IMPORTED_DURING_COLLECTION is not REAL[0]
    assert IMPORTED_DURING_COLLECTION() == pytest.approx(REAL[0](), abs=1)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_clock_is_real_again_however_collection_ends(error: type[BaseException] | None) -> None:
    collection = pytest_collection()
    next(collection)
    assert time.time is not REAL[0]
    assert time.time_ns is not REAL[1]
    end = partial(collection.send, None) if error is None else partial(collection.throw, error())
    with pytest.raises(error or StopIteration):
        end()
    assert (time.time, time.time_ns) == REAL


def test_a_patched_clock_is_reported_and_put_right() -> None:
    time.time = lambda: 0.0
    with pytest.raises(AssertionError, match=r"^the clock was patched after x$"):
        require_real_clock("after x")
    assert (time.time, time.time_ns) == REAL
    require_real_clock("after y")


def test_nothing_else_has_asked_that_clock() -> None:
    assert [line for line in READERS if not line.startswith("tests/test_collecting.py:")] == []
    assert len(READERS) == 2


def loaded(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the code that runs on import: everything but function bodies."""
    yield node
    if isinstance(node, FUNCTIONS):
        parts: list[ast.AST] = [node.args, *getattr(node, "decorator_list", [])]
    else:
        parts = list(ast.iter_child_nodes(node))
    for part in parts:
        yield from loaded(part)


def clocks_read(text: str) -> list[int]:
    """Return the lines that read a clock on import."""
    return [
        node.lineno
        for node in loaded(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCKS
        and not (node.args and node.func.attr in ("time", "today"))
    ]


def test_no_module_of_the_tests_reads_a_clock_when_it_is_loaded() -> None:
    found = {str(path.relative_to(ROOT)): clocks_read(path.read_text()) for path in ROOT.rglob("*.py")}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "NOW = int(time.time())",
        "@mark(datetime.now(UTC))\ndef f(): pass",
        "def f(at=time.time_ns()): pass",
        "class A:\n x = date.today()",
    ],
)
def test_a_clock_that_is_read_is_seen(text: str) -> None:
    assert clocks_read(text)
    assert not clocks_read("def f():\n    return time.time()\ng = lambda: time.time()")
