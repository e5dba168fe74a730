"""Keeps compaction to its share of the machine."""

import time

# MongoDB takes about as much as the compactor itself (docs/decisions/0022).
WITH_MONGODB = 2.0
# What was not used earlier is not saved up for longer than this.
_MOST_S = 1.0


class Throttle:
    """Says how long to sleep so that CPU seconds a second stay below a bound, those of MongoDB included."""

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._at, self._cpu = time.monotonic(), time.process_time()

    def start(self) -> None:
        """Count from now on."""
        self._at, self._cpu = time.monotonic(), time.process_time()

    def pause_s(self) -> float:
        """Return how many seconds to sleep now, after a step. The process counts as a whole."""
        now, cpu = time.monotonic(), time.process_time()
        due = self._at + (cpu - self._cpu) * WITH_MONGODB / self._cores
        self._at, self._cpu = max(due, now - _MOST_S), cpu
        return max(0.0, due - now)
