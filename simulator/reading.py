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

    The first step of time says whether the rows go forwards or backwards. Where time steps the other way (a clock that
    was set, rows in no order), `seq` continues from the number of rows before the step. Earlier readings have a smaller
    seq, so all identities stay distinct, in constant memory. The same times in the same rows always give the same
    identities, so that a second replay changes nothing. Rows in order, of which a later file has more at either end,
    keep theirs, too.
    """

    __slots__ = ("_base", "_forwards", "_run", "_ts_ms")

    def __init__(self) -> None:
        self._ts_ms: int | None = None
        self._forwards: bool | None = None
        self._base = 0
        self._run = 0

    def next(self, ts_ms: int, rows_before: int) -> int:
        """Return the `seq` of the next reading of the series, measured at `ts_ms`, in the row after `rows_before`."""
        if ts_ms == self._ts_ms:
            self._run += 1
        else:
            if self._ts_ms is not None:
                self._step(rows_before, forwards=ts_ms > self._ts_ms)
            self._ts_ms, self._run = ts_ms, 0
        return self._base + self._run

    def _step(self, rows_before: int, *, forwards: bool) -> None:
        if self._forwards is None:
            self._forwards = forwards
        elif forwards != self._forwards:
            self._base = rows_before
