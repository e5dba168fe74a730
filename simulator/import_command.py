"""The command line of `python -m simulator import`: check files, send them, and account for every row."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runtime.command_line import CommandParser
from runtime.logs import configure_logs
from runtime.process import Shutdown, run_until_stopped
from runtime.times import rfc3339
from simulator.account_options import add_account_options, add_token_option, password_of, token_of
from simulator.errors import ReplayError, SimulatorError
from simulator.importing import STOP_FLUSH_S, ImportPlan, check_files, import_files
from simulator.progress import progress
from simulator.replay.file import Replay
from simulator.replay.options import FILES, add_file_options, file_argument, file_of, id_argument
from simulator.replay.readings import CheckedReplay, RowCounts
from simulator.replay.report import print_report
from simulator.run_stats import RunStats, RunSummary

# Refusals and series that are printed; --refused has all.
_SHOWN = 20

EPILOG = f"""\
examples:
  python -m simulator import readings.csv --dry-run --device boiler:1 --sensor-type temperature
  TIDEGATE_PASSWORD=... python -m simulator import 2025.csv.gz 2026.csv.gz --url http://127.0.0.1:8080 \\
      --email me@example.org --device boiler:1 --zone Europe/Berlin --repeated-hour order --missing NA
  TIDEGATE_TOKEN=... python -m simulator import export.parquet --url http://127.0.0.1:8080

{FILES}

exit codes: 0 every row with a value is stored or on its way; 1 rows were refused, or readings not acknowledged; 2 bad
arguments, or a file that cannot be read: nothing was sent. Repeating an import stores nothing twice."""


class FileCounts(msgspec.Struct, rename="camel", frozen=True):
    """The rows of a file: `rows` is the sum of the next four; `readings` is how many readings they have."""

    file: str
    rows: int
    complete: int
    partial: int
    empty: int
    refused: int
    readings: int


class ImportSummary(RunSummary, rename="camel", frozen=True, kw_only=True):
    """The figures of an import; `unsent` readings were neither accepted nor rejected."""

    files: list[FileCounts]
    unsent: int


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = import_parser()
    options = parser.parse_args(arguments)
    plan = _plan(parser, options)
    configure_logs("warning", "console")
    if options.refused is not None and any(_is_same(options.refused, path) for path in options.files):
        parser.error(f"--refused {options.refused}: it is one of the files to import, and would be overwritten")
    with _refusals(parser, options.refused) as refusals:
        run = _Run(plan, refusals, dry_run=options.dry_run)
        code = run_until_stopped(run.serve, STOP_FLUSH_S + 2)
    if run.error:
        sys.stderr.write(f"import: {run.error}\n")
    if run.code == 2:
        return 2
    return max(code, run.code, _print(run, refusals, as_json=options.json))


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


class _Refusals:
    """Prints the first refusals on standard error, and writes all into a file, if there is one."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.count = 0

    def add(self, file: Replay, error: ReplayError) -> None:
        """Tell about one."""
        self.count += 1
        if self._writer is not None:
            self._writer.writerow((file.path, error.line, error.column, error.reason))
        if self.count <= _SHOWN:
            sys.stderr.write(f"{error}\n")


@contextmanager
def _refusals(parser: CommandParser, path: Path | None) -> Iterator[_Refusals]:
    if path is None:
        yield _Refusals(None)
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        parser.error(f"--refused {path}: {error.strerror}")
    with file:
        writer = csv.writer(file)
        writer.writerow(("file", "line", "column", "reason"))
        yield _Refusals(writer)


class _Run:
    def __init__(self, plan: ImportPlan, refusals: _Refusals, *, dry_run: bool) -> None:
        self._plan = plan
        self._refusals = refusals
        self.dry_run = dry_run
        self.stats = RunStats()
        self.checked: list[CheckedReplay] = []
        self.error = ""
        self.code = 0

    async def serve(self, shutdown: Shutdown) -> None:
        try:
            self.checked = await check_files(self._plan, on_survey=print_report, on_refusal=self._refusals.add)
            if self.dry_run:
                return
            title = f"{len(self.checked)} files → {self._plan.url}"
            async with progress(self.stats, title=title):
                await import_files(
                    self._plan,
                    self.checked,
                    stats=self.stats,
                    stop=shutdown.event,
                    on_rejected=self._refusals.add,
                )
        except SimulatorError as error:
            self.error = str(error)
            self.code = 2 if isinstance(error, ReplayError) else 1


def _print(run: _Run, refusals: _Refusals, *, as_json: bool) -> int:
    if refusals.count > _SHOWN:
        sys.stderr.write(f"and {refusals.count - _SHOWN} more; --refused FILE has all\n")
    for failure in run.stats.failures:
        sys.stderr.write(f"{failure}\n")
    files = [_counts(found) for found in run.checked]
    readings = sum(counts.readings for counts in files)
    unsent = 0 if run.dry_run else readings - run.stats.acked
    if as_json:
        summary = ImportSummary(**msgspec.structs.asdict(run.stats.summary()), files=files, unsent=unsent)
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _text(run, files, unsent)))
    sys.stdout.flush()
    return 1 if unsent or run.stats.rejected or run.stats.failed or refusals.count else 0


def _counts(found: CheckedReplay) -> FileCounts:
    rows: RowCounts = found.rows
    return FileCounts(
        str(found.replay.path), rows.rows, rows.complete, rows.partial, rows.empty, rows.refused, found.readings
    )


def _text(run: _Run, files: list[FileCounts], unsent: int) -> Iterator[str]:
    for counts, found in zip(files, run.checked, strict=True):
        yield (
            f"{counts.file}: {counts.rows:,} rows: {counts.complete:,} complete, {counts.partial:,} in part, "
            f"{counts.empty:,} without a value, {counts.refused:,} refused; {counts.readings:,} readings"
        )
        if run.dry_run:
            series = sorted(found.series.items())
            for (device, sensor_type), span in series[:_SHOWN]:
                yield (
                    f"  {device} {sensor_type}: {span.readings:,} readings, {rfc3339(span.first_ms)} to "
                    f"{rfc3339(span.last_ms)}"
                )
            if len(series) > _SHOWN:
                yield f"  and {len(series) - _SHOWN} more series"
    if run.dry_run:
        yield "nothing was sent (--dry-run)"
        return
    stats = run.stats.summary()
    yield (
        f"sent {stats.sent:,} readings, acknowledged {stats.acked:,} ({stats.accepted:,} accepted, "
        f"{stats.rejected:,} rejected), {unsent:,} not acknowledged, in {stats.seconds:g} s"
    )


def import_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        prog="python -m simulator import",
        description="Send recorded readings to a running Tidegate, once, as the devices that rows or --device name. "
        "What was found in a file is printed before anything is sent.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="+", type=file_argument, metavar="FILE", help="files of one kind: all options are for each")
    add_account_options(parser, email_help="the account that owns the devices", required=False)
    add_token_option(parser)
    add("--device", type=id_argument, metavar="ID", help="device of all rows, registered or not")
    add("--dry-run", action="store_true", help="read and check the files, print what is in them, send nothing")
    add("--keep-going", action="store_true", help="leave out rows that are no readings, rather than send nothing")
    add("--refused", type=Path, metavar="FILE", help="write all rows that are left out or rejected into this CSV")
    add("--json", action="store_true", help="print the summary as one JSON object on standard output")
    add_file_options(parser.add_argument_group("files"))
    return parser


def _plan(parser: CommandParser, options: argparse.Namespace) -> ImportPlan:
    if options.device is not None and options.device_column:
        parser.error("--device and --device-column: give one of them")
    password = token = ""
    if not options.dry_run:
        if options.url is None:
            parser.error("--url is required, except with --dry-run")
        token = token_of(parser, options)
        password = "" if token else password_of(parser, options)
    return ImportPlan(
        url=options.url or "",
        email=options.email or "",
        password=password,
        token=token,
        files=tuple(file_of(parser, options, path, options.device) for path in options.files),
        keep_going=options.keep_going,
    )
