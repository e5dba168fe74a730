"""Sums of doubles in parts, compared with fractions."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.codec.exact_sums import two_doubles, two_doubles_by_part

LARGEST = Fraction(2**1024 - 2**970)

usual = st.integers(-3000, 3000).map(lambda hundredths: hundredths / 100)
finite = st.floats(allow_nan=False, allow_infinity=False)
parts = st.lists(
    st.one_of(
        st.lists(usual, min_size=1, max_size=50),
        st.lists(finite, min_size=1, max_size=20),
        st.lists(st.sampled_from([1e16, -1e16, 1.0, 0.1, -0.0, 1e-30, 5e-324, 1e300, -1e300]), min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=6,
)


def assert_exact(nearest: float, rest: float, numbers: list[float]) -> None:
    exact = sum(map(Fraction, numbers), Fraction())
    if abs(exact) >= LARGEST:
        assert nearest == math.copysign(math.inf, exact)
        return
    assert nearest == float(exact)
    # Up to half of a step of the second double, and the least double.
    assert abs(Fraction(nearest) + Fraction(rest) - exact) <= abs(exact) / 2**105 + Fraction(1, 2**1074)


@given(parts)
@settings(deadline=None)
def test_each_part_has_its_exact_sum(made: list[list[float]]) -> None:
    numbers = [number for part in made for number in part]
    begins = np.cumsum([0, *map(len, made[:-1])])
    nearest, rests = two_doubles_by_part(np.array(numbers), begins)
    for part, *found in zip(made, nearest.tolist(), rests.tolist(), strict=True):
        if max(map(abs, part)) < 1e305:  # sums that overflow on the way are scaled, and lose the last bits
            assert_exact(found[0], found[1], part)


@pytest.mark.fuzz
@pytest.mark.parametrize("decimals", [0, 2, 15])
@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e12, 1e290])
def test_long_parts_have_their_exact_sums(decimals: int, scale: float, seed: int) -> None:
    numbers = np.round(np.random.default_rng(seed).normal(0, 20, 20_000), decimals) * scale
    begins = np.array([0, 1, 5000, 19_999])
    nearest, rests = two_doubles_by_part(numbers, begins)
    for part, *found in zip(np.split(numbers, begins[1:]), nearest.tolist(), rests.tolist(), strict=True):
        assert_exact(found[0], found[1], part.tolist())


@pytest.mark.parametrize(
    ("numbers", "total"),
    [
        ([1.7e308, 1.7e308], math.inf),
        ([-1.7e308, -1.7e308, 1.0], -math.inf),
        ([1.7e308, 1.7e308, -1.7e308], 1.7e308),
        ([math.inf, 1.0], math.inf),
        ([math.inf, -math.inf], math.nan),
        ([1.7e308, 1.7e308, math.inf, -math.inf], math.nan),
        ([1.7e308, 1.7e308, -math.inf], -math.inf),
    ],
)
def test_a_sum_beyond_the_largest_double_is_infinite(numbers: list[float], total: Any) -> None:
    assert two_doubles(numbers)[0] == pytest.approx(total, rel=1e-15, nan_ok=True)
    if math.isfinite(sum(map(abs, numbers)) / 4):
        assert two_doubles_by_part(np.array(numbers), np.array([0]))[0][0] == pytest.approx(total, rel=1e-15)
