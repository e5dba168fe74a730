"""One worker: consumes as long as it is not stopped, and begins anew where it had to let go."""

import asyncio
import time
from collections.abc import Callable

from broker.document import DocumentError, received_ms
from broker.interface import Broker, BrokerUnavailable, Consumer
from broker.message import DecodeError
from broker.topology import READINGS
from persister.holding import LetGoError
from persister.metrics import PersisterMetrics
from persister.persist import Persister
from persister.watchdog import watch_deliveries
from runtime.beside import beside
from runtime.logs import logger

log = logger("persister.worker")

MakePersister = Callable[[Consumer], Persister]


class Worker:
    """Runs a persister on a consumer, and another one when that had to let go of what it held."""

    def __init__(
        self, broker: Broker, make: MakePersister, metrics: PersisterMetrics, *, prefetch: int, stuck_after_s: float
    ) -> None:
        self._broker = broker
        self._make = make
        self._metrics = metrics
        self._prefetch = prefetch
        self._stuck_after_s = stuck_after_s
        self._consumer: Consumer | None = None
        self._persister: Persister | None = None
        metrics.lag_seconds.set_function(self.lag_s)
        metrics.parked.set_function(lambda: self._persister.ledger.parked if self._persister else 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Store what is delivered, until `stop`; StuckError when nothing is although messages wait."""
        while not stop.is_set():
            async with self._broker.consumer(READINGS, prefetch=self._prefetch) as consumer:
                persister = self._make(consumer)
                self._consumer, self._persister = consumer, persister
                watching = watch_deliveries(
                    self._broker, persister.ledger, self._metrics, stuck_after_s=self._stuck_after_s
                )
                try:
                    async with beside(watching, name="watchdog"):
                        await persister.run(stop)
                except* LetGoError as several:
                    what = str(several.exceptions[0])
                    log.warning("Held for too long; the broker is to deliver it again.", what=what)

    async def check(self) -> None:
        """Raise while nothing can be delivered: for `/readyz`."""
        if self._consumer is None:
            raise BrokerUnavailable("the consumer is not open yet")
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
