"""How much a device and its owner may send: readings and bytes, each by the second and by the minute.

Four buckets a party, each of which fills again with time (GCRA: one number a bucket, when it will be full). A bucket
holds what its window allows, so a quiet device may send a minute's worth at once as far as the second's bound lets it.
What is larger than a whole bucket is let through when the bucket is full, and the next has to wait for all of it.

To ask eight buckets costs more than half of what an event costs, so who was looked at may take a sixteenth of each
bucket without another look. At the next look that is charged as if taken just then: never more than a bound gets in,
and a burst after a pause may find up to a sixteenth less than it could have. Bounds below 16 are exact.
"""

from typing import Literal

import msgspec

UNLOOKED = 16
# Sums of fractions are not exact.
_ROUNDING_S = 1e-6

Scope = Literal["device", "owner", "address"]


class Rates(msgspec.Struct, frozen=True):
    """What one party may send."""

    readings_per_second: int
    readings_per_minute: int
    bytes_per_second: int
    bytes_per_minute: int


class Limited(msgspec.Struct, frozen=True):
    """Which bound was met, whose it is, and how long until there is room."""

    limit: int
    scope: Scope
    wait_s: float

    @property
    def retry_after_ms(self) -> int:
        """The wait as devices are told it: at least 1 ms."""
        return max(1, -int(-self.wait_s * 1000 // 1))


class Party:
    """A device or an owner. Times are seconds of one clock that never goes back."""

    __slots__ = (
        "_buckets",
        "_full_at",
        "_leased_bytes",
        "_leased_readings",
        "bytes_left",
        "readings_left",
    )

    def __init__(self, rates: Rates) -> None:
        # (what it holds, what flows in a second), readings first.
        self._buckets = (
            (rates.readings_per_second, float(rates.readings_per_second)),
            (rates.readings_per_minute, rates.readings_per_minute / 60),
            (rates.bytes_per_second, float(rates.bytes_per_second)),
            (rates.bytes_per_minute, rates.bytes_per_minute / 60),
        )
        self._full_at = [float("-inf")] * 4
        self.readings_left = self._leased_readings = 0
        self.bytes_left = self._leased_bytes = 0

    def look(self, now: float) -> None:
        """Charge what was taken since the last look, and see what may be taken until the next."""
        readings, size = self._leased_readings - self.readings_left, self._leased_bytes - self.bytes_left
        lefts = []
        for index, (held, flow) in enumerate(self._buckets):
            taken = readings if index < 2 else size
            full_at = self._full_at[index]
            if taken:
                full_at = self._full_at[index] = max(full_at, now) + taken / flow
            left = int(held - max(0.0, full_at - now - _ROUNDING_S) * flow)
            lefts.append(min(left, held // UNLOOKED))
        self.readings_left = self._leased_readings = min(lefts[0], lefts[1])
        self.bytes_left = self._leased_bytes = min(lefts[2], lefts[3])

    def lacks(self, readings: int, size: int, now: float) -> tuple[float, int] | None:
        """Return how long this much has to wait and for which bound, as seen at the last look; None: not at all."""
        worst: tuple[float, int] | None = None
        for index, (held, flow) in enumerate(self._buckets):
            wanted = readings if index < 2 else size
            wait_s = self._full_at[index] + min(wanted, held) / flow - held / flow - now
            if wait_s > _ROUNDING_S and (worst is None or wait_s > worst[0]):
                worst = wait_s, held
        return worst

    def full(self, now: float) -> bool:
        """Say whether nothing of what was taken is still felt."""
        self.look(now)
        return max(self._full_at) <= now


class Allowance:
    """What one session may send: as much as both its device and its owner may."""

    __slots__ = ("_device", "_owner", "limited")

    def __init__(self, device: Party, owner: Party) -> None:
        self._device = device
        self._owner = owner
        # True from a refusal until the next admission.
        self.limited = False

    def admit(self, readings: int, size: int, now: float) -> Limited | None:
        """Take that many readings and bytes from both; or take nothing and return what stands in the way."""
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
        refused = self._room(readings, size, now)
        self.limited = refused is not None
        if refused is None:
            self._take(readings, size)
            device.look(now)  # more than a sixteenth, perhaps: charged at once
            owner.look(now)
        return refused

    def closed(self, size: int, now: float) -> Limited | None:
        """Return what stands in the way of even one reading of that size, without taking anything."""
        return self._room(1, size, now)

    def requeue(self, readings: int, size: int) -> None:
        """Return what was just admitted and is not taken after all."""
        self._take(-readings, -size)

    def _take(self, readings: int, size: int) -> None:
        for party in (self._device, self._owner):
            party.readings_left -= readings
            party.bytes_left -= size

    def _room(self, readings: int, size: int, now: float) -> Limited | None:
        scopes: tuple[tuple[Scope, Party], ...] = (("device", self._device), ("owner", self._owner))
        for scope, party in scopes:
            party.look(now)
            if (lack := party.lacks(readings, size, now)) is not None:
                return Limited(lack[1], scope, lack[0])
        return None
