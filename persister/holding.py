"""Tries until it succeeds: with growing, jittered pauses, so that nothing is given back and nothing is dropped.

A consumer that never acknowledges is ended by RabbitMQ after 30 minutes; so what was held for half of that lets go, and
the broker delivers it again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.interface import BrokerError
from persister.metrics import PersisterMetrics
from persister.to_mongodb import WriteFailed
from runtime.logs import logger

log = logger("persister.holding")

PAUSE_S = (0.1, 5.0)
# A stop waits this long for the attempt at hand: below the time that a drain has.
LAST_ATTEMPT_S = 5.0
Result = TypeVar("Result")


class GivenUpError(Exception):
    """A stop was asked for and the attempt did not succeed: what was held stays with the broker."""


class LetGoError(Exception):
    """It has been held for too long: the broker is to deliver it again."""


class Holding:
    """How attempts are repeated, until `stop` is set. `hold_s`: for how long at most."""

    def __init__(self, stop: asyncio.Event, metrics: PersisterMetrics, *, hold_s: float) -> None:
        self._stop = stop
        self._metrics = metrics
        self._hold_s = hold_s

    async def until_done(self, what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return what an attempt returns at last; GivenUpError at a stop, LetGoError after `hold_s`."""
        pause_s, since, failures = PAUSE_S[0], time.monotonic(), 0
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
                if time.monotonic() - since > self._hold_s:
                    raise LetGoError(what) from error
                await self._pause(pause_s * random.uniform(0.5, 1))
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
