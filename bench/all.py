"""All benchmarks in sequence, and one table with a verdict per line; the default of `python -m bench`.

Takes up to 70 minutes on two processors, with `--quick` up to 5. A part that does not fit is reported as not measured.
Each part is a separate process, so that nothing of one is left when the next starts.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from typing import Any

from bench.processes import ENDS_WITH_PARENT, ROOT
from bench.report import Figure, progress
from bench.results import Details, finish

FULL_MINUTES, QUICK_MINUTES = 70.0, 5.0
STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Part:
    """One benchmark: its name, its minutes on two processors, and its arguments."""

    name: str
    minutes: float
    arguments: tuple[str, ...] = ()


# Most interesting first; parts that do not fit are left out from the end.
FULL_SUITE = (
    Part("pipeline", 12),
    Part("floor", 3),
    Part("start", 3),
    Part("growth", 16),
    Part("gateway", 7),
    Part("sparse", 13),
    Part("drain", 3),
    Part("reader", 6),
    Part("dashboard", 16),
    Part("auth_logins", 3),
    Part("provisioning", 1),
    Part("alarms", 10),
    Part("pythons", 20),
)
QUICK = (
    Part("pipeline", 2.5, ("--quick",)),
    Part("floor", 0.5, ("--quick",)),
    Part("growth", 1, ("--quick",)),
)


def login_figures(output: dict[str, float]) -> list[Figure]:
    """Return the figures of the log-in benchmark, which has its own format."""
    return [
        Figure("log-ins", output["logInsPerSecond"], "a second"),
        Figure("  of what bare bcrypt allows", output["ratio"], "x", at_least=0.9),
        Figure("  /healthz meanwhile: p99", output["healthzP99Ms"], "ms", 50.0),
    ]


@dataclass
class Results:
    """The results of all parts."""

    figures: list[Figure] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, output: dict[str, Any]) -> None:
        """Add the figures of one part."""
        if "figures" not in output:
            found = login_figures(output)
        else:
            known = {one.name for one in fields(Figure)}
            found = [Figure(**{key: value for key, value in one.items() if key in known}) for one in output["figures"]]
        title = output.get("title", name)
        self.figures += [Figure(f"[{name}] {title}", 0, ""), *found] if found else []
        for what, why in output.get("notMeasured", {}).items():
            self.not_measured[f"{name}: {what}"] = why


def run_part(part: Part, timeout_s: float) -> dict[str, Any] | str:
    """Run one part; return its JSON output, or why there is none."""
    command = [*ENDS_WITH_PARENT, sys.executable, "-m", "bench", part.name, "--json", *part.arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that it stops its own processes
            try:
                process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"it was stopped after {timeout_s / 60:.0f} minutes"
    last = output.strip().rpartition("\n")[2]
    if process.returncode not in (0, 1) or not last.startswith("{"):
        return f"it ended with {process.returncode}"
    found: dict[str, Any] = json.loads(last)
    return found


def run(parts: tuple[Part, ...], minutes: float) -> Results:
    """Run parts until the time is used up."""
    results, started = Results(), time.monotonic()
    for part in parts:
        left = minutes - (time.monotonic() - started) / 60
        if left < part.minutes:
            results.not_measured[part.name] = f"it takes {part.minutes:g} minutes, and {max(0, left):.0f} are left"
            progress(f"{part.name}: not measured, {results.not_measured[part.name]}")
            continue
        progress(f"{part.name}: {left:.0f} minutes are left")
        began = time.monotonic()
        output = run_part(part, left * 60)
        results.minutes[part.name] = round((time.monotonic() - began) / 60, 1)
        if isinstance(output, str):
            results.not_measured[part.name] = output
        else:
            results.add(part.name, output)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 5 minutes, for a first impression")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    parts, minutes = (QUICK, QUICK_MINUTES) if options.quick else (FULL_SUITE, FULL_MINUTES)
    results = run(parts, minutes)
    details = Details(not_measured=results.not_measured, about={"minutes": results.minutes})
    code = finish("all", "Everything measured", results.figures, details, as_json=options.json, save=not options.quick)
    print("\nwhat falls short, why, and what was tried: docs/performance.md", file=sys.stderr)
    failed = any(part.name in results.not_measured and part.name in results.minutes for part in parts)
    return 2 if failed else code


if __name__ == "__main__":
    sys.exit(main())
