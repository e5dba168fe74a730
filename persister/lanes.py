"""The two queues of readings, and which one is written: live readings at once, the backfill in between.

A write of the backfill waits while live readings are being written, but for WAIT_S at most: beside live readings that
never pause it still gets some batches a second of each worker, so that neither lane starves. A live write waits for
nothing; it may meet writes of the backfill that have begun, of at most BATCH_READINGS each.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from broker.topology import BACKFILL, READINGS, Queue
from persister.metrics import LaneMetrics, PersisterMetrics

WAIT_S = 0.25


class LivePriority:
    """Lets the backfill wait for the live readings of the same worker."""

    def __init__(self) -> None:
        self._writing = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Live readings are being written."""
        self._writing += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self._idle.set()

    async def wait(self) -> None:
        """Return once no live readings are being written, after WAIT_S at the latest."""
        if self._writing:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._idle.wait()


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue of readings, its metrics, and when its batches may be written.

    `turn` returns once the next batch may be taken; `writing` is entered while one is written.
    """

    queue: Queue
    metrics: LaneMetrics
    turn: Callable[[], Awaitable[None]]
    writing: Callable[[], AbstractContextManager[None]]


def lanes_of(metrics: PersisterMetrics) -> tuple[Lane, Lane]:
    """Return the live lane and the backfill of one worker."""
    priority = LivePriority()
    return (
        Lane(READINGS, metrics.live, _at_once, priority.writing),
        Lane(BACKFILL, metrics.backfill, priority.wait, nullcontext),
    )


async def _at_once() -> None:
    return
