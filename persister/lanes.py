"""The two queues of readings, and which one is written: live readings at once, the backfill in between.

A write of the backfill waits while live readings are being written, but for WAIT_S at most: beside live readings that
never pause it still gets some batches a second of each worker, so that neither lane starves. A live write waits for
nothing. It may meet a write of the backfill that has begun: while live readings come, one a worker unless it takes
longer than WAIT_S, of some MAX_WHILE_LIVE readings; else as many and as large as the settings say.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from broker.topology import BACKFILL, READINGS, Queue
from persister.metrics import LaneMetrics, PersisterMetrics

WAIT_S = 0.25
# Live readings count as coming for this long after the last of them was written.
LIVE_FOR_S = 1.0
# With 2,000, 3,000 and 4,000 a backlog drains at 0.82, 0.85 and 0.85 of what it does alone, and 99 of 100 live readings
# are stored within 122, 125 and 125 ms (docs/decisions/0027).
MAX_WHILE_LIVE = 3000
UNBOUNDED = sys.maxsize


class LivePriority:
    """Lets the backfill wait for the live readings of the same worker, and leave room beside them."""

    def __init__(self) -> None:
        self._live = _Writes()
        self._backfill = _Writes()
        self._live_until = float("-inf")

    @contextmanager
    def writing_live(self) -> Iterator[None]:
        """Live readings are being written."""
        try:
            with self._live.counted():
                yield
        finally:
            self._live_until = time.monotonic() + LIVE_FOR_S

    def writing_backfill(self) -> AbstractContextManager[None]:
        """Late readings are being written."""
        return self._backfill.counted()

    async def turn(self) -> int:
        """Return once late readings may be written, and how many at most."""
        most = UNBOUNDED
        if self._live or time.monotonic() < self._live_until:
            most = MAX_WHILE_LIVE
            await asyncio.sleep(0)  # until the batch before this one is being written
            # One that waits for the success of others, to tell which document is to blame, must not wait without end.
            await self._backfill.ended()
        await self._live.ended()
        return most


class _Writes:
    """The number of writes at this moment."""

    def __init__(self) -> None:
        self._number = 0
        self._none = asyncio.Event()
        self._none.set()

    def __bool__(self) -> bool:
        return self._number > 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one while the context lasts."""
        self._number += 1
        self._none.clear()
        try:
            yield
        finally:
            self._number -= 1
            if not self._number:
                self._none.set()

    async def ended(self) -> None:
        """Return once nothing is written, after WAIT_S at the latest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._none.wait()


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue of readings, its metrics, and when its batches may be written.

    `turn` returns once the next batch may be taken, and how many readings it may have at most; `writing` is entered
    while one is written.
    """

    queue: Queue
    metrics: LaneMetrics
    turn: Callable[[], Awaitable[int]]
    writing: Callable[[], AbstractContextManager[None]]


def lanes_of(metrics: PersisterMetrics) -> tuple[Lane, Lane]:
    """Return the live lane and the backfill of one worker."""
    priority = LivePriority()
    return (
        Lane(READINGS, metrics.live, _at_once, priority.writing_live),
        Lane(BACKFILL, metrics.backfill, priority.turn, priority.writing_backfill),
    )


async def _at_once() -> int:
    return UNBOUNDED
