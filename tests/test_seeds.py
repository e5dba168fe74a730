"""All random input of a run comes from one seed, which the run prints."""

import random

import hypothesis
import pytest
from hypothesis import core

from tests import seeds


def test_a_test_draws_the_same_in_each_run_and_another_test_something_else(
    request: pytest.FixtureRequest, seed: int, rng: random.Random
) -> None:
    name = request.node.nodeid
    assert seed == seeds.seed_of(name) != seeds.seed_of(name + "_as_well")
    assert seeds.seed_of(name, 1) != seeds.seed_of(name, 2)
    assert rng.random() == random.Random(seed).random()


def test_hypothesis_draws_the_same_in_each_run_but_for_another_number() -> None:
    usual = seeds.SEED == seeds.USUAL
    assert hypothesis.settings().derandomize is usual
    assert hypothesis.settings().database is None  # one run's findings are not part of the next
    assert usual or core.global_force_seed == seeds.SEED


def test_the_run_tells_its_number() -> None:
    assert str(seeds.SEED) in seeds.pytest_report_header()


def test_what_draws_is_what_make_fuzz_runs(request: pytest.FixtureRequest) -> None:
    drawing = {item.name for item in request.session.items if item.get_closest_marker("fuzz")}
    mine = {item.name for item in request.session.items if item.path == request.path} & drawing
    assert mine == {"test_a_test_draws_the_same_in_each_run_and_another_test_something_else"}
