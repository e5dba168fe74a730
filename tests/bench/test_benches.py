"""The benches run: one moment of each, and what they print is what they promise."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import Figure

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "bench" / "peers" / "node"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_the_benches_are_listed_with_what_they_measure() -> None:
    listed = bench()
    assert listed.returncode == 0
    assert "gateway" in listed.stdout
    assert "load" not in [line.split()[0] for line in listed.stdout.splitlines()[1:]]


def test_a_bench_that_is_not_there_is_a_wrong_command() -> None:
    assert bench("nothing").returncode == 2


def test_a_figure_holds_up_to_its_limit() -> None:
    assert [Figure("x", value, "x", 2.0).verdict for value in (1.0, 2.0, 2.1)] == ["holds", "holds", "FALLS SHORT"]
    assert Figure("x", 1.0, "x").verdict == ""


@pytest.mark.skipif(
    not (NODE / "node_modules").exists() and not os.environ.get("CI"), reason="bench/peers/node is not installed yet"
)
def test_the_gateways_bench_measures_every_part_beside_its_peers_and_leaves_nothing_behind() -> None:
    assert shutil.which("node")
    before = running()
    done = bench("gateway", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    asked = [figure for figure in report["figures"] if figure["limit"] is not None]
    assert len(asked) == 9
    assert all(figure["value"] > 0 and figure["verdict"] in ("holds", "FALLS SHORT") for figure in asked)
    assert not running() - before


def running() -> set[str]:
    """The processes of benches: their command lines with their ids."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "bench.load" in command or "bench/peers/node" in command or "bench.peers" in command:
            found.add(f"{file.parent.name} {command}")
    return found
