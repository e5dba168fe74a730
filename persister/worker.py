"""One worker: consumes as long as it is not stopped, and begins anew where it had to let go.

Before each consumer, the first one included, MongoDB has to take a write (`persister.requeues`). What a worker consumes
and cannot store it must return sooner or later, and on RabbitMQ 3.10 and 4.0 each return counts against the message: a
worker that consumed on while MongoDB is away would make dead letters of good messages, 100 times HOLD_SECONDS later.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from broker.interface import Broker, BrokerUnavailable, Consumer
from broker.message import DecodeError
from broker.topology import READINGS
from persister.metrics import PersisterMetrics
from persister.persister import Persister
from persister.requeues import Requeues
from persister.retry import FOR_EVER, GivenUpError, Holding, LetGoError
from persister.to_mongodb import WriteFailed
from persister.watchdog import tell_depth, watch_deliveries
from readings.document import DocumentError, received_ms
from runtime.background import background
from runtime.logs import logger

log = logger("persister.worker")

# What a worker that stops may still take to write down what it returns.
LAST_WORDS_S = 1.0

MakePersister = Callable[[Consumer], Persister]


class Worker:
    """Runs a persister on a consumer, and another one when that had to let go of what it held."""

    def __init__(
        self,
        broker: Broker,
        make: MakePersister,
        metrics: PersisterMetrics,
        *,
        requeues: Requeues,
        holding: Holding,
        prefetch: int,
        stuck_after_s: float,
    ) -> None:
        self._broker = broker
        self._make = make
        self._metrics = metrics
        self._requeues = requeues
        self._holding = holding.until(FOR_EVER)
        self._prefetch = prefetch
        self._stuck_after_s = stuck_after_s
        self._consumer: Consumer | None = None
        self._persister: Persister | None = None
        metrics.lag_seconds.set_function(self.lag_s)
        metrics.parked.set_function(lambda: self._persister.ledger.parked if self._consumer and self._persister else 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Store what is delivered, until `stop`; StuckError when nothing is although messages wait."""
        with suppress(GivenUpError):
            while not stop.is_set():
                await self._until_mongodb_takes_writes()
                await self._consume(stop)
        with suppress(WriteFailed, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._requeues.write()

    async def _until_mongodb_takes_writes(self) -> None:
        async with background(tell_depth(self._broker, self._metrics), name="depth"):
            await self._holding.until_done("probe", self._requeues.probe)

    async def _consume(self, stop: asyncio.Event) -> None:
        try:
            async with self._broker.consumer(READINGS, prefetch=self._prefetch) as consumer:
                persister = self._make(consumer)
                self._consumer, self._persister = consumer, persister
                watching = watch_deliveries(
                    self._broker, persister.ledger, self._metrics, stuck_after_s=self._stuck_after_s
                )
                try:
                    async with background(watching, name="watchdog"):
                        await persister.run(stop)
                except* LetGoError as several:
                    what = str(several.exceptions[0])
                    log.warning("Held for too long; the broker is to deliver it again.", what=what)
        finally:
            self._consumer = None

    async def check(self) -> None:
        """Raise while nothing can be delivered: for `/readyz`."""
        if self._consumer is None:
            raise BrokerUnavailable("nothing is consumed before MongoDB takes a write")
        await self._consumer.check()

    def lag_s(self) -> float:
        """Return the age of the oldest reading that was delivered and is not yet stored: the queue is in order."""
        oldest = self._persister and self._persister.ledger.oldest
        if not oldest:
            return 0.0
        try:
            return max(0.0, time.time() - received_ms(oldest.message.documents()[0]) / 1000)
        except (DecodeError, DocumentError):
            return 0.0
