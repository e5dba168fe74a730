"""Token buckets: a burst, a constant refill, exact waits, bounded memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.token_bucket import KeyedTokenBuckets, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_new_bucket_is_full() -> None:
    bucket = TokenBucket(5, 2.0)
    assert (bucket.available(0.0), bucket.wait_s(5, 0.0), bucket.is_full(0.0)) == (5, 0.0, True)


def test_a_bucket_refills_at_its_rate() -> None:
    bucket = TokenBucket(5, 2.0)
    bucket.take(5, 10.0)
    assert [bucket.available(10.0 + seconds) for seconds in (0, 0.4, 0.5, 1.0, 2.5, 100)] == [0, 0, 1, 2, 5, 5]
    assert [bucket.wait_s(tokens, 10.0) for tokens in (1, 2, 5)] == [0.5, 1.0, 2.5]
    assert (bucket.is_full(12.4), bucket.is_full(12.5)) == (False, True)


def test_more_than_a_bucket_holds_waits_for_a_full_one_and_is_owed_afterwards() -> None:
    bucket = TokenBucket(5, 2.0)
    assert bucket.wait_s(50, 0.0) == 0.0
    bucket.take(50, 0.0)
    assert bucket.available(0.0) <= 0
    assert bucket.wait_s(1, 0.0) == 23.0
    assert bucket.wait_s(50, 0.0) == 25.0


def test_tokens_can_be_put_back() -> None:
    bucket = TokenBucket(5, 2.0)
    bucket.take(3, 0.0)
    bucket.take(-2, 0.0)
    assert bucket.available(0.0) == 4


def test_a_debt_has_a_bound() -> None:
    bucket = TokenBucket(5, 2.0)
    for _ in range(100):
        bucket.take(1, 0.0, max_debt=3)
    assert bucket.wait_s(5, 0.0) == 4.0


TAKES = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=50)


@given(takes=TAKES, capacity=st.integers(1, 20), refill_per_s=st.floats(0.1, 100))
@settings(max_examples=200, deadline=None)
def test_a_wait_is_exact(takes: list[tuple[float, int]], capacity: int, refill_per_s: float) -> None:
    bucket, now = TokenBucket(capacity, refill_per_s), 0.0
    for pause_s, tokens in takes:
        now += pause_s
        if wait_s := bucket.wait_s(tokens, now):
            assert wait_s < 1e-5 or bucket.wait_s(tokens, now + wait_s - 5e-6) > 0.0
            now += wait_s
        assert bucket.wait_s(tokens, now) == 0.0
        bucket.take(tokens, now)


def test_a_bucket_takes_a_burst_and_then_one_at_a_time(clock: Clock) -> None:
    bucket = KeyedTokenBuckets(3, 10.0, max_keys=100, clock=clock)
    for _ in range(3):
        assert bucket.wait_s("a") == 0
        bucket.take("a")
    assert bucket.wait_s("a") == 10
    assert bucket.wait_s("b") == 0
    clock.now += 10
    assert bucket.wait_s("a") == 0
    bucket.take("a")
    assert bucket.wait_s("a") == 10
    clock.now += 30
    for _ in range(3):
        assert bucket.wait_s("a") == 0
        bucket.take("a")


def test_a_debt_is_at_most_one_bucket(clock: Clock) -> None:
    bucket = KeyedTokenBuckets(3, 10.0, max_keys=100, clock=clock)
    for _ in range(100):
        bucket.take("a")
    assert bucket.wait_s("a") == 40


def test_keys_with_a_full_bucket_and_those_unused_for_longest_are_forgotten(clock: Clock) -> None:
    bucket = KeyedTokenBuckets(1, 10.0, max_keys=3, clock=clock)
    for key in ("a", "b", "c", "a", "d"):
        bucket.take(key)
    assert len(bucket) == 3
    assert [key for key in "abcd" if bucket.wait_s(key)] == ["a", "c", "d"]
    clock.now += 60
    bucket.take("e")
    assert len(bucket) == 1
