"""Times of many readings at once are the same texts as one by one."""

import random

import numpy as np
import pytest

from reader.history.time_texts import TIME_BYTES, time_texts
from runtime.times import rfc3339

DAY_MS = 86_400_000
YEAR_1, YEAR_9999_ENDS = -62_135_596_800_000, 253_402_300_799_999


def one_by_one(times: list[int]) -> list[str]:
    return [rfc3339(each) for each in times]


def at_once(times: list[int], step: int = 1) -> list[str]:
    rows = time_texts(np.array(times, np.int64)[::step])
    assert rows.shape[1] == TIME_BYTES
    return [row.tobytes().decode() for row in rows]


@pytest.mark.parametrize(
    "times",
    [
        [],
        [0],
        [-1, 0, 1],
        [YEAR_1 - DAY_MS, YEAR_1 - 1, YEAR_1],
        [YEAR_9999_ENDS, YEAR_9999_ENDS + 1, YEAR_9999_ENDS + DAY_MS],
        [-(2**63), 2**63 - 1],
        [0, DAY_MS, 0, DAY_MS - 1],
    ],
)
def test_times_at_the_ends_of_days_and_of_the_calendar(times: list[int]) -> None:
    assert at_once(times) == one_by_one(times)


def test_random_times_in_any_order(rng: random.Random) -> None:
    for _ in range(200):
        span, middle = 10 ** rng.randrange(1, 15), rng.choice((YEAR_1, -DAY_MS, 0, 10**12, YEAR_9999_ENDS))
        times = [middle + rng.randint(-span, span) for _ in range(rng.randrange(40))]
        assert at_once(times) == one_by_one(times)
        assert at_once(sorted(times), -2) == one_by_one(sorted(times)[::-2])
