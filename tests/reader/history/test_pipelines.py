"""The expression for a bucket's start, evaluated as MongoDB does."""

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import pytest

from reader.history.bucket_boundaries import DAY_MS, BucketWidth, boundaries
from reader.history.pipelines import bucket_start
from reader.history.time_zones import time_zone

LAST = 2**63 - 1
WIDTHS = [
    *(BucketWidth(1, "d"), BucketWidth(1, "w"), BucketWidth(1, "M"), BucketWidth(6, "h"), BucketWidth(250, "ms")),
    *(BucketWidth(9 * 10**9, "d"), BucketWidth(10**9 - 1, "w"), BucketWidth(10**9 - 1, "M")),
]
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "$lt": lambda left, right: left < right,
    "$add": lambda left, right: left + right,
    "$subtract": lambda left, right: left - right,
    # With the sign of the dividend.
    "$mod": lambda left, right: int(math.copysign(1, left)) * (abs(left) % right),
}


def evaluate(expression: Any, ts: int) -> int:
    """Evaluate an expression in 64 bits."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        assert expression in {"$_id.ts", "$$ts"}
        return ts
    ((name, given),) = expression.items()
    if name == "$literal":
        return int(given)
    if name == "$cond":
        return evaluate(given[1 if evaluate(given[0], ts) else 2], ts)
    if name in {"$toLong", "$let"}:
        return evaluate(given if name == "$toLong" else given["in"], ts)
    found = OPERATIONS[name](*(evaluate(one, ts) for one in given))
    assert -(2**63) <= found <= LAST
    return found


def depth(expression: Any) -> int:
    if not isinstance(expression, dict | list):
        return 0
    inner = expression.values() if isinstance(expression, dict) else expression
    return 1 + max(map(depth, inner), default=0)


@pytest.mark.fuzz
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_each_reading_is_in_the_bucket_that_its_boundaries_say(
    zone: str, width: BucketWidth, rng: random.Random
) -> None:
    chosen = None if zone == "UTC" else time_zone(zone)
    for start in (-(10**18) + 1, -(10**13), -5, 1_300_000_000_123, LAST - 10**12):
        end = min(start + rng.randrange(1, 9000) * width.ms, LAST)
        found = boundaries(width, chosen, start, end, 10_000)
        expression = bucket_start(found)
        for ts in (start, end - 1, *(rng.randrange(start, end) for _ in range(50))):
            assert evaluate(expression, ts) == found[bisect_right(found, ts) - 1], (start, ts)


def test_the_expression_grows_with_the_changes_of_a_clock_and_stays_flat() -> None:
    zone = time_zone("Europe/Berlin")
    days = bucket_start(boundaries(BucketWidth(1, "d"), zone, 0, 9000 * DAY_MS, 10_000))
    assert str(days).count("$subtract") < 60  # a run between two changes each, not one of each day
    months = bucket_start(boundaries(BucketWidth(1, "M"), zone, 0, 10**13, 10_000))
    assert depth(months) < 50  # MongoDB allows 200
