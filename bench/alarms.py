"""Rules: what a matched reading costs, how late a webhook is, what a rule takes, and when a silence is noticed.

End to end, on real RabbitMQ, MongoDB and MariaDB, beside the same pipeline without rules; and in one process, without
servers, which is all that `--quick` measures.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.alarms_evaluation import figures as evaluation_figures
from bench.alarms_pipeline import PipelineEffort, measure_pipeline
from bench.alarms_silences import SilencesEffort, measure_silences
from bench.measurements import IDLE_SAMPLE_S, idle_cpu
from bench.processes import BenchError
from bench.report import Figure, progress, show
from bench.systems import start_servers
from runtime.logs import configure_logs
from runtime.process import raise_fd_limit
from testing.servers.mariadb import MariaDBServer

PARTS = ("evaluation", "pipeline", "silences")


@dataclass(frozen=True)
class Effort:
    """How much of everything is measured."""

    series: int
    rules: int
    pipeline: PipelineEffort
    silences: SilencesEffort
    idle_s: float = IDLE_SAMPLE_S


FULL = Effort(10_000, 100_000, PipelineEffort(12, 3.0, 3, 20.0), SilencesEffort(100_000, 300, 40))
SMOKE = Effort(100, 1000, PipelineEffort(1, 0.25, 1, 1.0, rate=1000.0), SilencesEffort(1000, 10, 2), 0.3)


def with_servers(folder: Path, effort: Effort, parts: Collection[str]) -> list[Figure]:
    """Measure the real service."""
    figures: list[Figure] = []
    with start_servers(folder) as servers, MariaDBServer(folder / "mariadb") as mariadb:
        if "pipeline" in parts:
            idle = idle_cpu(servers, effort.idle_s)
            figures += measure_pipeline(servers, mariadb, effort.pipeline, idle)
        if "silences" in parts:
            figures += measure_silences(servers.environment, mariadb, effort.silences)
    return figures


def main() -> int:
    """Measure and print; 1 if a figure falls short."""
    parser = argparse.ArgumentParser(prog="python -m bench alarms", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without servers: only what evaluating takes")
    parser.add_argument("--smoke", action="store_true", help="a hundredth of everything: only whether it runs")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    effort = SMOKE if arguments.smoke else FULL
    configure_logs("warning", "console")  # to standard error: standard output is for the figures
    raise_fd_limit()
    parts = arguments.only or (PARTS[:1] if arguments.quick else PARTS)
    figures: list[Figure] = []
    if "evaluation" in parts:
        progress("in one process, without servers")
        figures += evaluation_figures(effort.series, effort.rules)
    if {"pipeline", "silences"} & set(parts):
        with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
            try:
                figures = with_servers(Path(folder), effort, parts) + figures
            except BenchError as error:
                print(error, file=sys.stderr)
                return 2
    return show("Rules", figures, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
