"""What failed beside others runs again, alone, and only what passes then is forgiven, by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rerun import MOST, may_run_again

ROOT = Path(__file__).parent.parent
# Fails the first time: what it leaves behind tells it that it runs again.
ONCE = """
from pathlib import Path

def test_once():
    left = Path(__file__).with_suffix(".left")
    seen = left.exists()
    left.touch()
    assert seen
"""
ALWAYS = "def test_always():\n    assert False\n"
PASSED_ALONE = "FAILED BESIDE OTHERS, PASSED ALONE"


def run(folder: Path, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of some files."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    plugins = ("-p", "tests.rerun", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n2", *plugins, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p tests.rerun"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_passes_alone_does_not_fail_the_run_and_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", once=ONCE)
    assert ran.returncode == 0, ran.stdout
    assert f"{PASSED_ALONE} test_once.py::test_once" in ran.stdout
    assert "1 failed" in ran.stdout, "its first failure stays in the output"


def test_what_fails_again_fails_the_run(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", once=ONCE, always=ALWAYS)
    assert ran.returncode == 1
    assert f"{PASSED_ALONE} test_once.py::test_once" in ran.stdout
    assert f"{PASSED_ALONE} test_always.py" not in ran.stdout


def test_without_the_option_nothing_runs_again(tmp_path: Path) -> None:
    ran = run(tmp_path, once=ONCE)
    assert ran.returncode == 1
    assert PASSED_ALONE not in ran.stdout


def test_when_many_fail_nothing_runs_again(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", **{f"once_{number}": ONCE for number in range(MOST + 1)})
    assert ran.returncode == 1
    assert "alone" not in ran.stdout


def test_a_file_that_cannot_be_read_fails_the_run(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", once=ONCE, broken="import nothing_of_that_name")
    assert ran.returncode != 0


@pytest.mark.parametrize("folder", ["faults", "power", "simulation", "soak"])
def test_what_accounts_for_readings_never_runs_again(folder: str) -> None:
    assert (ROOT / "tests" / folder).is_dir()
    assert not may_run_again(f"tests/{folder}/test_x.py::test_x")
    assert may_run_again("tests/reader/test_x.py::test_x")
