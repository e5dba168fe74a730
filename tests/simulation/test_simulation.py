"""The simulation in short: some seeds find nothing, each planted bug is found, and a seed has one history."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.plants import PLANTS

ROOT = Path(__file__).parents[2]
# `make simulate` runs 10,000.
SEEDS = 200
FOUND_WITHIN = 1000


def simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.fuzz
def test_seeds_find_nothing(seed: int) -> None:
    run = simulate("--seeds", str(SEEDS), "--seed", str(seed), "--processes", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{SEEDS} seeds from {seed} on, nothing is wrong" in run.stdout


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(plant: str) -> None:
    found = simulate("--seeds", str(FOUND_WITHIN), "--plant", plant, "--processes", "2")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "WRONG: " in found.stdout
    assert "again: python -m tests.simulation --seeds 1 --seed " in found.stdout


def test_a_seed_has_the_same_history_whenever_and_wherever_it_runs() -> None:
    first, second = (simulate("--seeds", "1", "--seed", "18", hash_seed=hash_seed) for hash_seed in ("1", "2"))
    assert re.search(r"digest of this history: \w{64}", first.stdout), first.stderr
    assert first.stdout == second.stdout


def test_a_planted_bug_that_is_not_found_is_a_failure() -> None:
    run = simulate("--seeds", "1", "--seed", "5", "--plant", "merge-prefers-later")
    assert run.returncode == 1, run.stdout


@pytest.mark.parametrize("arguments", ["--seeds 0", "--seeds -1", "--processes 0", "--seed -1", "--plant nothing"])
def test_what_cannot_be_meant_is_refused(arguments: str) -> None:
    """Otherwise a run of no seed would say that nothing is wrong."""
    run = simulate(*arguments.split())
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stdout == ""


def test_a_single_seed_prints_its_history_also_if_it_is_the_default_one() -> None:
    assert simulate("--seeds", "1").stdout == simulate("--seeds", "1", "--seed", "1").stdout
    assert "digest of this history: " in simulate("--seeds", "1").stdout


def test_a_process_that_dies_ends_the_run_and_is_named(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tests.simulation import __main__, seeds;"
        f" seeds.IN_MEMORY = Path({str(tmp_path)!r}); seeds.run_seed = lambda *_, **__: os._exit(3);"
        " sys.exit(__main__.main())"
    )
    command = [sys.executable, "-c", program, "--seeds", "30", "--processes", "2"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert "the process of seeds 1 to 20 has ended without their outcomes (exit code 3)" in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_ends_leaves_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches its workers, too."""
    program = (
        "import sys; from pathlib import Path; from tests.simulation import __main__, seeds;"
        f" seeds.IN_MEMORY = Path({str(tmp_path)!r}); sys.exit(__main__.main())"
    )
    command = [sys.executable, "-c", program, "--seeds", "5000", "--processes", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*/*/run/queue.db"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.terminate()
    assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
