import random

from hypothesis import given
from hypothesis import strategies as st

from simulator.reading import SequenceCounter


def seqs(times: list[int]) -> list[int]:
    sequence = SequenceCounter()
    return [sequence.next(ts_ms, row) for row, ts_ms in enumerate(times)]


def test_readings_of_one_millisecond_count_up_from_zero() -> None:
    assert seqs([5, 5, 5, 6, 7, 7]) == [0, 1, 2, 0, 0, 1]


def test_rows_that_begin_with_the_newest_count_like_those_that_end_with_it() -> None:
    """A file that has got newer rows on top since the last time keeps the identities of the others."""
    assert seqs([9, 8, 8, 7, 7, 7, 3]) == [0, 0, 1, 0, 1, 2, 0]
    assert seqs([9, 8, 7, 8, 7]) == [0, 0, 0, 3, 3]


def test_an_hour_that_repeats_keeps_its_readings_apart() -> None:
    assert seqs([1, 2, 3, 2, 3, 4]) == [0, 0, 0, 3, 3, 3]


@given(st.lists(st.integers(0, 8), max_size=60))
def test_no_two_readings_share_an_identity_and_a_second_pass_gives_the_same(times: list[int]) -> None:
    identities = list(zip(times, seqs(times), strict=True))
    assert len(set(identities)) == len(identities)
    assert identities == list(zip(times, seqs(times), strict=True))


def test_sequence_numbers_stay_below_the_number_of_readings() -> None:
    drawn = random.Random(1)
    times = [drawn.randrange(50) for _ in range(1000)]
    assert max(seqs(times)) < 1000
