"""Retries with growing, jittered pauses until an attempt succeeds, so that nothing is returned and nothing is dropped.

A message that is not acknowledged in time costs its consumer the channel: RabbitMQ's consumer time-out is 30 minutes
unless set otherwise (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout). It runs from the delivery,
whatever the message waits for. Each message therefore has one deadline for all stages, HOLD_SECONDS after its arrival:
in the prefetch window, in a batch that MongoDB does not take, in the dead-letter backlog, and while its dead letters
are being published. At the deadline it is requeued, and the broker redelivers it.
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
from persister.mongodb_errors import WriteFailed, WriteRefused
from runtime.logs import logger
from runtime.waiting import StoppedError, unless_stopped

log = logger("persister.retry")

# The first and the longest pause. 2 s: what waits is stored soon after the fault is over, and a server that comes back
# is not overrun.
BACKOFF_S = (0.1, 2.0)
# How long a running attempt may go on after a stop: less than a drain has.
FINAL_ATTEMPT_S = 5.0
NO_DEADLINE = math.inf
Result = TypeVar("Result")


class HeldTooLongError(Exception):
    """The deadline has passed: the broker has to redeliver the message."""


class Retrier:
    """Repeats attempts until `stop` is set, for `hold_s` seconds at most unless `with_deadline` says otherwise."""

    def __init__(self, stop: asyncio.Event, metrics: PersisterMetrics, *, hold_s: float) -> None:
        self._stop = stop
        self._metrics = metrics
        self._hold_s = hold_s
        self._deadline: float | None = None
        self._is_stale: Callable[[], bool] = _never

    def deadline_of(self, delivery: Delivery) -> float:
        """Return when a message has to go back to the queue, in seconds of the monotonic clock."""
        return delivery.arrived_at + self._hold_s

    def with_deadline(self, deadline: float, *, is_stale: Callable[[], bool] | None = None) -> "Retrier":
        """Return the same retrier with a deadline in seconds of the monotonic clock, or NO_DEADLINE.

        `is_stale` returns whether the message is back in the queue already: then the next failure is the last.
        """
        retrier = copy.copy(self)
        retrier._deadline, retrier._is_stale = deadline, is_stale or _never
        return retrier

    async def run(self, operation: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return the first result of `attempt`; WriteFailed and BrokerError are retried, other errors are raised.

        StoppedError at a stop, HeldTooLongError at the deadline. There is always at least one attempt: while attempts
        succeed, a deadline that has passed changes nothing.
        """
        deadline = time.monotonic() + self._hold_s if self._deadline is None else self._deadline
        pause_s, failures = BACKOFF_S[0], 0
        while True:
            try:
                result = await unless_stopped(attempt(), self._stop, grace_s=FINAL_ATTEMPT_S)
            except (WriteFailed, BrokerError) as error:
                if self._stop.is_set():
                    raise StoppedError(operation) from error
                failures += 1
                self._metrics.retries.labels(operation).inc()
                if failures == 1:
                    log.warning("A write failed; retrying.", what=operation, error=str(error))
                if (left_s := deadline - time.monotonic()) <= 0 or self._is_stale():
                    raise HeldTooLongError(operation) from error
                await self._pause(min(pause_s * random.uniform(0.5, 1), left_s))
                pause_s = min(pause_s * 2, BACKOFF_S[1])
            except WriteRefused:  # by a server that answers again
                _log_recovery(operation, failures)
                raise
            else:
                _log_recovery(operation, failures)
                return result

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def _log_recovery(operation: str, failures: int) -> None:
    if failures:
        log.info("Writes succeed again.", what=operation, failures=failures)


def _never() -> bool:
    return False
