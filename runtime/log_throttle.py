"""Log lines that strangers can provoke: one a period, with the number of those that were left out."""

import time


class LogThrottle:
    """Says whether a line is due. The first always is."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = float("-inf")
        self._left_out = 0

    def due(self) -> int | None:
        """Return how many lines were left out since the last one, or None when this one is to be left out too."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            self._left_out += 1
            return None
        left_out, self._left_out, self._last = self._left_out, 0, now
        return left_out
