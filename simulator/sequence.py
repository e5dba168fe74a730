"""Identities: the (ts, seq) of each reading of a series, so that no two readings of it are taken for one."""


class Sequence:
    """Counts `seq` up among the readings of one series that share a millisecond; the first has 0.

    Times may step back (a clock that was set, the hour that daylight saving time repeats): from there on `seq` counts
    from the number of readings before the step. Readings before it have a smaller seq, so all stay apart, in constant
    memory; and the same times in the same order give the same identities, so a second replay changes nothing.
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
