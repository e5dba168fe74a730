"""One number from which everything is drawn that a test draws: the same in each run, another one in `make fuzz`.

A pytest plugin. The number is told at the top of a run and where a test fails; TEST_SEED=N repeats that run. Tests that
draw ask for the fixture `seed`, or are Hypothesis's; all of them carry the marker `fuzz`.
"""

import os
import random
import zlib
from typing import Any

import hypothesis
import pytest

USUAL = 1
SEED = int(os.environ.get("TEST_SEED", USUAL))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number below 2**32: of this test and this run's seed, printed for who looks for a failure."""
    drawn = seed_of(request.node.nodeid)
    print(f"seed {drawn}, of TEST_SEED={SEED}")
    return drawn


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Chance, from `seed`."""
    return random.Random(seed)


def seed_of(name: str, run: int = SEED) -> int:
    """Return the seed of what bears this name, in a run."""
    return zlib.crc32(f"{run}/{name}".encode())


def pytest_configure(config: pytest.Config) -> None:
    """Have Hypothesis draw from the name of each test, or in another run from that run's number."""
    config.addinivalue_line("markers", "fuzz: draws its input; `make fuzz` runs these with another seed")
    # How long input takes to draw says how busy the machine is, and nothing about the code.
    shared: dict[str, Any] = {
        "database": None,
        "print_blob": True,
        "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    }
    hypothesis.settings.register_profile("usual", derandomize=True, **shared)
    hypothesis.settings.register_profile("drawn", derandomize=False, **shared)
    hypothesis.settings.load_profile("usual" if SEED == USUAL else "drawn")
    if SEED != USUAL:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    """Name the number."""
    return f"drawn from TEST_SEED={SEED}"


@pytest.hookimpl(tryfirst=True)  # before what -m leaves out is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what draws."""
    for item in items:
        draws = "seed" in getattr(item, "fixturenames", ()) or hypothesis.is_hypothesis_test(getattr(item, "obj", None))
        if draws:
            item.add_marker("fuzz")
