"""One lane of a worker: consumes until it is stopped, and begins again when messages were held past their deadline.

Before each consumer, the first one included, MongoDB has to take a write (`persister.requeues`). What a worker consumes
and cannot store has to be requeued sooner or later, and on RabbitMQ 3.10 and 4.0 each return counts against the
message: a worker that kept consuming while MongoDB is away would dead-letter good messages after 100 times
HOLD_SECONDS.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from broker.interface import Broker, BrokerUnavailable, Consumer, Inspector
from broker.message import DecodeError
from persister.lanes import Lane
from persister.mongodb_errors import WriteFailed
from persister.persister import Persister
from persister.requeues import Requeues
from persister.retry import NO_DEADLINE, HeldTooLongError, Retrier
from persister.watchdog import report_depth, watch_deliveries
from readings.document import DocumentError, received_ms
from runtime.background import background
from runtime.logs import logger
from runtime.waiting import StoppedError

log = logger("persister.worker")

# How long a worker that stops may still take to record what it requeues.
SHUTDOWN_TIMEOUT_S = 1.0

MakePersister = Callable[[Consumer], Persister]


class Worker:
    """Runs a persister on a consumer of one lane, and the next one when messages were held past their deadline."""

    def __init__(
        self,
        broker: Broker,
        make: MakePersister,
        lane: Lane,
        *,
        inspector: Inspector,
        requeues: Requeues,
        retrier: Retrier,
        prefetch: int,
        stuck_after_s: float,
    ) -> None:
        self._broker = broker
        self._inspector = inspector
        self._make = make
        self._lane = lane
        self._requeues = requeues
        self._retrier = retrier.with_deadline(NO_DEADLINE)
        self._prefetch = prefetch
        self._stuck_after_s = stuck_after_s
        self._consumer: Consumer | None = None
        self._persister: Persister | None = None
        lane.metrics.lag_seconds.set_function(self.lag_s)
        lane.metrics.parked.set_function(
            lambda: self._persister.acks.parked if self._consumer and self._persister else 0
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Store what is delivered until `stop`; StuckError if nothing is delivered although messages wait."""
        with suppress(StoppedError):
            while not stop.is_set():
                await self._wait_until_writable()
                await self._consume(stop)
        with suppress(WriteFailed, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await self._requeues.write()

    async def _wait_until_writable(self) -> None:
        """Return once MongoDB takes a write; StoppedError."""
        async with background(report_depth(self._inspector, self._lane), name="depth"):
            await self._retrier.run("probe", self._requeues.probe)

    async def _consume(self, stop: asyncio.Event) -> None:
        try:
            async with self._broker.consumer(self._lane.queue, prefetch=self._prefetch) as consumer:
                persister = self._make(consumer)
                self._consumer, self._persister = consumer, persister
                acks, lane = persister.acks, self._lane
                watching = watch_deliveries(self._inspector, lane, acks, stuck_after_s=self._stuck_after_s)
                try:
                    async with background(watching, name="watchdog"):
                        await persister.run(stop)
                except* HeldTooLongError as several:
                    what = str(several.exceptions[0])
                    log.warning("Messages were held past their deadline; the broker redelivers them.", what=what)
        finally:
            self._consumer = None

    async def check(self) -> None:
        """Raise while nothing can be delivered: for `/readyz`."""
        if self._consumer is None:
            raise BrokerUnavailable("nothing is consumed before MongoDB takes a write")
        await self._consumer.check()

    def lag_s(self) -> float:
        """Return the age in seconds of the oldest delivered reading that is not stored yet: the queue is in order."""
        oldest = self._persister and self._persister.acks.oldest
        if not oldest:
            return 0.0
        try:
            return max(0.0, time.time() - received_ms(oldest.message.documents()[0]) / 1000)
        except (DecodeError, DocumentError):
            return 0.0
