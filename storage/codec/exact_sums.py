"""Exact sums of doubles, as two doubles: the one nearest to the sum, and the one nearest to what it misses.

Many parts of an array are summed at once. Adding a power of two to each number and taking it away again leaves its high
bits, and sums of high bits alone lose nothing, in any order; what is left has 53 bits less, and is summed the same way
(S. M. Rump, T. Ogita, S. Oishi: Accurate Floating-Point Summation, Part I, SIAM J. Sci. Comput. 31, 2008, section 3).
"""

import math
from itertools import pairwise

import numpy as np

from storage.codec.packed import Floats, Integers

# Numbers of one scale take two rounds, or three where some are near zero. Others are added up one by one.
_MAX_ROUNDS = 3
# Far from overflow, and from doubles with fewer bits.
_SCALES = range(-600, 900)


def two_doubles(numbers: list[float]) -> tuple[float, float]:
    """Return the exact sum of finite or infinite numbers; NaN for infinities of both signs."""
    try:
        return _nearest_and_rest(numbers)
    except ValueError:  # from `fsum`, which may as well overflow before it comes to the infinities
        return math.nan, 0.0


def _nearest_and_rest(numbers: list[float]) -> tuple[float, float]:
    try:
        nearest = math.fsum(numbers)
        return nearest, math.fsum((-nearest, *numbers)) if math.isfinite(nearest) else 0.0
    except OverflowError:  # on the way, or in the end: then the sum is infinite
        return math.fsum(number / 2**64 for number in numbers) * 2.0**64, 0.0


def two_doubles_by_part(numbers: Floats, begins: Integers) -> tuple[Floats, Floats]:
    """Return the exact sum of each part of finite numbers as two arrays: the nearest double, and what it misses.

    Parts begin at these indexes, the first one at 0, and none is empty.
    """
    bits = (int(np.diff(begins, append=len(numbers)).max()) + 2).bit_length()
    scale = math.frexp(max(float(numbers.max()), -float(numbers.min())))[1]
    if scale + bits not in _SCALES:
        return _one_by_one(numbers, begins)
    large = 2.0 ** (scale + bits)
    sums: list[Floats] = []
    for _ in range(_MAX_ROUNDS):
        high = numbers + large
        high -= large
        sums.append(np.add.reduceat(high, begins))
        numbers = np.subtract(numbers, high, out=high)
        if not numbers.any():
            return _combined(sums)
        large *= 2.0 ** (bits - 53)
    left = _one_by_one(numbers, begins)
    return _one_by_one(
        np.stack((*sums, *left), axis=1).ravel(), np.arange(0, len(begins) * (len(sums) + 2), len(sums) + 2)
    )


def _combined(sums: list[Floats]) -> tuple[Floats, Floats]:
    """Return the sum of up to three arrays, each much smaller than the one before it."""
    if len(sums) == 1:
        return sums[0], np.zeros_like(sums[0])
    low, lost = (sums[1], np.zeros_like(sums[1])) if len(sums) == 2 else _two_sum(sums[1], sums[2])
    nearest, rest = _two_sum(sums[0], low)
    return _two_sum(nearest, rest + lost)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded sum and its error, which is exact (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _one_by_one(numbers: Floats, begins: Integers) -> tuple[Floats, Floats]:
    doubles, bounds = numbers.tolist(), [*begins.tolist(), len(numbers)]
    found = [two_doubles(doubles[begin:end]) for begin, end in pairwise(bounds)]
    return np.array([nearest for nearest, _ in found]), np.array([rest for _, rest in found])
