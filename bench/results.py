"""Stores results in bench/results: a JSON file with all versions, a table, a plot."""

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.plot import bars
from bench.processes import ROOT
from bench.report import Figure, exit_code, markdown, show, table_markdown

FOLDER = ROOT / "bench" / "results"
PACKAGES = ("aiohttp", "python-socketio", "aio-pika", "motor", "pymongo", "msgspec", "uvloop", "PyJWT", "bcrypt")

Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Details:
    """Results beyond the figures: a table, what could not be measured and why, further details, a plot."""

    table: Table = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    svg: str = ""
    # What the numbers of the table are.
    table_title: str = "µs of processor time a reading, and MiB"


def versions() -> dict[str, str]:
    """Return the versions of packages and machine that the figures depend on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "kernel": platform.release(), "cpu": _cpu()}
    found |= {"cores": str(len(os.sched_getaffinity(0))), "node": _output_of("node", "--version")}
    changed = " with changes" if _output_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    found["commit"] = _output_of("git", "rev-parse", "--short", "HEAD") + changed
    for file in sorted((ROOT / "bench").glob("*/*/package.json")):
        for name, version in json.loads(file.read_text())["dependencies"].items():
            found[f"npm {name}"] = version
    return found


def as_object(title: str, figures: list[Figure], details: Details) -> dict[str, Any]:
    """Return everything as an object for JSON."""
    return {
        "title": title,
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
        "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in figures],
        "table": details.table,
        "notMeasured": details.not_measured,
        "about": details.about,
    }


def finish(name: str, title: str, figures: list[Figure], details: Details, *, as_json: bool, save: bool) -> int:
    """Print the results; with `save`, store them as `results/NAME.json`, `.md` and `.svg`. Return the exit code."""
    found = as_object(title, figures, details)
    if save:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        text = [markdown(figures), table_markdown(details.table)]
        text += [f"not measured: {what}: {why}\n" for what, why in details.not_measured.items()]
        (FOLDER / f"{name}.md").write_text("\n".join(part for part in text if part))
        plotted = details.table and all("total" in row for row in details.table.values())
        if svg := details.svg or (bars(details.table) if plotted else ""):
            (FOLDER / f"{name}.svg").write_text(svg)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return exit_code(figures)
    code = show(title, figures, as_json=False)
    if details.table:
        print(f"\n{details.table_title}\n\n{table_markdown(details.table)}")
    for what, why in details.not_measured.items():
        print(f"  not measured: {what}: {why}")
    return code


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
