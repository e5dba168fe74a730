"""A reading as a simulated device sends it: its identity (ts, seq) within its series, and its outcome."""

from collections.abc import Callable
from enum import Enum

from msgspec import UNSET, UnsetType

from readings.reading import Attributes, Value

Identity = tuple[int, int]
"""(ts, seq) within a series; ts in milliseconds since 1970."""


class ReadingOutcome(Enum):
    """The gateway's final answer to a reading."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class DeviceReading(Attributes, frozen=True, omit_defaults=True, rename="camel"):
    """A reading with its identity. `ts` is in milliseconds since 1970.

    `received_at` is copied unchanged from an export; only HTTP accepts it.
    """

    sensor_type: str
    value: Value
    ts: int
    seq: int = 0
    received_at: str | UnsetType = UNSET


OnSettled = Callable[[str, str, list[Identity], ReadingOutcome, float], None]
"""Called with device, sensor type, identities, their outcome, and the seconds since their event was first sent."""


class SequenceCounter:
    """Numbers the readings of one series that share a millisecond, from 0.

    When time steps back (a clock that was set, the hour that daylight saving time repeats), `seq` continues from the
    number of readings before the step. Earlier readings have a smaller seq, so all identities stay distinct, in
    constant memory. The same times in the same order always give the same identities, so that a second replay changes
    nothing.
    """

    __slots__ = ("_base", "_count", "_run", "_ts_ms")

    def __init__(self) -> None:
        self._ts_ms = -1
        self._base = 0
        self._run = 0
        self._count = 0

    def next(self, ts_ms: int) -> int:
        """Return the `seq` of the next reading of the series, measured at `ts_ms`."""
        if ts_ms == self._ts_ms:
            self._run += 1
        else:
            if ts_ms < self._ts_ms:
                self._base = self._count
            self._ts_ms = ts_ms
            self._run = 0
        self._count += 1
        return self._base + self._run
