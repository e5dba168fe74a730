"""Rate limits of a device and its owner: never more than the limits, and no refusal below them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.rates import LEASE_DIVISOR, Rates, SessionQuota, TokenBuckets

PLENTY = 10**12
SMALL = Rates(10, 300, 1000, 30_000)
ENDLESS = Rates(PLENTY, PLENTY, PLENTY, PLENTY)


def quota(device: Rates = SMALL, owner: Rates = ENDLESS) -> SessionQuota:
    return SessionQuota(TokenBuckets(device), TokenBuckets(owner))


def test_a_bucket_lets_a_seconds_worth_through_at_once_and_then_as_it_fills() -> None:
    mine = quota()
    assert [mine.acquire(1, 1, 5.0) for _ in range(10)] == [None] * 10
    refused = mine.acquire(1, 1, 5.0)
    assert refused is not None
    assert (refused.limit, refused.scope, refused.retry_after_ms) == (10, "device", 100)
    assert mine.limited
    assert mine.acquire(1, 1, 5.05) is not None
    assert mine.acquire(1, 1, 5.1) is None
    assert not mine.limited


def test_the_minutes_bound_holds_below_the_seconds() -> None:
    mine = quota(Rates(10, 30, PLENTY, PLENTY))
    taken = sum(mine.acquire(1, 1, at / 10) is None for at in range(600))
    assert 30 + 29 <= taken <= 60, "30 at once and one every 2 s"


def test_bytes_have_bounds_of_their_own() -> None:
    mine = quota()
    assert mine.acquire(1, 1000, 0.0) is None
    refused = mine.acquire(1, 500, 0.0)
    assert refused is not None
    assert (refused.limit, refused.scope) == (1000, "device")
    assert refused.wait_s == pytest.approx(0.5, abs=0.01)


def test_what_is_larger_than_a_bucket_goes_through_a_full_one_and_is_paid_afterwards() -> None:
    mine = quota()
    assert mine.acquire(25, 1, 0.0) is None
    refused = mine.acquire(1, 1, 0.0)
    assert refused is not None
    assert refused.wait_s == pytest.approx(1.6, abs=0.01)
    assert mine.acquire(25, 1, 2.0) is not None, "the bucket is not full yet"
    assert mine.acquire(25, 1, 2.51) is None


def test_an_owner_shares_one_bound_between_its_devices() -> None:
    owner = TokenBuckets(SMALL)
    one, other = SessionQuota(TokenBuckets(ENDLESS), owner), SessionQuota(TokenBuckets(ENDLESS), owner)
    assert one.acquire(6, 1, 0.0) is None
    refused = other.acquire(6, 1, 0.0)
    assert refused is not None
    assert refused.scope == "owner"
    assert other.acquire(4, 1, 0.0) is None


def test_a_refusal_takes_nothing_and_what_is_refunded_is_there_again() -> None:
    mine = quota()
    assert mine.acquire(8, 1, 0.0) is None
    for _ in range(100):
        assert mine.acquire(3, 1, 0.0) is not None
    assert mine.acquire(2, 1, 0.0) is None
    mine.refund(2, 1)
    assert mine.acquire(2, 1, 0.0) is None
    assert mine.check(1, 0.0) is not None
    assert mine.check(1, 1.0) is None


EVENTS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), min_size=1, max_size=80)


@given(events=EVENTS, limit=st.integers(5, 600))
@settings(max_examples=300, deadline=None)
def test_no_interval_lets_more_through_than_a_bucket_and_what_flows_in(
    events: list[tuple[float, int]], limit: int
) -> None:
    mine = quota(Rates(limit, limit * 60, PLENTY, PLENTY))
    now, admitted = 0.0, list[tuple[float, int]]()
    for pause_s, readings in events:
        now += pause_s
        if mine.acquire(readings, 1, now) is None:
            admitted.append((now, readings))
    for start in range(len(admitted)):
        total = 0
        for at, readings in admitted[start:]:
            total += readings
            if readings <= limit:  # a larger one goes through a full bucket
                oversize = max((size for _, size in admitted[start:] if size > limit), default=0)
                assert total <= limit + (at - admitted[start][0]) * limit + oversize + 1e-3


@given(events=EVENTS, limit=st.integers(5, 600))
@settings(max_examples=300, deadline=None)
def test_after_the_wait_in_the_refusal_the_same_is_accepted(events: list[tuple[float, int]], limit: int) -> None:
    mine = quota(Rates(limit, limit * 60, PLENTY, PLENTY))
    now = 0.0
    for pause_s, readings in events:
        now += pause_s
        if (refused := mine.acquire(readings, 1, now)) is not None:
            now += refused.retry_after_ms / 1000
            assert mine.acquire(readings, 1, now) is None


@given(burst=st.integers(1, 200), limit=st.integers(16, 20_000))
@settings(max_examples=200, deadline=None)
def test_a_session_a_tenth_below_the_limit_is_never_refused(burst: int, limit: int) -> None:
    burst = min(burst, limit - 2 * (limit // LEASE_DIVISOR) - 1)
    mine = quota(Rates(limit, limit * 60, PLENTY, PLENTY))
    every_s = burst / (limit * 0.9)
    for number in range(300):
        assert mine.acquire(burst, 1, number * every_s) is None
