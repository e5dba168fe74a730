"""The seed of all random input in the tests: the same in each run, another one in `make fuzz`.

A pytest plugin. The seed is printed at the top of a run and for a failing test; TEST_SEED=N repeats that run. Tests
with random input use the fixture `seed` or are Hypothesis's; all of them have the marker `fuzz`.
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
    """A number below 2**32, derived from this test's name and the run's seed; printed if the test fails."""
    drawn = seed_of(request.node.nodeid)
    print(f"seed {drawn}, of TEST_SEED={SEED}")
    return drawn


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A random generator seeded with `seed`."""
    return random.Random(seed)


def seed_of(name: str, run: int = SEED) -> int:
    """Return the seed of the test with this name, in a run."""
    return zlib.crc32(f"{run}/{name}".encode())


def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis derive its input from each test's name, or in another run from that run's seed."""
    config.addinivalue_line("markers", "fuzz: has random input; `make fuzz` runs these with another seed")
    # How long it takes to generate input, and to run one example, depends on the load of the machine, not on the code.
    shared: dict[str, Any] = {
        "database": None,
        "deadline": None,
        "print_blob": True,
        "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    }
    hypothesis.settings.register_profile("usual", derandomize=True, **shared)
    hypothesis.settings.register_profile("drawn", derandomize=False, **shared)
    hypothesis.settings.load_profile("usual" if SEED == USUAL else "drawn")
    if SEED != USUAL:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    """Print the seed."""
    return f"drawn from TEST_SEED={SEED}"


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with random input."""
    for item in items:
        draws = "seed" in getattr(item, "fixturenames", ()) or hypothesis.is_hypothesis_test(getattr(item, "obj", None))
        if draws:
            item.add_marker("fuzz")
