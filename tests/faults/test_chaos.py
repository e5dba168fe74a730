"""Two minutes of the proof; `make chaos` runs it for as long as one likes."""

import asyncio
import re
import sys

import pytest

from tests.integration.services import ROOT


@pytest.mark.timeout(400)
async def test_two_minutes_of_faults_lose_nothing_and_store_nothing_twice() -> None:
    command = (sys.executable, "-m", "tests.faults", "--minutes", "2", "--seed", "7")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    print(told.decode())
    assert process.returncode == 0
    summary = r"(\d+) scenarios, .* (\d+) acknowledged, (\d+) stored, .* 0 lost, 0 duplicated, 0 foreign"
    found = re.search(summary, told.decode())
    assert found
    scenarios, acknowledged, stored = map(int, found.groups())
    assert scenarios >= 5
    assert stored >= acknowledged > 1000
