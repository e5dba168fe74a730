"""BROKER → PERSISTER: gathers arrived messages into batches, whose size therefore follows the depth of the queue.

A batch takes everything that has arrived, up to its bound. A batch that is not full lingers once for more: no device
waits for it, and a write costs as much for ten readings as for five hundred. While one batch is written, the next one
gathers in the consumer's prefetch window.
"""

import asyncio
import sys
import time

from broker.interface import Consumer, Delivery
from persister.acks import AckTracker

# A reading with short names and no tags has about 180 bytes.
TYPICAL_DOCUMENT_BYTES = 180
# A batch of this size takes no more, as one of large documents may reach. The driver takes 16 MiB in one command, and a
# message has up to 1 MiB.
MAX_BATCH_BYTES = 14 * 1024 * 1024
# A message delivered this often and never settled may be what kills its workers: it is written alone.
ISOLATE_AFTER_DELIVERIES = 3
# While a batch lingers: how often it looks for more.
POLL_EVERY_S = 0.01


class FromBroker:
    """Takes batches of deliveries from one consumer."""

    def __init__(
        self, consumer: Consumer, acks: AckTracker, *, batch_readings: int, linger_ms: int, prefetch: int
    ) -> None:
        self._consumer = consumer
        self._acks = acks
        self._prefetch = prefetch
        self._batch_readings = batch_readings
        self._linger_s = linger_ms / 1000
        # Taken from the consumer, but not for the previous batch.
        self._next: Delivery | None = None
        # Taken for a batch whose caller was cancelled.
        self._abandoned: list[Delivery] = []

    async def wait(self) -> None:
        """Return once there is a delivery to take."""
        if self._next is None:
            self._next = await self._consumer.get()

    async def next_batch(self, most: int = sys.maxsize) -> list[Delivery]:
        """Return what has arrived: up to a full batch, of about `most` readings at most, but at least one message.

        A batch that is not full also gets what arrives while it lingers. Call it after `wait`. If it is cancelled,
        `drain` returns what it has taken.
        """
        batch: list[Delivery] = []
        most = min(most, self._batch_readings)
        self._abandoned = batch
        lingers_until = time.monotonic() + self._linger_s
        # With the prefetch window full, nothing arrives before something is settled: many small messages are a backlog
        # too.
        while not self._take(batch, most) and self._acks.unsettled_count + len(batch) < self._prefetch:
            left_s = lingers_until - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(min(left_s, POLL_EVERY_S))
        self._abandoned = []
        return batch

    def drain(self) -> list[Delivery]:
        """Return what has arrived and is in no batch: it goes back to the queue when the consumer ends."""
        rest, self._abandoned = self._abandoned, []
        if self._next is not None:
            rest.append(self._next)
            self._next = None
        while (delivery := self._consumer.get_nowait()) is not None:
            rest.append(delivery)
        return rest

    def _take(self, batch: list[Delivery], most: int) -> bool:
        """Add what has arrived; return whether the batch is full."""
        size = sum(len(delivery.message.body) for delivery in batch)
        # An estimate: messages are decoded later, once.
        readings = sum(_estimated_readings(delivery) for delivery in batch)
        while readings < most and size < MAX_BATCH_BYTES:
            delivery = self._next or self._consumer.get_nowait()
            self._next = None
            if delivery is None:
                return False
            if batch and not _may_share_a_batch(batch[0], delivery):
                self._next = delivery
                return True
            batch.append(delivery)
            size += len(delivery.message.body)
            readings += _estimated_readings(delivery)
        return True


def _estimated_readings(delivery: Delivery) -> int:
    return max(1, len(delivery.message.body) // TYPICAL_DOCUMENT_BYTES)


def _may_share_a_batch(first: Delivery, other: Delivery) -> bool:
    """Return whether neither delivery has to be isolated and the same connection delivered both."""
    isolated = ISOLATE_AFTER_DELIVERIES
    return first.delivery_count < isolated and other.delivery_count < isolated and first.generation == other.generation
