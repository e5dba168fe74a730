"""Token buckets as a GCRA (generic cell rate algorithm): the state of a bucket is one number, when it is full again.

A bucket holds `capacity` tokens and refills at a constant rate. Times are seconds of a clock that never goes back; the
caller passes them in.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

Clock = Callable[[], float]

# Sums of fractions are inexact: a wait no longer than this counts as zero.
ROUNDING_S = 1e-6


class TokenBucket:
    """A bucket that starts full. It may owe tokens: `take` never refuses, so check `wait_s` first."""

    __slots__ = ("_full_at", "_refill_per_s", "capacity")

    def __init__(self, capacity: int, refill_per_s: float) -> None:
        self.capacity = capacity
        self._refill_per_s = refill_per_s
        self._full_at = float("-inf")

    def take(self, tokens: int, now: float, *, max_debt: float = float("inf")) -> None:
        """Take tokens, owing at most `max_debt`; a negative number puts tokens back."""
        full_at = max(self._full_at, now) + tokens / self._refill_per_s
        self._full_at = min(full_at, now + (self.capacity + max_debt) / self._refill_per_s)

    def available(self, now: float) -> int:
        """Return how many whole tokens are in the bucket; 0 or less while it owes tokens."""
        return int(self.capacity - max(0.0, self._full_at - now - ROUNDING_S) * self._refill_per_s)

    def wait_s(self, tokens: int, now: float) -> float:
        """Return the seconds until the bucket holds that many tokens, or is full if it never can; 0.0: it does now."""
        missing_s = (min(tokens, self.capacity) - self.capacity) / self._refill_per_s
        wait_s = self._full_at - now + missing_s
        return round(wait_s, 6) if wait_s > ROUNDING_S else 0.0

    def is_full(self, now: float) -> bool:
        """Return whether everything taken has been refilled."""
        return self._full_at <= now


class KeyedTokenBuckets:
    """One bucket of `burst` tokens for each key, one token back every `every_s` seconds; a debt of at most `burst`.

    Keys whose bucket is full are forgotten, and so are those unused for longest beyond `max_keys`.
    """

    def __init__(self, burst: int, every_s: float, *, max_keys: int, clock: Clock = time.monotonic) -> None:
        self.burst = burst
        self._refill_per_s = 1 / every_s
        self._max_keys = max_keys
        self._clock = clock
        # The key used last comes last.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str) -> float:
        """Return the seconds until the key has a token; 0.0 when it has one now."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait_s(1, self._clock())

    def take(self, key: str) -> None:
        """Take one of the key's tokens, whether it has one or not."""
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self.burst, self._refill_per_s)
        bucket.take(1, now, max_debt=self.burst)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._max_keys or next(iter(self._buckets.values())).is_full(now):
            self._buckets.popitem(last=False)

    def reset(self, key: str) -> None:
        """Fill the key's bucket."""
        self._buckets.pop(key, None)
