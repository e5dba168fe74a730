"""Short forms of `make soak`: they prove nothing about hours, but that every reading is accounted for."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.processes import ENDS_WITH_PARENT
from tests.integration.services import ROOT

pytestmark = pytest.mark.timeout(600)


async def soaked(*arguments: str, interrupted_at: str = "") -> dict[str, Any]:
    """Run it, end it by SIGINT once it says something; return the verdict."""
    process = await asyncio.create_subprocess_exec(
        *(*ENDS_WITH_PARENT, sys.executable, "-m", "tests.soak", "--json", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    try:
        async for line in process.stderr:
            print(line.decode(), end="")
            if interrupted_at and interrupted_at in line.decode():
                process.send_signal(signal.SIGINT)
        output = await process.stdout.read()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found: dict[str, Any] = json.loads(output)
    return found


def accounted(verdict: dict[str, Any]) -> int:
    """Return how many readings were acknowledged, all of them stored."""
    counts = verdict["counts"]
    assert (counts["lost"], counts["duplicated"], counts["foreign"]) == (0, 0, 0)
    assert counts["stored"] >= counts["acknowledged"] > 0
    assert not verdict["failures"]
    return int(counts["acknowledged"])


async def test_a_soak_ends_whole_and_a_second_one_goes_on_with_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "soak"
    first = await soaked("--minutes", "0.3", "--devices", "30", "--dir", str(folder))
    assert first["did"]["keys retired"] >= 1
    assert accounted(first) > 50
    second = await soaked("--minutes", "10", "--resume", str(folder), interrupted_at="run 2: 30 devices")
    assert second["counts"]["sent"] >= first["counts"]["sent"]
    assert accounted(second) >= accounted(first)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {sample["run"] for sample in samples} >= {1}
    assert all(sample["processes"]["gateway"]["tasks"] > 0 for sample in samples)
    assert (folder / "plot.svg").stat().st_size > 1000


async def test_an_overload_that_ends_loses_nothing_and_stores_nothing_twice(tmp_path: Path) -> None:
    arguments = ("--overload", "--minutes", "0.15", "--devices", "30", "--dir", str(tmp_path / "overload"))
    verdict = await soaked(*arguments)
    assert accounted(verdict) > 1000
    assert verdict["capacity"] > 0
