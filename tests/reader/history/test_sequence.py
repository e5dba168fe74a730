"""Gaps in `seq`, against an oracle that looks at one reading after the other."""

import random
from itertools import pairwise

import numpy as np
import pytest

from reader.history.sequence import MISORDERED, Completeness, Gap, SequenceGaps

Rows = list[tuple[int, int]]


def found_in(rows: Rows, *, parts: list[int] | None = None, limit: int = 10_000) -> tuple[Completeness, list[Gap]]:
    gaps = SequenceGaps(limit)
    bounds = [0, *sorted(parts or []), len(rows)]
    for begin, end in pairwise(bounds):
        ts, seq = (np.array([row[at] for row in rows[begin:end]], np.int64) for at in (0, 1))
        gaps.add(ts, seq)
    return gaps.finish(), gaps.gaps()


def oracle(rows: Rows) -> tuple[int, int, list[Gap]]:
    """Return received, missing and gaps of readings of which none is late: a fall starts a new count."""
    gaps = []
    for (ts, seq), (next_ts, following) in pairwise(rows):
        if following > seq + 1:
            gaps.append(Gap(seq + 1, following - 1, ts, next_ts))
    return len(rows), sum(gap.to_seq - gap.from_seq + 1 for gap in gaps), gaps


def test_one_percent_dropped_on_purpose_is_found_to_the_reading(rng: random.Random) -> None:
    rows = [(1000 * number, number) for number in range(20_000) if rng.random() > 0.01]
    received, missing, gaps = oracle(rows)
    cuts = rng.sample(range(len(rows)), 30)
    for parts in (None, cuts):
        complete, found = found_in(rows, parts=parts)
        assert (complete.received, complete.expected) == (received, received + missing)
        assert complete.share == received / (received + missing)
        assert found == gaps


def test_counts_that_begin_again_are_not_gaps(rng: random.Random) -> None:
    rows: Rows = []
    ts = 0
    for _ in range(20):
        start = rng.choice([0, 0, rng.randint(0, 10**6)])
        for number in range(rng.randint(200, 500)):
            ts += rng.randint(0, 2)
            if rng.random() > 0.02:
                rows.append((ts, start + number))
        ts += 1
    rows = sorted(set(rows))
    if any(-MISORDERED <= after[1] - before[1] < 0 for before, after in pairwise(rows)):
        pytest.skip("a count begins right below the one before, which is late by definition")
    received, missing, gaps = oracle(rows)
    complete, found = found_in(rows, parts=rng.sample(range(len(rows)), 50))
    assert (complete.received, complete.expected, found) == (received, received + missing, gaps)


def test_a_reading_that_is_late_by_its_time_is_no_gap_and_no_new_count() -> None:
    order = [0, 1, 2, 4, 5, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, *range(23, 60)]
    rows = [(at * 10, seq) for at, seq in enumerate(order)]
    complete, gaps = found_in(rows)
    assert [(gap.from_seq, gap.to_seq) for gap in gaps] == [(21, 21)]
    assert complete.expected == 60


def test_counts_out_of_order_are_found_to_the_reading(rng: random.Random) -> None:
    """Each count has more than MISORDERED numbers: one that begins again inside of these cannot be told from late."""
    for jitter in (0, 3, 40):
        rows: Rows = []
        expected: list[Gap] = []
        ts = 0
        for start in (rng.randint(0, 10**6), 0, 0, 0):
            length = rng.randint(200, 1500)
            kept = [number for number in range(length) if rng.random() > 0.01 or number == 0]
            moved = {number: ts + 10 * number + rng.randint(0, 10 * jitter) * (number > 0) for number in kept}
            ts += 10 * (length + jitter + 500)
            rows += [(at, start + number) for number, at in moved.items()]
            for number, following in pairwise(kept):
                if following > number + 1:
                    around = moved[number], moved[following]
                    expected.append(Gap(start + number + 1, start + following - 1, *around))
        rows.sort()
        complete, found = found_in(rows, parts=rng.sample(range(len(rows)), 40))
        assert sorted(found) == sorted(expected)
        missing = sum(gap.to_seq - gap.from_seq + 1 for gap in expected)
        assert complete == Completeness(len(rows), len(rows) + missing)


def test_numbers_of_any_kind_have_the_same_gaps_in_any_parts(rng: random.Random) -> None:
    """Parts differ with the place: in blocks there are other ones than in `readings`."""
    tried = [[151, 83, 203, 108, 77], [77, 44, 93, 74, 82, 82], [159, 94, 239, 185, 144, 34, 239]]
    for _ in range(300):
        highest, steps = rng.choice([3, 110, 300, 2**52]), rng.random() < 0.5
        numbers = [rng.randrange(highest)]
        for _ in range(rng.choice([8, 90])):
            moved = numbers[-1] + rng.choice([1, 1, 1, 2, 50, -1, -2, -50, -150])
            numbers.append(min(max(moved, 0), 2**52 - 1) if steps else rng.randrange(highest))
        tried.append(numbers)
    for numbers in tried:
        rows = list(enumerate(numbers))
        whole = found_in(rows)
        assert found_in(rows, parts=list(range(1, len(rows)))) == whole, numbers
        assert found_in(rows, parts=rng.sample(range(len(rows)), 4)) == whole, numbers


def test_what_cannot_be_known_is_none() -> None:
    assert found_in([]) == (Completeness(0, None), [])
    assert found_in([(1, 1)])[0] == Completeness(1, None)
    by_tens = [(number, number * 10) for number in range(100)]
    assert found_in(by_tens)[0] == Completeness(100, None)
    all_zero = [(number, 0) for number in range(100)]
    assert found_in(all_zero) == (Completeness(100, None), [])
    nine_of_ten = [(number, number + number // 10) for number in range(101)]
    assert found_in(nine_of_ten)[0].expected == 111
    fewer = [(number, number + number // 9) for number in range(101)]
    assert found_in(fewer)[0].expected is None


def test_readings_without_ts_are_not_counted() -> None:
    rows = [(number, number) for number in range(50)]
    given = [(number, 2**52 + number * 977) for number in range(0, 50, 7)]
    assert found_in(sorted(rows + given)) == (Completeness(50, 50), [])


def test_readings_of_one_millisecond_follow_each_other_by_their_number() -> None:
    rows = [(number // 10, number) for number in range(100) if number not in (5, 31, 32)]
    _, gaps = found_in(rows)
    assert gaps == [Gap(5, 5, 0, 0), Gap(31, 32, 3, 3)]


def test_the_first_gaps_behind_a_position_are_kept() -> None:
    rows = [(number, number) for number in range(5000) if number % 7 or not number]
    everything = found_in(rows)[1]
    pages: list[Gap] = []
    past = None
    while True:
        gaps = SequenceGaps(100, past)
        for begin in range(0, len(rows), 700):
            part = rows[begin : begin + 700]
            gaps.add(np.array([ts for ts, _ in part]), np.array([seq for _, seq in part]))
        assert gaps.finish() == found_in(rows)[0]
        page = gaps.gaps()
        pages += page[:100]
        if len(page) <= 100:
            break
        past = page[99].position
    assert pages == everything
