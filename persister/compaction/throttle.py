"""Keeps compaction to its share of the machine."""

import time

# MongoDB takes a third to 2.4 times as much as the compactor itself (docs/decisions/0024).
WITH_MONGODB = 2.0
# A share that was not used is saved up for at most this time.
_MOST_S = 1.0


class Throttle:
    """Says how long to sleep so that the CPU seconds per second stay below a bound, those of MongoDB included.

    Only what the process uses during a step counts: in onebox it also does other things, which must not make the
    pauses longer and longer.
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        # Until when what was used so far is paid for.
        self._paid_until = time.monotonic()
        self._cpu = time.process_time()

    def start(self) -> None:
        """Begin a step."""
        self._paid_until = max(self._paid_until, time.monotonic() - _MOST_S)
        self._cpu = time.process_time()

    def pause_s(self) -> float:
        """Return how many seconds to sleep after a step, before the next one is begun."""
        self._paid_until += (time.process_time() - self._cpu) * WITH_MONGODB / self._cores
        return max(0.0, self._paid_until - time.monotonic())
