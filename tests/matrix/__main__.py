"""`make matrix`: the whole pipeline on each version of each server, one axis at a time, everything else this machine's.

Each line is a cell: its result, its seconds, and the exact version. What cannot be had here is named with the reason.
Exit code 1 if a cell fails, or if none could be run; 2 if the command line is wrong.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from testing.servers.debian import NotAvailableError
from testing.signals import exit_on_signals
from tests.matrix.choices import CHOICES, LABELS, SUITES, Choice, Found, Programs, defaults, find
from tests.matrix.stack import running_stack
from tests.matrix.walk import walk

CELL_TIMEOUT_S = 600
LOGS, LOG_LINES = ("rabbitmq/rabbitmq.log", "proxy/error.log", "services.log"), 15


@dataclass(frozen=True)
class Cell:
    """One run: the choices that differ from this machine's own."""

    name: str
    choices: tuple[Choice, ...]


def cells() -> list[Cell]:
    """Return a cell per version, and one per suite with all of its versions at once."""
    ones = [Cell(choice.name, (choice,)) for choice in CHOICES]
    suites = [
        Cell(name, tuple(choice for choice in CHOICES if choice.suite == suite)) for name, suite in SUITES.items()
    ]
    return ones + suites


def selected(only: list[str] | None, *, short: bool) -> list[Cell]:
    """Return the cells whose name is in `only`, or begins with it as a program's name; ValueError for others."""
    if short:
        return [cell for cell in cells() if cell.name in SUITES]
    names = {name for cell in cells() for name in (cell.name, cell.name.rpartition("-")[0])}
    if unknown := [name for name in only or () if name not in names]:
        raise ValueError(f"no cell is called {' or '.join(unknown)}; see --list")
    return [cell for cell in cells() if not only or {cell.name, cell.name.rpartition("-")[0]} & set(only)]


async def run(programs: Programs, folder: Path) -> None:
    """Walk through a system of these programs."""
    async with asyncio.timeout(CELL_TIMEOUT_S), running_stack(folder, programs) as stack:
        await walk(stack, folder)


class Matrix:
    """Runs cells and prints a line for each; the same programs are run only once."""

    def __init__(self) -> None:
        self.failed = self.passed = self.not_available = 0
        self._own = defaults()
        self._results: dict[Programs, tuple[str, str]] = {}

    def run_cell(self, cell: Cell) -> None:
        found: list[Found] = []
        missing: list[str] = []
        for choice in cell.choices:
            try:
                found.append(find(choice))
            except NotAvailableError as error:
                missing.append(f"not available: {LABELS[choice.program]} {choice.version}: {error}")
        self.not_available += len(missing)
        if not found:
            return self._print(cell.name, "not run", 0, "; ".join(missing))
        programs = self._own
        for one in found:
            programs = programs.with_one(one)
        started = time.monotonic()
        if programs in self._results:
            earlier, failure = self._results[programs]
            note = f"the same run as {earlier}"
        else:
            failure, note = self._walk(programs), ""
            self._results[programs] = cell.name, failure
        self.failed += bool(failure)
        self.passed += not failure
        details = [", ".join(map(str, found)), note, *missing, failure]
        return self._print(
            cell.name, "FAILED" if failure else "ok", time.monotonic() - started, "; ".join(filter(None, details))
        )

    def _walk(self, programs: Programs) -> str:
        """Return why it failed, empty if it did not."""
        with tempfile.TemporaryDirectory(prefix="tidegate-matrix-") as name:
            try:
                asyncio.run(run(programs, Path(name)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the cell's result
                at = traceback.extract_tb(error.__traceback__)[-1]
                self._print_logs(Path(name), error)
                return f"{type(error).__name__}: {error} in {Path(at.filename).name}, line {at.lineno}"
        return ""

    def _print_logs(self, folder: Path, error: Exception) -> None:
        traceback.print_exception(error)
        for log in filter(Path.exists, map(folder.joinpath, LOGS)):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            print(f"--- {log.relative_to(folder)}", *lines, sep="\n", file=sys.stderr, flush=True)

    def _print(self, name: str, result: str, seconds: float, details: str) -> None:
        print(f"{name:15}{result:9}{seconds:6.1f} s  {details}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", metavar="NAME", help="cells, or all of a program: rabbitmq nginx-1.26")
    which.add_argument("--short", action="store_true", help="only one cell a suite, with all of its versions at once")
    parser.add_argument("--list", action="store_true", help="list the cells")
    args = parser.parse_args()
    try:
        chosen = selected(args.only, short=args.short)
    except ValueError as error:
        parser.error(str(error))
    if args.list:
        print(*(cell.name for cell in chosen), sep="\n")
        return 0
    if not (shutil.which("node") and shutil.which("npm")):
        sys.exit("node and npm are needed for the JavaScript devices")
    exit_on_signals()
    started = time.monotonic()
    try:
        matrix = Matrix()
    except NotAvailableError as error:
        sys.exit(f"this machine's own programs are needed: {error}")
    for cell in chosen:
        matrix.run_cell(cell)
    print(
        f"{matrix.passed} passed, {matrix.failed} failed, {matrix.not_available} not available,"
        f" {time.monotonic() - started:.0f} s"
    )
    return 1 if matrix.failed or not matrix.passed else 0


if __name__ == "__main__":
    sys.exit(main())
