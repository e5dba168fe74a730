"""Rate limits of a device and its owner: readings and bytes, each per second and per minute.

Each device and each owner has four token buckets. A bucket's capacity is what its window allows, so a quiet device may
send a minute's worth at once, as far as the per-second limit permits. An event larger than a whole bucket passes when
the bucket is full, and the next event waits until all of it is refilled.

Checking eight buckets costs more than half an event. Each check therefore leases 1/16 of every bucket, to be spent
without another check. The next check charges what was spent as if it were spent just then: a limit is never exceeded,
and a burst after a pause may find up to 1/16 less than it could have. Limits below 16 are exact.
"""

from typing import Literal

import msgspec

from runtime.token_bucket import TokenBucket

# One lease is this part of a bucket's capacity.
LEASE_DIVISOR = 16

Scope = Literal["device", "owner", "address"]


class Rates(msgspec.Struct, frozen=True):
    """The rate limits of a device or an owner."""

    readings_per_second: int
    readings_per_minute: int
    bytes_per_second: int
    bytes_per_minute: int


class LimitExceeded(msgspec.Struct, frozen=True):
    """The limit that was exceeded, its scope, and the seconds until there is room."""

    limit: int
    scope: Scope
    wait_s: float

    @property
    def retry_after_ms(self) -> int:
        """The wait as sent to devices: rounded up, at least 1 ms."""
        return max(1, -int(-self.wait_s * 1000 // 1))


class TokenBuckets:
    """The four buckets of a device or an owner, and what is left of their lease. Times are seconds of one clock."""

    __slots__ = ("_bytes", "_leased_bytes", "_leased_readings", "_readings", "bytes_left", "readings_left")

    def __init__(self, rates: Rates) -> None:
        self._readings = _per_second_and_minute(rates.readings_per_second, rates.readings_per_minute)
        self._bytes = _per_second_and_minute(rates.bytes_per_second, rates.bytes_per_minute)
        self.readings_left = self._leased_readings = 0
        self.bytes_left = self._leased_bytes = 0

    def refresh_lease(self, now: float) -> None:
        """Charge what was spent of the lease, and take a new one."""
        self.readings_left = self._leased_readings = _lease(
            self._readings, self._leased_readings - self.readings_left, now
        )
        self.bytes_left = self._leased_bytes = _lease(self._bytes, self._leased_bytes - self.bytes_left, now)

    def wait_for(self, readings: int, size: int, now: float) -> tuple[float, int] | None:
        """Return the longest wait in seconds for that much, and its limit; None: no wait. Refresh the lease first."""
        worst: tuple[float, int] | None = None
        for buckets, tokens in ((self._readings, readings), (self._bytes, size)):
            for bucket in buckets:
                wait_s = bucket.wait_s(tokens, now)
                if wait_s and (worst is None or wait_s > worst[0]):
                    worst = wait_s, bucket.capacity
        return worst

    def is_refilled(self, now: float) -> bool:
        """Return whether every bucket has refilled."""
        self.refresh_lease(now)
        return all(bucket.is_full(now) for bucket in (*self._readings, *self._bytes))


class SessionQuota:
    """What one session may send: as much as both its device and its owner may."""

    __slots__ = ("_device", "_owner", "limited")

    def __init__(self, device: TokenBuckets, owner: TokenBuckets) -> None:
        self._device = device
        self._owner = owner
        # True from a refusal until the next success.
        self.limited = False

    def acquire(self, readings: int, size: int, now: float) -> LimitExceeded | None:
        """Take that many readings and bytes from both; or take nothing and return the limit that was exceeded."""
        device, owner = self._device, self._owner
        if (
            readings <= device.readings_left
            and readings <= owner.readings_left
            and size <= device.bytes_left
            and size <= owner.bytes_left
        ):
            device.readings_left -= readings
            device.bytes_left -= size
            owner.readings_left -= readings
            owner.bytes_left -= size
            return None
        exceeded = self._exceeded(readings, size, now)
        self.limited = exceeded is not None
        if exceeded is None:
            self._spend(readings, size)
            device.refresh_lease(now)  # it may be more than a lease: charge it at once
            owner.refresh_lease(now)
        return exceeded

    def check(self, size: int, now: float) -> LimitExceeded | None:
        """Return the limit that a single reading of that size would exceed, if any, without taking anything."""
        return self._exceeded(1, size, now)

    def refund(self, readings: int, size: int) -> None:
        """Put back what was just acquired and is not used."""
        self._spend(-readings, -size)

    def _spend(self, readings: int, size: int) -> None:
        for buckets in (self._device, self._owner):
            buckets.readings_left -= readings
            buckets.bytes_left -= size

    def _exceeded(self, readings: int, size: int, now: float) -> LimitExceeded | None:
        scopes: tuple[tuple[Scope, TokenBuckets], ...] = (("device", self._device), ("owner", self._owner))
        for scope, buckets in scopes:
            buckets.refresh_lease(now)
            if (found := buckets.wait_for(readings, size, now)) is not None:
                wait_s, limit = found
                return LimitExceeded(limit, scope, wait_s)
        return None


def _per_second_and_minute(per_second: int, per_minute: int) -> tuple[TokenBucket, TokenBucket]:
    return TokenBucket(per_second, float(per_second)), TokenBucket(per_minute, per_minute / 60)


def _lease(buckets: tuple[TokenBucket, TokenBucket], spent: int, now: float) -> int:
    """Charge `spent` to both buckets; return how much may be spent until the next check."""
    lease: int | None = None
    for bucket in buckets:
        if spent:
            bucket.take(spent, now)
        left = min(bucket.available(now), bucket.capacity // LEASE_DIVISOR)
        lease = left if lease is None else min(lease, left)
    return lease or 0
