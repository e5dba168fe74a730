"""A throttle for log lines that clients can provoke: one line a period, with the number of suppressed ones."""

import time


class LogThrottle:
    """Allows one line every `every_s` seconds. The first is always allowed."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = float("-inf")
        self._suppressed = 0

    def should_emit(self) -> int | None:
        """Return how many lines were suppressed since the last one, or None when this one is suppressed too."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            self._suppressed += 1
            return None
        suppressed, self._suppressed, self._last = self._suppressed, 0, now
        return suppressed
