"""Tries until it succeeds: with growing, jittered pauses, so that nothing is given back and nothing is dropped.

A message that is not acknowledged in time costs its consumer the channel: RabbitMQ's consumer time-out is 30 minutes
unless set otherwise (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout). It runs from the delivery,
whatever the message waits for meanwhile. So each message has one deadline, HOLD_SECONDS after it has arrived, through
all stages: in the window, in a batch that MongoDB does not take, in line for the dead-letter queue, in an attempt to
publish its dead letters. At the deadline it goes back to the queue, and the broker delivers it again.
"""

import asyncio
import copy
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.interface import BrokerError, Delivery
from persister.metrics import PersisterMetrics
from persister.to_mongodb import WriteFailed
from runtime.logs import logger

log = logger("persister.retry")

# Up to 2 s: what is held is stored soon after the fault has healed, and a server that comes back is not crowded.
PAUSE_S = (0.1, 2.0)
# A stop waits this long for the attempt at hand: below the time that a drain has.
LAST_ATTEMPT_S = 5.0
FOR_EVER = math.inf
Result = TypeVar("Result")


class GivenUpError(Exception):
    """A stop was asked for and the attempt did not succeed: what was held stays with the broker."""


class LetGoError(Exception):
    """It has been held for too long: the broker is to deliver it again."""


class Holding:
    """How attempts are repeated, until `stop` is set. `hold_s`: for how long at most, unless there is a deadline."""

    def __init__(self, stop: asyncio.Event, metrics: PersisterMetrics, *, hold_s: float) -> None:
        self._stop = stop
        self._metrics = metrics
        self._hold_s = hold_s
        self._deadline: float | None = None
        self._gone: Callable[[], bool] = _never

    def deadline_of(self, delivery: Delivery) -> float:
        """Return when a message is to be let go, in seconds of the monotonic clock."""
        return delivery.arrived_at + self._hold_s

    def until(self, deadline: float, *, gone: Callable[[], bool] | None = None) -> "Holding":
        """Return the same with a deadline, in seconds of the monotonic clock, or FOR_EVER.

        `gone` says whether what is held has come back to the queue already: the next failure lets go of it.
        """
        held = copy.copy(self)
        held._deadline, held._gone = deadline, gone or _never
        return held

    async def until_done(self, what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return what an attempt returns at last; GivenUpError at a stop, LetGoError at the deadline.

        There is one attempt at least: where attempts succeed, a deadline that is over already lets go of nothing.
        """
        deadline = time.monotonic() + self._hold_s if self._deadline is None else self._deadline
        pause_s, failures = PAUSE_S[0], 0
        while True:
            try:
                result = await self._unless_stopping(attempt)
            except (WriteFailed, BrokerError) as error:
                if self._stop.is_set():
                    raise GivenUpError(what) from error
                failures += 1
                self._metrics.retries.labels(what).inc()
                if failures == 1:
                    log.warning("A write failed; holding it and trying again.", what=what, error=str(error))
                if (left_s := deadline - time.monotonic()) <= 0 or self._gone():
                    raise LetGoError(what) from error
                await self._pause(min(pause_s * random.uniform(0.5, 1), left_s))
                pause_s = min(pause_s * 2, PAUSE_S[1])
                continue
            if failures:
                log.info("Writing goes on.", what=what, failures=failures)
            return result

    async def _unless_stopping(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Let an attempt end; once a stop was asked for, for so long only."""
        trying = asyncio.ensure_future(attempt())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((trying, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not trying.done():
                await asyncio.wait((trying,), timeout=LAST_ATTEMPT_S)
            if not trying.done():
                raise GivenUpError
            return trying.result()
        finally:
            trying.cancel()
            stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def _never() -> bool:
    return False
