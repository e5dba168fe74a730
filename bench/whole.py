"""Everything that says what a reading costs, one after the other, and one table of what is asked and what was found."""

import argparse
import subprocess
import sys
import time

from bench.processes import ROOT
from bench.report import progress

# What answers the question, then what explains the answer.
PARTS = ("pipeline", "floor", "growth")
FURTHER = ("gateway", "drain", "reader", "auth_logins")


def main(arguments: list[str]) -> int:
    """Run the parts; 1 when a figure of one falls short, 2 when one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, add_help=False)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    parts = PARTS if asked.quick else PARTS + FURTHER
    started, codes, tables = time.monotonic(), [], []
    for name in parts:
        progress(f"\n== {name}, after {(time.monotonic() - started) / 60:.1f} minutes")
        command = [sys.executable, "-m", "bench", name, *(["--quick"] if asked.quick else [])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        codes.append(done.returncode)
        tables.append(done.stdout)
    print("".join(tables))
    short = [name for name, code in zip(parts, codes, strict=True) if code == 1]
    broken = [name for name, code in zip(parts, codes, strict=True) if code not in (0, 1)]
    print(
        f"\n{(time.monotonic() - started) / 60:.1f} minutes. " + (f"Falls short: {', '.join(short)}. " if short else "")
    )
    if broken:
        print(f"Not measured: {', '.join(broken)}")
    return 2 if broken else int(bool(short))
