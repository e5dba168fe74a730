"""Two minutes of faults, a onebox killed five times, and clusters; `make chaos` runs for any length of time."""

import asyncio
import os
import re
import sys

import pytest

from tests.faults.__main__ import NOT_HERE
from tests.faults.cluster.faults import SHORT
from tests.integration.services import ROOT

CLUSTER_SEED = 7
# Half of the default: other tests run beside these.
FLEET = ("--devices", "4", "--library-devices", "1")


async def proven(seed: int, *arguments: str, alarms: bool = False) -> tuple[int, int, int]:
    """Run with a seed; return the numbers of scenarios, of acknowledged and of stored readings.

    With `alarms`, some must have changed, and each change must have been notified as it has to.
    """
    command = (sys.executable, "-m", "tests.faults", *arguments, "--seed", str(seed % 10_000))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:  # so that it ends what it has started
            process.terminate()
            await process.wait()
    print(output.decode())
    if process.returncode == NOT_HERE and not os.environ.get("CI"):
        pytest.skip(output.decode().splitlines()[-1])
    assert process.returncode == 0
    summary = r"(\d+) scenarios, seed .* (\d+) acknowledged, (\d+) stored, .* 0 lost, 0 duplicated, 0 foreign"
    found = re.search(summary, output.decode())
    assert found
    scenarios, acknowledged, stored = map(int, found.groups())
    if alarms:
        summary = r"alarms: (\d+) changes, (\d+) notified, 0 missing, 0 twice, 0 under two ids, 0 false"
        found = re.search(summary, output.decode())
        assert found
        assert int(found[1]) == int(found[2]) > 50
    return scenarios, acknowledged, stored


@pytest.mark.timeout(900)
async def test_two_minutes_of_faults_lose_nothing_and_store_nothing_twice(seed: int) -> None:
    scenarios, acknowledged, stored = await proven(seed, "--minutes", "2", *FLEET, alarms=True)
    assert scenarios >= 5
    assert stored >= acknowledged > 1000


@pytest.mark.timeout(600)
async def test_a_onebox_killed_five_times_loses_nothing_and_stores_nothing_twice(seed: int) -> None:
    scenarios, acknowledged, stored = await proven(seed, "--onebox", "5")
    assert scenarios == 5
    assert stored >= acknowledged > 1000


@pytest.mark.timeout(900)
async def test_clusters_that_fail_and_part_lose_nothing_and_store_nothing_twice() -> None:
    scenarios, acknowledged, stored = await proven(CLUSTER_SEED, "--cluster", "--short", *FLEET)
    assert scenarios == len(SHORT)
    assert stored >= acknowledged > 1000
