"""A test that nothing else can end is ended."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SWALLOWS = """
import asyncio

async def test_that_swallows():
    async def stubborn():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    stubborn = asyncio.ensure_future(stubborn())
    await asyncio.sleep(3600)

def test_after_it():
    pass
"""


def test_a_test_whose_teardown_hangs_ends_its_process_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "test_swallows.py").write_text(SWALLOWS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\ntimeout = 1\n")
    (tmp_path / "conftest.py").write_text("import tests.hanging\ntests.hanging.GRACE_S = 1.0\n")
    command = [sys.executable, "-m", "pytest", "-n1", "-p", "tests.hanging", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "Timeout (0:00:02)!" in ran.stderr
    assert "crashed while running 'test_swallows.py::test_that_swallows'" in ran.stdout
    assert re.search(r"2 failed, 1 passed", ran.stdout)
