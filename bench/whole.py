"""Everything that is measured, one after the other, and one table with a verdict a line; without a name, this.

Within 60 minutes on two processors, with `--quick` within 5. A part that no longer fits is named as not measured. Each
is a process of its own, so that nothing of one is left when the next begins.
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
from bench.results import Kept, finish

WHOLE_MINUTES, QUICK_MINUTES = 60.0, 5.0
STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Part:
    """One measurement: its name, its arguments, and how many minutes it takes on two processors."""

    name: str
    minutes: float
    arguments: tuple[str, ...] = ()


# In the order of what a reader wants to know first; what does not fit any more is left out from the end.
WHOLE = (
    Part("pipeline", 12),
    Part("floor", 3),
    Part("growth", 16),
    Part("gateway", 7),
    Part("drain", 3),
    Part("reader", 6),
    Part("dashboard", 16),
    Part("auth_logins", 3),
)
QUICK = (
    Part("pipeline", 2.5, ("--quick",)),
    Part("floor", 0.5, ("--quick",)),
    Part("growth", 1, ("--quick",)),
)


def log_ins(said: dict[str, float]) -> list[Figure]:
    """Return the figures of the bench of log-ins, which has a form of its own."""
    return [
        Figure("log-ins", said["logInsPerSecond"], "a second"),
        Figure("  of what bare bcrypt allows", said["ratio"], "x", at_least=0.9),
        Figure("  /healthz meanwhile: p99", said["healthzP99Ms"], "ms", 50.0),
    ]


@dataclass
class Whole:
    """What all parts have found."""

    figures: list[Figure] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, said: dict[str, Any]) -> None:
        """Take over the figures of one part."""
        if "figures" not in said:
            found = log_ins(said)
        else:
            known = {one.name for one in fields(Figure)}
            found = [Figure(**{key: value for key, value in one.items() if key in known}) for one in said["figures"]]
        title = said.get("title", name)
        self.figures += [Figure(f"[{name}] {title}", 0, ""), *found] if found else []
        for what, why in said.get("notMeasured", {}).items():
            self.not_measured[f"{name}: {what}"] = why


def run_part(part: Part, timeout_s: float) -> dict[str, Any] | str:
    """Run one part; return what it printed as JSON, or why there is nothing."""
    command = [*ENDS_WITH_PARENT, sys.executable, "-m", "bench", part.name, "--json", *part.arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it ends what it has started
            try:
                process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"it was stopped after {timeout_s / 60:.0f} minutes"
    last = said.strip().rpartition("\n")[2]
    if process.returncode not in (0, 1) or not last.startswith("{"):
        return f"it ended with {process.returncode}"
    found: dict[str, Any] = json.loads(last)
    return found


def run(parts: tuple[Part, ...], minutes: float) -> Whole:
    """Run parts until the time is over."""
    whole, started = Whole(), time.monotonic()
    for part in parts:
        left = minutes - (time.monotonic() - started) / 60
        if left < part.minutes:
            whole.not_measured[part.name] = f"it takes {part.minutes:g} minutes, and {max(0, left):.0f} are left"
            progress(f"{part.name}: not measured, {whole.not_measured[part.name]}")
            continue
        progress(f"{part.name}: {left:.0f} minutes are left")
        began = time.monotonic()
        said = run_part(part, left * 60)
        whole.minutes[part.name] = round((time.monotonic() - began) / 60, 1)
        if isinstance(said, str):
            whole.not_measured[part.name] = said
        else:
            whole.add(part.name, said)
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 5 minutes: a first look")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(arguments)
    parts, minutes = (QUICK, QUICK_MINUTES) if asked.quick else (WHOLE, WHOLE_MINUTES)
    whole = run(parts, minutes)
    kept = Kept(not_measured=whole.not_measured, about={"minutes": whole.minutes})
    code = finish("whole", "Everything measured", whole.figures, kept, as_json=asked.json, keep=not asked.quick)
    print("\nwhat falls short, why, and what was tried: docs/performance.md", file=sys.stderr)
    failed = any(part.name in whole.not_measured and part.name in whole.minutes for part in parts)
    return 2 if failed else code


if __name__ == "__main__":
    sys.exit(main())
