"""What failed runs again, alone, and only what passes then is forgiven, by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import rerun
from tests.rerun import MOST, is_passed

ROOT = Path(__file__).parent.parent
# Fails the first time: what it leaves behind tells it that it runs again.
FIRST_TIME = """
import os
from pathlib import Path
import pytest

@pytest.fixture
def is_first():
    left = Path(__file__).with_suffix(".left")
    seen = left.exists()
    left.touch()
    return not seen

"""
FAILS_ONCE = FIRST_TIME + "def test_once(is_first):\n    assert not is_first\n"
FAILS_IN_TEARDOWN = FIRST_TIME + (
    "@pytest.fixture\ndef torn(is_first):\n    yield\n    assert not is_first\n\ndef test_once(torn):\n    pass\n"
)
SKIPS_AGAIN = FIRST_TIME + "def test_once(is_first):\n    if not is_first:\n        pytest.skip()\n    assert False\n"
ENDS_ITS_PROCESS = FIRST_TIME + "def test_once(is_first):\n    if is_first:\n        os._exit(3)\n"
ALWAYS = "def test_always():\n    assert False\n"
ENDS_THE_RUN = "import pytest\n\ndef test_end():\n    pytest.exit('the server has ended', returncode=1)\n"
PASSED_ALONE = "FAILED, PASSED ALONE"


def run(folder: Path, *arguments: str, workers: int = 2, **files: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of some files."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", f"-n{workers}", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p tests.rerun -p no:cacheprovider"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("test", [FAILS_ONCE, FAILS_IN_TEARDOWN])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_passes_alone_does_not_fail_the_run_and_is_named(tmp_path: Path, test: str, workers: int) -> None:
    ran = run(tmp_path, "--rerun", workers=workers, test_once=test)
    assert ran.returncode == 0, ran.stdout
    assert f"{PASSED_ALONE} test_once.py::test_once" in ran.stdout
    assert "AssertionError" in ran.stdout or "assert not" in ran.stdout, "its first failure stays in the output"


def test_what_fails_again_fails_the_run(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", test_once=FAILS_ONCE, test_always=ALWAYS)
    assert ran.returncode == 1
    assert f"{PASSED_ALONE} test_once.py::test_once" in ran.stdout
    assert f"{PASSED_ALONE} test_always.py" not in ran.stdout


@pytest.mark.parametrize("test", [SKIPS_AGAIN, ENDS_ITS_PROCESS])
def test_what_is_skipped_alone_or_has_ended_its_process_fails_the_run(tmp_path: Path, test: str) -> None:
    ran = run(tmp_path, "--rerun", test_once=test)
    assert ran.returncode == 1
    assert PASSED_ALONE not in ran.stdout


def test_without_the_option_nothing_runs_again(tmp_path: Path) -> None:
    ran = run(tmp_path, test_once=FAILS_ONCE)
    assert ran.returncode == 1
    assert PASSED_ALONE not in ran.stdout


def test_when_many_fail_nothing_runs_again(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", workers=2, **{f"test_once_{number}": FAILS_ONCE for number in range(MOST + 1)})
    assert ran.returncode == 1
    assert "alone" not in ran.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_cut_short_fails(tmp_path: Path, workers: int) -> None:
    ran = run(tmp_path, "--rerun", "-x", workers=workers, test_once=FAILS_ONCE, test_then=ALWAYS)
    assert ran.returncode != 0
    assert PASSED_ALONE not in ran.stdout


def test_a_run_that_ended_itself_fails(tmp_path: Path) -> None:
    assert run(tmp_path, "--rerun", workers=0, test_end=ENDS_THE_RUN).returncode == 1


def test_a_file_that_cannot_be_read_fails_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, "--rerun", test_once=FAILS_ONCE, test_broken="import nothing_of_that_name").returncode != 0


def test_what_accounts_for_readings_never_runs_again(tmp_path: Path) -> None:
    ran = run(tmp_path, "--rerun", tests__soak__test_once=FAILS_ONCE)
    assert ran.returncode == 1
    assert PASSED_ALONE not in ran.stdout


@pytest.mark.parametrize("path", rerun.ONCE)
def test_what_accounts_for_readings_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_only_one_test_that_passed_has_passed() -> None:
    assert is_passed(".   [100%]\nRabbitMQ 3.10.8 ran in these tests\n1 passed in 0.52s\n")
    assert is_passed("1 passed, 2 warnings in 61.00s (0:01:01)\n")
    for line in ("1 skipped in 0.1s", "1 xfailed in 0.1s", "1 passed, 1 error in 0.1s", "no tests ran in 0.1s", ""):
        assert not is_passed(f"{line}\n")
