"""History in blocks beside the version before them: size, buckets, exports, compaction, ingest, erasure.

Both versions run on the same servers in one run, and most targets are ratios. Beside them is a MongoDB time-series
collection with the same readings, as what a user would take. The earlier version is a commit of this repository, in a
work tree of its own; where there is no such commit, only this version is measured.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.environment import start_environment
from bench.history_compaction import CompactionEffort, measure_compaction
from bench.history_comparison import Comparison, table, with_table
from bench.history_erasure import ErasureEffort, measure_erasure
from bench.history_ingest import IngestEffort, measure_beside_blocks, measure_pipelines, measure_seals
from bench.history_reads import ReadsEffort, measure_reads
from bench.history_setup import HistorySetup
from bench.history_sizes import SizesEffort, measure_sizes
from bench.history_year import YearEffort, measure_year
from bench.measurements import idle_cpu
from bench.plot import groups
from bench.processes import ROOT, BenchError
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.systems import SharedServers
from bench.versions import BASE, base_version
from runtime.logs import configure_logs
from runtime.process import raise_fd_limit
from testing.servers.mongodb import MongoDBServer

PARTS = ("sizes", "year", "reads", "ingest", "blocks", "erasure")
DOCUMENT = ROOT / "docs" / "performance.md"
TITLE = "History: blocks, beside the version before them"
NO_BASE = f"this repository has no commit {BASE}, as in a shallow clone; --base takes a checkout of it"
MILLION = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How much of everything is measured."""

    sizes: SizesEffort
    year: YearEffort
    reads: ReadsEffort
    compaction: CompactionEffort
    ingest: IngestEffort
    erasure: ErasureEffort


FULL = Effort(
    SizesEffort(seals=30, seal_readings=100_000, document_readings=1_000_000),
    YearEffort(week=7, month=30, year=365, asked=7, asked_cold=3, exported=30),
    ReadsEffort(series=1000, older=5000, newer=50, gap=5000, rounds=4, asked=8),
    CompactionEffort(series=1000, each=5000),
    IngestEffort(7, 3, 4, seconds=3, sealed_seconds=15, hot=MILLION, in_blocks=49 * MILLION),
    ErasureEffort(series=1000, in_blocks=10 * MILLION, documents=200_000),
)
QUICK = Effort(
    SizesEffort(seals=8, seal_readings=50_000, document_readings=200_000),
    YearEffort(week=2, month=10, year=60, asked=3, asked_cold=1, exported=5),
    ReadsEffort(series=1000, older=500, newer=20, gap=5000, rounds=1, asked=3),
    CompactionEffort(series=200, each=5000),
    IngestEffort(1, 1, 1, seconds=1.5, sealed_seconds=8, hot=200_000, in_blocks=5 * MILLION),
    ErasureEffort(series=200, in_blocks=2 * MILLION, documents=40_000),
)
SMOKE = Effort(
    SizesEffort(seals=2, seal_readings=2000, document_readings=2000),
    YearEffort(week=1, month=2, year=3, asked=1, asked_cold=1, exported=1),
    ReadsEffort(series=100, older=20, newer=10, gap=500, rounds=1, asked=1),
    CompactionEffort(series=10, each=5000),
    IngestEffort(1, 1, 1, seconds=0.3, sealed_seconds=3, hot=5000, in_blocks=100_000),
    ErasureEffort(series=10, in_blocks=100_000, documents=2000),
)


@dataclass
class History:
    """The results of all parts."""

    comparisons: list[Comparison] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """Return all lines, those of a comparison together."""
        return [figure for one in self.comparisons for figure in one.figures()]

    def details(self, parts: list[str]) -> Details:
        """Return the table, the plot, and what was not measured."""
        bars = {}
        for one in self.comparisons:
            values = [(one.against, one.other), ("now", one.now), ("a time-series collection", one.time_series)]
            bars[f"{one.what}, {one.unit}"] = [(name, value) for name, value in values if value is not None]
        rows = {f"{one.what}, {one.unit}": one.row() for one in self.comparisons}
        about = {"parts": parts, "base": BASE, **self.versions}
        title = "before: commit " + BASE + ", or what the line names"
        return Details(rows, self.not_measured, about, groups(TITLE, bars), title)


def run(folder: Path, parts: list[str], effort: Effort, given: Path | None) -> History:
    """Run the selected parts, each on a mongod of its own kind: one for reading, one for writing."""
    found = History()
    with base_version(given, folder) as base, start_environment(folder) as environment:
        if base is None:
            found.not_measured[f"commit {BASE}"] = NO_BASE
        reading: dict[str, Callable[[HistorySetup], list[Comparison]]] = {
            "sizes": lambda setup: measure_sizes(setup, effort.sizes),
            "year": lambda setup: measure_year(setup, effort.year),
            "reads": lambda setup: measure_reads(setup, effort.reads),
        }
        wanted = [part for part in reading if part in parts]
        if wanted:
            with MongoDBServer(folder / "mongodb-reading", cache_gb=None) as mongodb:
                setup = HistorySetup(environment, mongodb, base)
                for part in wanted:
                    progress(part)
                    found.comparisons += reading[part](setup)
        if set(parts) - reading.keys():
            with MongoDBServer(folder / "mongodb", cache_gb=None) as mongodb:
                setup = HistorySetup(environment, mongodb, base)
                with setup.client() as client:
                    servers = SharedServers(environment, mongodb, client)
                    found.versions |= servers.versions()
                    _run_writing(found, setup, servers, parts, effort)
    return found


def _run_writing(found: History, setup: HistorySetup, servers: SharedServers, parts: list[str], effort: Effort) -> None:
    idle = idle_cpu(servers)
    if "ingest" in parts:
        progress("ingest")
        pipelines, comparisons = measure_pipelines(setup, servers, effort.ingest, idle)
        found.comparisons += measure_compaction(setup, servers, effort.compaction, idle, pipelines)
        found.comparisons += comparisons
        found.comparisons += measure_seals(setup, servers, effort.ingest, pipelines)
    if "blocks" in parts:
        progress("blocks")
        found.comparisons += measure_beside_blocks(servers, effort.ingest, idle)
    if "erasure" in parts:
        progress("erasure")
        found.comparisons += measure_erasure(setup, servers, effort.erasure)


def update_document(comparisons: list[Comparison]) -> None:
    """Write the table into docs/performance.md."""
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(comparisons)))


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench history", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer readings, for a first impression: 4 minutes")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument(
        "--base", type=Path, help=f"a checkout of commit {BASE} (default: a work tree made for the run)"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    parts = [part for part in PARTS if not options.only or part in options.only]
    raise_fd_limit()
    configure_logs("error", "console")  # to standard error: standard output is for the figures
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            found = run(Path(folder), parts, effort, options.base)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    save = not (options.smoke or options.quick or options.only or found.not_measured)
    if save:
        update_document(found.comparisons)
    return finish("history", TITLE, found.figures(), found.details(parts), as_json=options.json, save=save)


if __name__ == "__main__":
    sys.exit(main())
