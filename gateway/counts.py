"""What every event counts: readings by acknowledgement, and how long an acknowledgement took.

Plain numbers for a single thread, without locks and labels: an observation of `prometheus_client` takes as long as
decoding a reading. `gateway/metrics.py` shows them.
"""

from bisect import bisect_left
from collections.abc import Sequence


class ReadingCounts:
    """Readings by the status of their acknowledgement."""

    __slots__ = ("accepted", "rejected", "retry")

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected = 0
        self.retry = 0


class DurationCounts:
    """A histogram of durations in seconds: how many are at most each of `bounds`, but above the one before."""

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        # The last one counts what is above all bounds.
        self.counts = [0] * (len(self.bounds) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds
