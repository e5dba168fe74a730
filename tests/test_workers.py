"""A test marked `alone` runs alone, whatever the other workers do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import workers
from tests.fast import FAST, SLOW
from tests.workers import LONGEST

ROOT = Path(__file__).parent.parent
# Prints the times at which it entered and left.
VISIT = """
import sys, time
from pathlib import Path
from tests.workers import turn
mode, door, room = sys.argv[1:]
for _ in range(5):
    with turn(mode, Path(door), Path(room)):
        came = time.monotonic()
        time.sleep(0.05)
        print(mode, came, time.monotonic(), flush=True)
"""


def visit(mode: str, *files: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", VISIT, mode, *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_one_who_is_alone_is_alone_and_the_others_are_not(tmp_path: Path) -> None:
    door, room = tmp_path / "door", tmp_path / "room"
    door.touch()
    room.touch()
    visitors = [visit(mode, door, room) for mode in ("shared", "shared", "shared", "alone", "alone")]
    visits = [line.split() for visitor in visitors for line in visitor.communicate(timeout=60)[0].splitlines()]
    assert len(visits) == 25
    stays = [(mode, float(came), float(went)) for mode, came, went in visits]
    met = {
        (mode, other)
        for number, (mode, came, went) in enumerate(stays)
        for other, came_too, went_too in stays[:number]
        if came < went_too and came_too < went
    }
    assert met == {("shared", "shared")}


class Item:
    """What the order of a run needs to know of a test."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid

    def get_closest_marker(self, name: str) -> bool:
        return self.nodeid.endswith(name)


def test_the_longest_files_begin_a_run_and_those_with_tests_to_be_alone_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "A_WORKER", True)
    monkeypatch.setattr(workers, "LONGEST", ("d.py", "c.py"))
    items: Any = [
        Item(name) for name in ("a.py::1", "a.py::alone", "a.py::3", "b.py::1", "b.py::2", "c.py::1", "d.py::1")
    ]
    workers.pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [
        *("d.py::1", "c.py::1", "b.py::1", "b.py::2"),
        *("a.py::1", "a.py::alone", "a.py::3"),
    ]


def test_the_files_that_begin_a_run_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def test_the_slow_modules_are_there_and_make_leaves_them_out() -> None:
    assert [name for name in SLOW if not (ROOT / name).is_file()] == []
    assert f'-m "{FAST}"' in (ROOT / "Makefile").read_text()
