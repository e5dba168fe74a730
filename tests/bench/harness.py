"""Runs benchmarks as their users do, and finds processes that they left running."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MARK = secrets.token_hex(8)


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench`; all its processes inherit a mark in their environment."""
    command = [sys.executable, "-m", "bench", *arguments]
    environment = os.environ | {"TIDEGATE_BENCH_OF": MARK}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)


def leftover_processes() -> list[str]:
    """Return the command lines of running processes that a bench of this test run has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (folder / "environ").read_bytes() and folder.name != str(os.getpid()):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
