"""What a measurement leaves behind in bench/results: a JSON file with the versions of everything, a table, a plot."""

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.plot import bars
from bench.report import Figure, markdown

FOLDER = Path(__file__).parent / "results"
ROOT = FOLDER.parent.parent
PACKAGES = ("aiohttp", "python-socketio", "aio-pika", "motor", "pymongo", "msgspec", "uvloop", "pyjwt", "bcrypt")


def versions() -> dict[str, str]:
    """Return what was measured on what."""
    found = {name: metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "kernel": platform.release(), "cpu": _cpu()}
    found["cores"] = str(len(os.sched_getaffinity(0)))
    found["commit"] = _says("git", "rev-parse", "--short", "HEAD")
    found["node"] = _says("node", "--version")
    found["rabbitmq"] = _says("dpkg-query", "--showformat=${Version}", "--show", "rabbitmq-server")
    packages = json.loads((Path(__file__).parent / "peers" / "node" / "package.json").read_text())["dependencies"]
    return found | {f"npm {name}": version for name, version in packages.items()}


def keep(name: str, figures: list[Figure], table: dict[str, dict[str, float]]) -> None:
    """Write `results/NAME.json`, `.md` and `.svg`."""
    FOLDER.mkdir(exist_ok=True)
    found = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
        "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in figures],
        "table": table,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (FOLDER / f"{name}.md").write_text(markdown(figures))
    (FOLDER / f"{name}.svg").write_text(bars(table))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _says(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def load(name: str) -> dict[str, Any]:
    """Return what the last measurement of that name left behind; nothing where there was none."""
    file = FOLDER / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found
